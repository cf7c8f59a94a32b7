"""What a loop computes between its matrix products and attention, as functions of tensors alone.

Runs of rows differ in stream and timestep, and so in shift, norm and gate: each argument that is a
tuple has one tensor for each run. torch.compile fuses each function to one pass over the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from canvas_robot.backbone import loops

PerRun = tuple[torch.Tensor, ...]
Sizes = tuple[int, ...]  # rows in each run


class RunNorm(NamedTuple):
    """A layer norm and the gate after what it feeds, for each run: (D,) or (B, 1, D) each."""

    weights: PerRun
    biases: PerRun
    gates: PerRun
    eps: float


class Elementwise(NamedTuple):
    """The three functions of a loop, as they are or compiled."""

    enter: Callable
    between: Callable
    leave: Callable


def enter(
    rows: torch.Tensor, sizes: Sizes, shifts: PerRun, norm: RunNorm
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (B, n, D) plus the loop's embedding, and those normed for attention."""
    parts = zip(rows.split(sizes, dim=1), shifts, strict=True)
    shifted = _together([x + shift.to(x.dtype) for x, shift in parts])
    return shifted, normed(shifted, sizes, norm)


def between(
    rows: torch.Tensor,
    update: torch.Tensor,
    extra: torch.Tensor | None,
    sizes: Sizes,
    gates: PerRun,
    norm: RunNorm,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows plus attention's gated update and the residual edges', and those normed for the rest."""
    rows = added(rows, update, sizes, gates)
    if extra is not None:
        rows = rows + extra
    return rows, normed(rows, sizes, norm)


def leave(
    rows: torch.Tensor,
    update: torch.Tensor,
    old: torch.Tensor,
    sizes: Sizes,
    gates: PerRun,
    gate: str,
    loop_gate: torch.Tensor,
) -> torch.Tensor:
    """Rows plus the feed-forward's gated update, mixed into what the loop began with."""
    return loops.mix(gate, loop_gate, old, added(rows, update, sizes, gates))


def normed(rows: torch.Tensor, sizes: Sizes, norm: RunNorm) -> torch.Tensor:
    """(B, n, D), each run by its own norm."""
    parts = zip(rows.split(sizes, dim=1), norm.weights, norm.biases, strict=True)
    return _together([layer_norm(x, weight, bias, norm.eps) for x, weight, bias in parts])


def added(rows: torch.Tensor, update: torch.Tensor, sizes: Sizes, gates: PerRun) -> torch.Tensor:
    """rows + gate * update, (B, n, D)."""
    parts = zip(update.split(sizes, dim=1), gates, strict=True)
    return rows + _together([x * gate for x, gate in parts])


def layer_norm(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """The layer norm of rows (B, n, D), with a weight and bias for all samples or for each."""
    if weight.ndim == 1:
        return F.layer_norm(rows, rows.shape[-1:], weight, bias, eps)
    return F.layer_norm(rows, rows.shape[-1:], eps=eps) * weight + bias


def elementwise(compiled: bool = False) -> Elementwise:
    """The functions; compiled ones need a compiler at their first call, as Inductor says."""
    functions = (enter, between, leave)
    return Elementwise(*(torch.compile(f) if compiled else f for f in functions))


def _together(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
