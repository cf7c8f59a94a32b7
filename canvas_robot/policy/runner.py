"""PlanRunner: runs the looped transformer blocks over the rows of a plan, all at once or some.

Which rows, and when, is the schedule's; keeping keys and values is the cache's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from canvas_robot.backbone import loops
from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.canvas.static import StaticModule
from canvas_robot.policy.cache import JointCache, Readable, RowCache
from canvas_robot.policy.elementwise import elementwise
from canvas_robot.policy.modulation import FoldedNorm, Modulator
from canvas_robot.policy.passes import CompiledLoop, CompiledPass
from canvas_robot.policy.rotary import rotary_tables, turned
from canvas_robot.schema import Plan

Norms = tuple[FoldedNorm, FoldedNorm]


class PlanRunner(StaticModule):
    """Shapes: rows are (B, n, D), n rows of a pass, D the backbone's width.

    Args:
        transformer: grafted; the runner shares its modules.
        plan: says which rows read which.
        edges: what the plan's residual edges add in each block, one module per block; None where
            the plan has none.
        positions: (N, 3), place (t, h, w) of each row, for backbones with rotary position
            embeddings (CogVideoX-5B's kind); None for the others.
        sharpening: inverse temperature of attention in each loop; None: 1 in all.
    Raises:
        ValueError: edges, positions or sharpening do not fit the plan and the backbone.
    """

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        plan: Plan,
        edges: Sequence[ResidualEdges] | None = None,
        positions: torch.Tensor | None = None,
        sharpening: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _require_fit(transformer, plan, edges or (), positions, sharpening)
        self.transformer = transformer
        self.plan = plan
        self.edges = nn.ModuleList(edges or [])
        self.sharpening = tuple(sharpening or (1.0,) * plan.loops)
        self.modulator = Modulator(transformer, plan)
        self.elementwise = elementwise()
        self.everything = CompiledPass(plan, [region.name for region in plan.regions])
        cos = sin = None
        if positions is not None:
            cos, sin = rotary_tables(plan, positions, transformer.config.attention_head_dim)
        self.keep_static(cos=cos, sin=sin)  # (N, d), float32 in any precision of the rest

    def fuse(self) -> None:
        """From now on torch.compile fuses what lies between matrix products and attention.

        The first pass of each shape compiles for seconds. Results change in the last digits.
        """
        self.elementwise = elementwise(compiled=True)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Input tokens of all rows to the last block's output, before the final norm."""
        steps = self.steps(rows, self.everything, JointCache(self.plan), self.modulator)
        (last,) = deque(steps, maxlen=1)
        return last

    def steps(
        self,
        rows: torch.Tensor,
        chosen: CompiledPass,
        cache: JointCache | RowCache,
        modulator: Modulator,
    ) -> Iterator[torch.Tensor]:
        """A pass, one loop of one block at a time: yields the pass's rows after each.

        Args:
            rows: input tokens of the pass's rows.
            chosen: which rows are computed; what they read of others comes from the cache.
            cache: takes the keys and values of the computed rows.
            modulator: the norms, kept or made from the weights.
        """
        for b, block in enumerate(self.transformer.transformer_blocks):
            run = loops.runner(block.use_gradient_checkpointing, len(chosen.loops))
            norms, left = modulator.of_block(b), None
            for loop, now in enumerate(chosen.loops):
                rows, left = run(self._loop, b, loop, now, cache, norms, rows, left)
                yield rows

    def _loop(
        self,
        b: int,
        loop: int,
        now: CompiledLoop,
        cache: JointCache | RowCache,
        norms: Norms,
        rows: torch.Tensor,
        left: Readable | None,
    ) -> tuple[torch.Tensor, Readable | None]:
        """One run of block b, mixed into the rows that it computes, and what the next one needs."""
        looped: LoopedCogVideoXBlock = self.transformer.transformer_blocks[b]
        block, (first, second) = looped.original, norms
        old = now.take(rows)
        attention, feeding = first.of(now.modulations), second.of(now.modulations)
        x, normed = self.elementwise.enter(old, now.sizes, now.shifts(looped, loop), attention)
        q, k, v = self._projected(block.attn1, loop, now, normed)
        new = Readable(k, v, normed if self.edges else None)
        readable, left = cache.exchange(b, loop, now, new, left)
        attended = block.attn1.to_out[0](now.softmax(q, readable.keys, readable.values).flatten(2))
        if now.speaks is not None:
            attended = attended * now.speaks
        extra = None
        if now.edges:
            extra = self.edges[b](readable.inputs, now.edges, now.ranks, x.shape[1])
        x, normed = self.elementwise.between(
            x, attended, extra, now.sizes, attention.gates, feeding
        )
        gate, fed = (looped.gate, looped.loop_gate[loop]), block.ff(normed)
        mixed = self.elementwise.leave(x, fed, old, now.sizes, feeding.gates, *gate)
        return now.put(rows, mixed), left

    def _projected(
        self, attn: nn.Module, loop: int, now: CompiledLoop, normed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values (B, n, heads, d) of the loop's rows, ready to meet."""
        heads = (attn.heads, -1)
        q, k, v = (to(normed).unflatten(2, heads) for to in (attn.to_q, attn.to_k, attn.to_v))
        if attn.norm_q is not None:
            q, k = attn.norm_q(q), attn.norm_k(k)
        if self.cos is not None:
            cos, sin = self.cos[now.rows], self.sin[now.rows]
            q, k = turned(q, cos, sin), turned(k, cos, sin)
        if self.sharpening[loop] != 1.0:
            q = q * self.sharpening[loop]
        return q, k, v


def _require_fit(
    transformer: CogVideoXTransformer3DModel,
    plan: Plan,
    edges: Sequence[ResidualEdges],
    positions: torch.Tensor | None,
    sharpening: Sequence[float] | None,
) -> None:
    blocks = len(transformer.transformer_blocks)
    grafted = [b for b in transformer.transformer_blocks if isinstance(b, LoopedCogVideoXBlock)]
    fewest = min((block.max_loops for block in grafted), default=0)
    if len(grafted) != blocks or plan.loops > fewest:
        raise ValueError(
            f"transformer: expected {blocks} blocks grafted with at least the plan's {plan.loops} "
            f"loops, got {len(grafted)} grafted with {fewest}; graft_looped_blocks(transformer, "
            f"max_loops={plan.loops}) does that"
        )
    if len(edges) != (blocks if plan.edges else 0):
        raise ValueError(
            f"edges: expected one ResidualEdges for each of {blocks} blocks because the "
            f"plan has {len(plan.edges)} residual edges, got {len(edges)}"
        )
    rotary = transformer.config.use_rotary_positional_embeddings
    found = None if positions is None else tuple(positions.shape)
    if found != ((plan.n_rows, 3) if rotary else None):
        raise ValueError(
            f"positions: expected {(plan.n_rows, 3) if rotary else None}, one place for each row "
            f"where the backbone has rotary position embeddings, got {found}"
        )
    if sharpening is not None and len(sharpening) != plan.loops:
        raise ValueError(
            f"sharpening: expected {plan.loops} inverse temperatures, one for each loop, "
            f"got {len(sharpening)}"
        )
