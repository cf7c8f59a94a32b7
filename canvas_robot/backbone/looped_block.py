"""Looped blocks: a CogVideoX block that runs several times before the next one.

Each loop has an embedding and a gate. Block b runs L times: h = lerp(h, block(h + e_l), g_l), for
both streams. With the identity gate, e_0 = 0 and g_0 = 1, and for l > 0 g_l = 0, so a fresh graft
equals the backbone bit for bit at any loop count.
"""

from __future__ import annotations

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn

LOOP_EMBEDDING_STD = (
    0.02  # apart at start: equal embeddings would get equal gradients and stay tied
)


class LoopedCogVideoXBlock(nn.Module):
    """A CogVideoX block and its loop parameters.

    Args:
        original: the block; it is kept, not copied.
        block_idx: index in the transformer, for messages.
        max_loops: largest number of runs.
        inner_dim: token width.
    """

    def __init__(
        self, original: CogVideoXBlock, block_idx: int, max_loops: int, inner_dim: int
    ) -> None:
        super().__init__()
        if max_loops < 1:
            raise ValueError(f"max_loops: expected an int >= 1, got {max_loops}")
        self.original = original
        self.block_idx = block_idx
        self.max_loops = max_loops
        self.current_loops = 1
        later = (
            torch.arange(max_loops).ne(0).float()[:, None]
        )  # 0 for the first loop, 1 for the others
        self.loop_emb = nn.Parameter(torch.randn(max_loops, inner_dim) * LOOP_EMBEDDING_STD * later)
        self.loop_emb_enc = nn.Parameter(
            torch.randn(max_loops, inner_dim) * LOOP_EMBEDDING_STD * later
        )
        self.loop_gate = nn.Parameter(1.0 - later)

    def set_loops(self, n: int) -> None:
        """Sets the number of runs, clamped to 1..max_loops."""
        self.current_loops = max(1, min(n, self.max_loops))

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
        video, text = hidden_states, encoder_hidden_states
        for loop in range(self.current_loops):
            new_video, new_text = self.original(
                video + self.loop_emb[loop].to(video.dtype),
                text + self.loop_emb_enc[loop].to(text.dtype),
                temb,
                image_rotary_emb,
                attention_kwargs,
            )
            gate = self.loop_gate[loop].to(video.dtype)
            video, text = torch.lerp(video, new_video, gate), torch.lerp(text, new_text, gate)
        return video, text
