"""Held regions in training: what was computed at their last refresh is read at a later tick.

A region that holds keeps the keys and values of its own last refresh, whatever it read then. So a
training step runs twice: all as of that refresh, then the others as of now beside what was kept.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from canvas_robot.policy.cache import JointCache, Readable
from canvas_robot.policy.passes import CompiledLoop
from canvas_robot.schema import Plan
from canvas_robot.schema.plan import rows_in

Kept = dict[tuple[int, int], Readable]
"""What rows could read, by block and loop."""


class RecordingCache:
    """A joint pass whose keys and values are kept, with their gradients."""

    def __init__(self, plan: Plan) -> None:
        self._joint = JointCache(plan)
        self.kept: Kept = {}

    def exchange(
        self, b: int, loop: int, now: CompiledLoop, new: Readable, before: Readable | None
    ) -> tuple[Readable, Readable | None]:
        """As JointCache's, which is what it returns."""
        readable, left = self._joint.exchange(b, loop, now, new, before)
        self.kept[b, loop] = readable
        return readable, left


class HeldCache:
    """A pass over all rows but the held ones, which read those as they were kept.

    Args:
        plan: of the pass. held: names of its held regions.
        kept: of the pass at their last refresh.
    """

    def __init__(self, plan: Plan, held: Iterable[str], kept: Kept) -> None:
        spans = [(r.start, r.stop) for r in plan.regions if r.name in set(held)]
        self._rows = torch.tensor(rows_in(spans))
        self._kept = kept
        self._leaves = any(r.loops < plan.loops for r in plan.regions)

    def exchange(
        self, b: int, loop: int, now: CompiledLoop, new: Readable, before: Readable | None
    ) -> tuple[Readable, Readable | None]:
        """What can be read now, and what the next loop needs of it; a pure function."""
        parts = zip(new, self._kept[b, loop], before or self._kept[b, loop], strict=True)
        made = Readable(*(self._merged(now, *each) for each in parts))
        return made, made if self._leaves else None

    def _merged(
        self,
        now: CompiledLoop,
        new: torch.Tensor | None,
        kept: torch.Tensor | None,
        left: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Held rows as they were in this loop, computed rows as they are, others as they ended."""
        if new is None:
            return None
        rows = self._rows.to(new.device)
        merged = left.index_copy(1, rows, kept.index_select(1, rows))
        return merged.index_copy(1, now.rows, new)
