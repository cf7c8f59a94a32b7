"""PlanRunner: runs the looped transformer blocks over the plan's rows.

One mask-free attention per group. Every tick recomputes all rows; keeping keys and values of
regions that were not refreshed is not done here yet.
"""

from __future__ import annotations

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.normalization import CogVideoXLayerNormZero
from torch import nn
from torch.nn import functional as F

from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.schema import Plan, RowGroup


class PlanRunner(nn.Module):
    """Shapes: rows are (B, N, D), N the plan's rows, D the backbone's width.

    Args:
        transformer: grafted; the runner shares its modules.
        plan: says which rows read which.
    Raises:
        ValueError: the transformer uses rotary positions, which this runner does not apply.
    """

    def __init__(self, transformer: CogVideoXTransformer3DModel, plan: Plan) -> None:
        super().__init__()
        if transformer.config.use_rotary_positional_embeddings:
            raise ValueError(
                "backbone: expected sin-cos positions (CogVideoX-2B's kind), "
                "got rotary ones (5B's kind); this version does not run them"
            )
        self.transformer = transformer
        self.plan = plan

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Input tokens to the last block's output, before the final norm."""
        embeddings = {g.timestep: self._time_embedding(g.timestep, rows) for g in self.plan.groups}
        for block in self.transformer.transformer_blocks:
            rows = self._looped_block(block, rows, embeddings)
        return rows

    def finish(self, rows: torch.Tensor, timestep: int) -> torch.Tensor:
        """The backbone's final norms, for rows (B, n, D) of one timestep."""
        rows = self.transformer.norm_final(rows)
        return self.transformer.norm_out(rows, temb=self._time_embedding(timestep, rows))

    def _time_embedding(self, timestep: int, rows: torch.Tensor) -> torch.Tensor:
        t = torch.full((rows.shape[0],), timestep, device=rows.device)
        return self.transformer.time_embedding(self.transformer.time_proj(t).to(rows.dtype))

    def _looped_block(
        self, block: LoopedCogVideoXBlock, rows: torch.Tensor, embeddings: dict[int, torch.Tensor]
    ) -> torch.Tensor:
        for loop in range(self.plan.loops):
            shifted = self._by_group(
                lambda g, x, loop=loop: x + _loop_embedding(block, g, loop, x), rows
            )
            new = self._block(block.original, shifted, embeddings)
            rows = torch.lerp(rows, new, block.loop_gate[loop].to(rows.dtype))
        return rows

    def _block(
        self, block: nn.Module, rows: torch.Tensor, embeddings: dict[int, torch.Tensor]
    ) -> torch.Tensor:
        """One run of a CogVideoX block: attention by group, then the feed-forward.

        Each is modulated by AdaLN.
        """
        modulation = self._modulation(block.norm1, embeddings)
        normed = self._by_group(lambda g, x: _modulate(block.norm1.norm(x), modulation[g]), rows)
        attended = self._attention(block.attn1, normed)
        rows = rows + self._by_group(lambda g, x: x * modulation[g][2], attended)
        modulation = self._modulation(block.norm2, embeddings)
        normed = self._by_group(lambda g, x: _modulate(block.norm2.norm(x), modulation[g]), rows)
        return rows + self._by_group(lambda g, x: x * modulation[g][2], block.ff(normed))

    def _modulation(
        self, norm: CogVideoXLayerNormZero, embeddings: dict[int, torch.Tensor]
    ) -> dict[RowGroup, tuple[torch.Tensor, ...]]:
        """(shift, scale, gate), each (B, 1, D), by group.

        The first three chunks are the video stream's.
        """
        chunks = {
            timestep: norm.linear(norm.silu(embedding))[:, None].chunk(6, dim=2)
            for timestep, embedding in embeddings.items()
        }
        return {
            g: chunks[g.timestep][3:] if g.stream == "text" else chunks[g.timestep][:3]
            for g in self.plan.groups
        }

    def _attention(self, attn: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            _heads(project(rows), attn.heads) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        if attn.norm_q is not None:
            q, k = attn.norm_q(q), attn.norm_k(k)
        out = torch.cat([_attend(q, k, v, group) for group in self.plan.groups], dim=2)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))

    def _by_group(self, function, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([function(g, rows[:, g.start : g.stop]) for g in self.plan.groups], dim=1)


def _loop_embedding(
    block: LoopedCogVideoXBlock, group: RowGroup, loop: int, rows: torch.Tensor
) -> torch.Tensor:
    embedding = block.loop_emb_enc if group.stream == "text" else block.loop_emb
    return embedding[loop].to(rows.dtype)


def _modulate(normed: torch.Tensor, modulation: tuple[torch.Tensor, ...]) -> torch.Tensor:
    shift, scale, _ = modulation
    return normed * (1 + scale) + shift


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, D) to (B, heads, N, D / heads)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, group: RowGroup) -> torch.Tensor:
    """Attention of the group's queries over the rows it reads; zero where it reads none."""
    q = q[:, :, group.start : group.stop]
    if not group.reads:
        return torch.zeros_like(q)
    if len(group.reads) == 1:
        (start, stop), *_ = group.reads
        return F.scaled_dot_product_attention(q, k[:, :, start:stop], v[:, :, start:stop])
    keys = torch.cat([k[:, :, start:stop] for start, stop in group.reads], dim=2)
    values = torch.cat([v[:, :, start:stop] for start, stop in group.reads], dim=2)
    return F.scaled_dot_product_attention(q, keys, values)
