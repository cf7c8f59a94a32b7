"""PlanRunner: runs the looped transformer blocks over the plan's rows.

Every tick recomputes all rows; keeping keys and values of regions that were not refreshed is not
done here yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.normalization import CogVideoXLayerNormZero
from torch import nn

from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.canvas.attention.softmax import GroupedSoftmax
from canvas_robot.schema import Plan, RowGroup


class PlanRunner(nn.Module):
    """Shapes: rows are (B, N, D), N the plan's rows, D the backbone's width.

    Args:
        transformer: grafted; the runner shares its modules.
        plan: says which rows read which.
        edges: what the plan's residual edges add in each block, one module per block; None where
            the plan has none.
    Raises:
        ValueError: the transformer uses rotary positions, which this runner does not apply.
    """

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        plan: Plan,
        edges: Sequence[ResidualEdges] | None = None,
    ) -> None:
        super().__init__()
        if transformer.config.use_rotary_positional_embeddings:
            raise ValueError(
                "backbone: expected sin-cos positions (CogVideoX-2B's kind), "
                "got rotary ones (5B's kind); this version does not run them"
            )
        self.transformer = transformer
        self.plan = plan
        self.softmax = GroupedSoftmax(plan.groups)
        blocks = transformer.transformer_blocks
        if len(edges or ()) != (len(blocks) if plan.edges else 0):
            raise ValueError(
                f"edges: expected one ResidualEdges for each of {len(blocks)} blocks because the "
                f"plan has {len(plan.edges)} residual edges, got {len(edges or ())}"
            )
        self.edges = nn.ModuleList(edges or [])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Input tokens to the last block's output, before the final norm."""
        embeddings = {g.timestep: self._time_embedding(g.timestep, rows) for g in self.plan.groups}
        for i, block in enumerate(self.transformer.transformer_blocks):
            edges = self.edges[i] if self.edges else None
            rows = self._looped_block(block, edges, rows, embeddings)
        return rows

    def finish(self, rows: torch.Tensor, timestep: int) -> torch.Tensor:
        """The backbone's final norms, for rows (B, n, D) of one timestep."""
        rows = self.transformer.norm_final(rows)
        return self.transformer.norm_out(rows, temb=self._time_embedding(timestep, rows))

    def _time_embedding(self, timestep: int, rows: torch.Tensor) -> torch.Tensor:
        t = torch.full((rows.shape[0],), timestep, device=rows.device)
        return self.transformer.time_embedding(self.transformer.time_proj(t).to(rows.dtype))

    def _looped_block(
        self,
        block: LoopedCogVideoXBlock,
        edges: ResidualEdges | None,
        rows: torch.Tensor,
        embeddings: dict[int, torch.Tensor],
    ) -> torch.Tensor:
        for loop in range(self.plan.loops):
            shifted = self._by_group(
                lambda g, x, loop=loop: x + _loop_embedding(block, g, loop, x), rows
            )
            new = self._block(block.original, edges, shifted, embeddings)
            rows = torch.lerp(rows, new, block.loop_gate[loop].to(rows.dtype))
        return rows

    def _block(
        self,
        block: nn.Module,
        edges: ResidualEdges | None,
        rows: torch.Tensor,
        embeddings: dict[int, torch.Tensor],
    ) -> torch.Tensor:
        """One run of a CogVideoX block: attention by group, then the feed-forward.

        Each is modulated by AdaLN. Residual edges read what attention reads and add beside it.
        """
        modulation = self._modulation(block.norm1, embeddings)
        normed = self._by_group(lambda g, x: _modulate(block.norm1.norm(x), modulation[g]), rows)
        attended = self._attention(block.attn1, normed)
        rows = rows + self._by_group(lambda g, x: x * modulation[g][2], attended)
        if edges is not None:
            rows = rows + edges(normed)
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
        heads = (attn.heads, -1)
        q, k, v = (
            project(rows).unflatten(2, heads) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        if attn.norm_q is not None:
            q, k = attn.norm_q(q), attn.norm_k(k)
        out = attn.to_out[0](self.softmax(q, k, v).flatten(2))
        return self._by_group(lambda g, x: x if g.reads else torch.zeros_like(x), out)

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
