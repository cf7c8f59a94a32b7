"""CompiledPass: a pass of the schedule as index tensors, ready to run. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.canvas.attention.softmax import GroupedSoftmax
from canvas_robot.canvas.static import StaticModule
from canvas_robot.schema import LoopPass, Pass, Plan, pass_over
from canvas_robot.schema.plan import rows_in


class CompiledPass(StaticModule):
    """A pass over some regions: what each loop computes, as modules whose indices move with it.

    Attributes:
        rows: (n,) rows of the full buffer that the pass computes, in order.
        loops: one CompiledLoop for each loop; loops that compute the same share one.
    """

    def __init__(self, plan: Plan, regions: Iterable[str]) -> None:
        super().__init__()
        declared = pass_over(plan, regions)
        self.keep_static(rows=_numbers(declared.rows))
        made: dict[int, CompiledLoop] = {}
        for loop, declared_loop in enumerate(declared.loops):
            ending = loop + 1 < plan.loops and any(
                r.loops == loop + 1 for r in plan.regions if r.name in declared_loop.sources
            )
            if id(declared_loop) not in made or ending:
                made[id(declared_loop)] = CompiledLoop(plan, declared, declared_loop, loop)
        self.loops = nn.ModuleList(made[id(declared_loop)] for declared_loop in declared.loops)


class CompiledLoop(StaticModule):
    """What one loop of any block computes: `n` rows of the pass, the ones not past their count.

    Attributes:
        rows: (n,) rows of the full buffer, in order.
        complete: whether these are all rows of the plan.
        ends: those of the loop's rows whose last loop this is; None where there are none.
        softmax: takes q of the loop's rows and k, v of the full buffer.
        modulations: runs of the loop's rows of equal stream and timestep; sizes: rows in each.
        edges: numbers of the plan's residual edges that run.
        ranks: (N,) where each of the plan's rows lies among the loop's, where edges run.
    """

    def __init__(self, plan: Plan, whole: Pass, declared: LoopPass, loop: int) -> None:
        super().__init__()
        rows, all_rows = _numbers(declared.rows), _numbers(whole.rows)
        self.modulations = declared.modulations
        self.sizes = tuple(run.stop - run.start for run in declared.modulations)
        self.edges = tuple(i for i, e in enumerate(plan.edges) if e.src in declared.sources)
        self.complete = len(rows) == plan.n_rows
        self.span = _span(declared.rows)
        self.softmax = GroupedSoftmax(declared.groups)
        own = None if len(rows) == len(all_rows) else torch.isin(all_rows, rows).nonzero()[:, 0]
        last = rows_in(
            (r.start, r.stop)
            for r in plan.regions
            if r.name in declared.sources and r.loops == loop + 1 < plan.loops
        )
        ends = torch.isin(rows, torch.tensor(last)).nonzero()[:, 0] if last else None
        silent = [not g.reads for g in declared.groups for _ in range(g.start, g.stop)]
        speaks = ~torch.tensor(silent)[:, None] if any(silent) else None
        ranks = None
        if self.edges:
            ranks = torch.zeros(plan.n_rows, dtype=torch.long)
            ranks[rows] = torch.arange(len(rows))
        # own: the loop's places in the pass, None for all of them
        self.keep_static(rows=rows, own=own, ends=ends, speaks=speaks, ranks=ranks)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The loop's rows of the pass's rows (B, n, D)."""
        return rows if self.own is None else rows.index_select(1, self.own)

    def put(self, rows: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """The pass's rows with the loop's rows replaced: undoes `take`."""
        return new if self.own is None else rows.index_copy(1, self.own, new)

    def shifts(self, block: LoopedCogVideoXBlock, loop: int) -> tuple[torch.Tensor, ...]:
        """The loop embedding (D,) of each run's stream."""
        embeddings = {"video": block.loop_emb[loop], "text": block.loop_emb_enc[loop]}
        return tuple(embeddings[run.stream] for run in self.modulations)


def _numbers(runs: tuple[tuple[int, int], ...]) -> torch.Tensor:
    return torch.tensor(rows_in(runs))


def _span(runs: tuple[tuple[int, int], ...]) -> slice | None:
    return slice(*runs[0]) if len(runs) == 1 else None
