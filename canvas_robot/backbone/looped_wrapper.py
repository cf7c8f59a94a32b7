"""LoopedBlockWrapper: any block that takes the hidden states first, run several times.

What it computes in a loop, and its gates, are described in loops.py; CogVideoX's blocks, with their
two streams, are in looped_block.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from canvas_robot.backbone import loops


class LoopedBlockWrapper(nn.Module):
    """A block with loop parameters: h = (1 - w_l) h + w_l block(h + e_l), `current_loops` times.

    Args:
        original: the block; it is kept, not copied. Its first argument, and its result or the first
            element of a tuple, are hidden states of one shape, (..., embed_dim).
        block_idx: index in the model, for messages.
        max_loops: largest number of runs.
        embed_dim: width of the hidden states.
        gate_init_bias: where the parameters of a sigmoid gate start; 0 mixes one half.
        use_gradient_checkpointing: with more than one loop, keep only each loop's input for the
            backward pass and recompute the rest.
        gate: "sigmoid" or "identity", see loops.py.
        keep_outputs: what comes back when the block returns a tuple. False: the hidden states alone
            (canvas-engineering does so). True: a tuple as the block's, its further tensors
            mixed over the loops as the hidden states are; what cannot be mixed is the last loop's.
    Raises:
        ValueError: a count below 1, an unknown gate, a bias that is not finite, or one for a gate
            that has none.

    `loop_emb` is (max_loops, embed_dim), `loop_gate` (max_loops, 1), both float32 and cast at use.
    Attributes it lacks are those of the block, for models that read them (nn.TransformerEncoder).
    """

    def __init__(
        self,
        original: nn.Module,
        block_idx: int = 0,
        max_loops: int = 4,
        embed_dim: int = 256,
        gate_init_bias: float = 0.0,
        use_gradient_checkpointing: bool = True,
        *,
        gate: str = "sigmoid",
        keep_outputs: bool = False,
    ) -> None:
        super().__init__()
        self.block_idx = block_idx
        self.max_loops = loops.require_count("max_loops", max_loops)
        self.embed_dim = loops.require_count("embed_dim", embed_dim)
        self.gate = loops.require_gate(gate)
        loops.require_finite("gate_init_bias", gate_init_bias)
        if gate == "identity" and gate_init_bias != 0.0:
            raise ValueError(
                f"gate_init_bias: expected 0.0 for gate 'identity', got {gate_init_bias!r}"
            )
        self.use_gradient_checkpointing = use_gradient_checkpointing
        self.keep_outputs = keep_outputs
        self.current_loops = 1
        self.training = original.training
        self.loop_parameter_names = ("loop_emb", "loop_gate")
        device = loops.device_of(original)
        self.loop_emb = loops.initial_embeddings(gate, max_loops, embed_dim, device)
        self.loop_gate = loops.initial_gates(gate, max_loops, gate_init_bias, device)
        self.original = original  # last: torch refuses parameters named as an attribute there is

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "original":
                raise
            return getattr(self.original, name)

    def set_loops(self, n: int) -> None:
        """Sets the number of runs, at most max_loops. Raises ValueError when n < 1."""
        self.current_loops = min(loops.require_count("loops", n), self.max_loops)

    def trainable_params(self) -> int:
        """Number of loop parameters, the wrapped block's excluded."""
        return self.loop_emb.numel() + self.loop_gate.numel()

    def forward(
        self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor | tuple:
        """Hidden states (..., embed_dim) in and out; all other arguments go to every run as given.

        Raises ValueError when the hidden states have another width or are nested, or when the block
        returns another shape; TypeError when it returns neither a tensor nor a tuple of one.
        """
        self._require_width(hidden_states)
        run = loops.runner(self.use_gradient_checkpointing, self.current_loops)
        output = hidden_states
        for loop in range(self.current_loops):
            output = run(partial(self._loop, loop, args, kwargs), output)
        return output if self.keep_outputs or not isinstance(output, tuple) else output[0]

    def _loop(
        self, loop: int, args: tuple, kwargs: dict, before: torch.Tensor | tuple
    ) -> torch.Tensor | tuple:
        """One run, from the last one's output to the next."""
        hidden, *kept = before if isinstance(before, tuple) else (before,)
        output = self.original(hidden + self.loop_emb[loop].to(hidden.dtype), *args, **kwargs)
        new, *further = output if isinstance(output, tuple) else (output,)
        self._require_same_shape(hidden, new)
        mixed = loops.mix(self.gate, self.loop_gate[loop], hidden, new)
        if not isinstance(output, tuple):
            return mixed
        if kept:  # the first run has nothing to mix its further outputs with
            further = [self._mix_further(loop, a, b) for a, b in zip(kept, further, strict=True)]
        return (mixed, *further)

    def _mix_further(self, loop: int, old: Any, new: Any) -> Any:
        tensors = isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)
        if not tensors or not new.is_floating_point() or old.shape != new.shape:
            return new
        return loops.mix(self.gate, self.loop_gate[loop], old, new)

    def _require_width(self, hidden: torch.Tensor) -> None:
        if hidden.is_nested:
            raise ValueError(
                f"{self._name()}: expected a dense tensor, got a nested one; make the "
                "nn.TransformerEncoder with enable_nested_tensor=False"
            )
        if hidden.ndim == 0 or hidden.shape[-1] != self.embed_dim:
            raise ValueError(
                f"{self._name()}: expected hidden states (..., {self.embed_dim}), got "
                f"{tuple(hidden.shape)}; wrap it with embed_dim, or graft with inner_dim, "
                "of their width"
            )

    def _require_same_shape(self, hidden: torch.Tensor, new: Any) -> None:
        if not isinstance(new, torch.Tensor):
            raise TypeError(
                f"{self._name()}: expected a tensor, or a tuple that begins with one, from the "
                f"block, got {type(new).__name__}"
            )
        if new.shape != hidden.shape:
            raise ValueError(
                f"{self._name()}: expected hidden states {tuple(hidden.shape)} from the block, as "
                f"it was given, got {tuple(new.shape)}; a block that changes shape cannot loop"
            )

    def _name(self) -> str:
        return f"looped block {self.block_idx} ({type(self.original).__name__})"

    def extra_repr(self) -> str:
        return (
            f"block_idx={self.block_idx}, max_loops={self.max_loops}, "
            f"current_loops={self.current_loops}, embed_dim={self.embed_dim}, gate={self.gate!r}, "
            f"trainable_params={self.trainable_params()}"
        )
