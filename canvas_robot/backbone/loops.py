"""What every looped block shares: its parameters at start, its gate, its loop count.

The blocks themselves are in looped_block.py (CogVideoX) and looped_wrapper.py (any other).

A block runs L times before the next one: h = (1 - w_l) h + w_l block(h + e_l). Two gates give w_l:

- "identity": w_l = g_l, with e_0 = 0, g_0 = 1 and, for l > 0, g_l = 0 and e_l small. A fresh graft
  equals the ungrafted model bit for bit at any loop count, for torch.lerp is exact at 0 and 1.
- "sigmoid": w_l = sigmoid(g_l), all e_l = 0: canvas-engineering 0.1.0, whose checkpoints fit it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from canvas_robot.schema.plain import plain_int

GATES = ("identity", "sigmoid")
EMBEDDING_STD = 0.02  # apart at start: equal embeddings would get equal gradients and stay tied


def require_gate(gate: str) -> str:
    """The word itself. Raises ValueError, listing the gates, when it is none of them."""
    if gate not in GATES:
        raise ValueError(f"gate: expected one of {GATES}, got {gate!r}")
    return gate


def require_count(name: str, value: int) -> int:
    """The value as an int. Raises ValueError when it is not an integer or is below 1."""
    count = plain_int(value)
    if count is None or count < 1:
        raise ValueError(f"{name}: expected an int >= 1, got {value!r}")
    return count


def require_finite(name: str, value: float) -> None:
    """Raises ValueError for NaN, infinity, a number beyond float's range and what is no number."""
    try:
        finite = not isinstance(value, bool) and math.isfinite(value)
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        raise ValueError(f"{name}: expected a finite number, got {value!r}")


def initial_embeddings(
    gate: str, max_loops: int, width: int, device: torch.device | None
) -> nn.Parameter:
    """e, (max_loops, width), float32: zero, but small and distinct for identity's later loops."""
    embeddings = torch.zeros(max_loops, width, dtype=torch.float32)
    if gate == "identity":
        noise = torch.randn(max_loops, width, dtype=torch.float32)
        embeddings[1:] = noise[1:] * EMBEDDING_STD
    return nn.Parameter(embeddings.to(device=device))


def initial_gates(
    gate: str, max_loops: int, bias: float, device: torch.device | None
) -> nn.Parameter:
    """g, (max_loops, 1), float32: 1 and then zeros for identity, else the bias."""
    gates = torch.full((max_loops, 1), float(bias), dtype=torch.float32)
    if gate == "identity":
        gates[0] = 1.0
    return nn.Parameter(gates.to(device=device))


def mix(gate: str, g: torch.Tensor, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """(1 - w) old + w new, with w from the gate parameter g (1,), in the dtype of `new`."""
    if gate == "identity":
        return torch.lerp(old.to(new.dtype), new, g.to(new.dtype))
    weight = torch.sigmoid(g).to(new.dtype)
    return weight * new + (1 - weight) * old  # not lerp: rounds as canvas-engineering does


def runner(checkpointing: bool, loops: int) -> Callable:
    """How one loop is called: with its activations recomputed in the backward pass, or plainly."""
    if checkpointing and loops > 1 and torch.is_grad_enabled():
        return lambda loop, *args: checkpoint(loop, *args, use_reentrant=False)
    return lambda loop, *args: loop(*args)


def device_of(module: nn.Module) -> torch.device | None:
    """Device of a module's first parameter; None where it has none."""
    return next((p.device for p in module.parameters()), None)
