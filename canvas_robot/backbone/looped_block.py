"""LoopedCogVideoXBlock: a CogVideoX block that runs several times before the next one.

What it computes in a loop, and its gates, are described in loops.py; other models' blocks are in
looped_wrapper.py.
"""

from __future__ import annotations

from functools import partial

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn

from canvas_robot.backbone import loops


class LoopedCogVideoXBlock(nn.Module):
    """A CogVideoX block with loop parameters for both of its streams.

    Args:
        original: the block; it is kept, not copied.
        block_idx: index in the transformer, for messages.
        max_loops: largest number of runs.
        inner_dim: token width.
        gate: "identity" or "sigmoid", see loops.py.
        use_gradient_checkpointing: with more than one loop, keep only each loop's input for the
            backward pass and recompute the rest.
    Raises:
        ValueError: a count below 1 or an unknown gate.

    `loop_emb` (video) and `loop_emb_enc` (text) are (max_loops, inner_dim), `loop_gate` is
    (max_loops, 1), all float32 and cast at use.
    """

    def __init__(
        self,
        original: CogVideoXBlock,
        block_idx: int,
        max_loops: int,
        inner_dim: int,
        gate: str = "identity",
        use_gradient_checkpointing: bool = True,
    ) -> None:
        super().__init__()
        self.original = original
        self.block_idx = block_idx
        self.max_loops = loops.require_count("max_loops", max_loops)
        self.inner_dim = loops.require_count("inner_dim", inner_dim)
        self.gate = loops.require_gate(gate)
        self.use_gradient_checkpointing = use_gradient_checkpointing
        self.current_loops = 1
        self.training = original.training
        self.loop_parameter_names = (
            "loop_emb",
            "loop_emb_enc",
            "loop_gate",
        )
        device = loops.device_of(original)
        self.loop_emb = loops.initial_embeddings(gate, max_loops, inner_dim, device)
        self.loop_emb_enc = loops.initial_embeddings(gate, max_loops, inner_dim, device)
        self.loop_gate = loops.initial_gates(gate, max_loops, 0.0, device)

    def set_loops(self, n: int) -> None:
        """Sets the number of runs, at most max_loops. Raises ValueError when n < 1."""
        self.current_loops = min(loops.require_count("loops", n), self.max_loops)

    def trainable_params(self) -> int:
        """Number of loop parameters, the wrapped block's excluded."""
        return self.loop_emb.numel() + self.loop_emb_enc.numel() + self.loop_gate.numel()

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_kwargs: dict | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The block's own call, `current_loops` times.

        (B, N_video, D) and (B, N_text, D) in and out.
        """
        run = loops.runner(self.use_gradient_checkpointing, self.current_loops)
        conditions = (temb, image_rotary_emb, attention_kwargs)
        streams = (hidden_states, encoder_hidden_states)
        for loop in range(self.current_loops):
            streams = run(partial(self._loop, loop, conditions), *streams)
        return streams

    def _loop(
        self, loop: int, conditions: tuple, video: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        new_video, new_text = self.original(
            video + self.loop_emb[loop].to(video.dtype),
            text + self.loop_emb_enc[loop].to(text.dtype),
            *conditions,
        )
        g = self.loop_gate[loop]
        return loops.mix(self.gate, g, video, new_video), loops.mix(self.gate, g, text, new_text)

    def extra_repr(self) -> str:
        return (
            f"block_idx={self.block_idx}, max_loops={self.max_loops}, "
            f"current_loops={self.current_loops}, inner_dim={self.inner_dim}, gate={self.gate!r}, "
            f"trainable_params={self.trainable_params()}"
        )
