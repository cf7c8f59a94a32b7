"""LoopedCogVideoXBlock: a CogVideoX block that runs several times before the next one.

What it computes in a loop, and its gates, are described in loops.py; other models' blocks are in
looped_wrapper.py.
"""

from __future__ import annotations

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn
from torch.utils.checkpoint import checkpoint

from canvas_robot.backbone import loops


class LoopedCogVideoXBlock(nn.Module):
    """A CogVideoX block with loop parameters for both of its streams.

    Args:
        original: the block; it is kept, not copied.
        block_idx: index in the transformer, for messages.
        max_loops: largest number of runs.
        inner_dim: token width.
        gate: "identity" or "sigmoid", see loops.py.
        use_gradient_checkpointing: with more than one loop, keep little of each loop for the
            backward pass and compute the rest again.
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
        conditions = (temb, image_rotary_emb, attention_kwargs)
        streams = (hidden_states, encoder_hidden_states)
        again = self.use_gradient_checkpointing and self.current_loops > 1
        again = again and torch.is_grad_enabled()
        for loop in range(self.current_loops):
            if again and self._tail_is_frozen():
                front = checkpoint(self._front, loop, conditions, *streams, use_reentrant=False)
                new = self._tail(*front)
            elif again:
                new = checkpoint(self._block, loop, conditions, *streams, use_reentrant=False)
            else:
                new = self._block(loop, conditions, *streams)
            g = self.loop_gate[loop]
            mixed = (loops.mix(self.gate, g, *pair) for pair in zip(streams, new, strict=True))
            streams = tuple(mixed)
        return streams

    def _block(
        self, loop: int, conditions: tuple, video: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The block itself, on rows with the loop's embeddings."""
        return self.original(*self._shifted(loop, video, text), *conditions)

    def _shifted(
        self, loop: int, video: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            video + self.loop_emb[loop].to(video.dtype),
            text + self.loop_emb_enc[loop].to(text.dtype),
        )

    def _front(
        self, loop: int, conditions: tuple, video: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """CogVideoXBlock.forward up to the feed-forward's activation: what is computed again.

        Returns both streams, the gates of the feed-forward, and its inner rows.
        """
        block, (temb, rotary, attention_kwargs) = self.original, conditions
        video, text = self._shifted(loop, video, text)
        normed, normed_text, gate, gate_text = block.norm1(video, text, temb)
        attended, attended_text = block.attn1(
            hidden_states=normed,
            encoder_hidden_states=normed_text,
            image_rotary_emb=rotary,
            **(attention_kwargs or {}),
        )
        video, text = video + gate * attended, text + gate_text * attended_text
        normed, normed_text, gate, gate_text = block.norm2(video, text, temb)
        inner = block.ff.net[0](torch.cat([normed_text, normed], dim=1))
        return video, text, gate, gate_text, inner

    def _tail(
        self,
        video: torch.Tensor,
        text: torch.Tensor,
        gate: torch.Tensor,
        gate_text: torch.Tensor,
        inner: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The rest of CogVideoXBlock.forward. Being frozen it keeps nothing, so it runs once."""
        for layer in self.original.ff.net[1:]:
            inner = layer(inner)
        length = text.shape[1]
        return video + gate * inner[:, length:], text + gate_text * inner[:, :length]

    def _tail_is_frozen(self) -> bool:
        """Whether the block is CogVideoX's own and its last layers need no input for backward."""
        if type(self.original) is not CogVideoXBlock:
            return False
        return not any(p.requires_grad for p in self.original.ff.net[1:].parameters())

    def extra_repr(self) -> str:
        return (
            f"block_idx={self.block_idx}, max_loops={self.max_loops}, "
            f"current_loops={self.current_loops}, inner_dim={self.inner_dim}, gate={self.gate!r}, "
            f"trainable_params={self.trainable_params()}"
        )
