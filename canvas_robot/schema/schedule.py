"""Which regions a control tick recomputes, and what one pass over some regions' rows computes.

Plain integers, as in plan.py. Keeping keys and values between ticks is `canvas_robot.policy`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from math import lcm
from typing import NamedTuple

from canvas_robot.schema.plan import Plan, PlanError, RowGroup, Run, joined, merged


class Modulation(NamedTuple):
    """Rows start..stop-1 of a loop's rows that share a stream and a diffusion timestep."""

    start: int
    stop: int
    stream: str
    timestep: int


@dataclass(frozen=True)
class LoopPass:
    """What one loop of a block computes.

    Args:
        rows: runs of the full row buffer, in order; "the loop's rows" counts through them.
        groups: `start` and `stop` count the loop's rows, `reads` are rows of the full buffer.
        modulations: runs of the loop's rows of equal stream and timestep.
        sources: src regions whose residual edges run.
    """

    rows: tuple[Run, ...]
    groups: tuple[RowGroup, ...]
    modulations: tuple[Modulation, ...]
    sources: frozenset[str]


@dataclass(frozen=True)
class Pass:
    """One run of all blocks over some regions: what each loop computes; the first has all rows."""

    regions: frozenset[str]
    loops: tuple[LoopPass, ...]

    @property
    def rows(self) -> tuple[Run, ...]:
        """Runs of the full row buffer that the pass computes."""
        return self.loops[0].rows


def dirty_regions(plan: Plan, tick: int, events: Iterable[str] = ()) -> frozenset[str]:
    """Regions that tick `tick` since the reset must compute anew.

    Those that are due, or that an event touched, and all that read one of them, directly or through
    others. A region that holds is touched by its own refreshes alone.
    """
    events = frozenset(events)
    unknown = events - {r.name for r in plan.regions}
    if unknown:
        raise PlanError(f"events: name regions {sorted(unknown)} that the plan lacks")
    return closure(plan, events.union(plan.refreshed(tick)))


def closure(plan: Plan, touched: Iterable[str]) -> frozenset[str]:
    """The touched regions and all that read one of them, through others included."""
    dirty = set(touched)
    grown = True
    while grown:
        reached = {r.name for r in plan.regions if not r.hold and not dirty.isdisjoint(r.reads)}
        grown = not reached <= dirty
        dirty |= reached
    return frozenset(dirty)


def cycle(plan: Plan) -> int:
    """Ticks after which the pattern of refreshes repeats."""
    return lcm(*(r.period for r in plan.regions))


def distinct_passes(plan: Plan, limit: int = 4096) -> tuple[frozenset[str], ...]:
    """The different sets of regions that ticks compute, most regions first.

    Looks at no more than `limit` ticks of a cycle.
    """
    seen = {dirty_regions(plan, tick) for tick in range(min(cycle(plan), limit))}
    return tuple(sorted(seen, key=lambda dirty: (-len(dirty), sorted(dirty))))


def needed_for(plan: Plan, outputs: Iterable[str]) -> frozenset[str]:
    """The outputs and all regions that they read, directly or through others."""
    reads = {r.name: r.reads for r in plan.regions}
    needed, open_ends = set(), list(outputs)
    while open_ends:
        name = open_ends.pop()
        if name not in reads:
            raise PlanError(f"outputs: name region {name!r}, which the plan lacks")
        if name not in needed:
            needed.add(name)
            open_ends += reads[name]
    return frozenset(needed)


def pass_over(plan: Plan, regions: Iterable[str]) -> Pass:
    """What computing these regions takes; regions beyond their own loop count fall out of it."""
    regions = frozenset(regions)
    chosen = [r for r in plan.regions if r.name in regions]
    if not chosen or len(chosen) != len(regions):
        raise PlanError(
            f"pass: expected at least one of {[r.name for r in plan.regions]}, "
            f"got {sorted(regions)}"
        )
    loops: list[LoopPass] = []
    for loop in range(max(r.loops for r in chosen)):
        active = frozenset(r.name for r in chosen if r.loops > loop)
        if loops and active == loops[-1].sources:
            loops.append(loops[-1])
        else:
            loops.append(_loop_pass(plan, active))
    return Pass(regions, tuple(loops))


def _loop_pass(plan: Plan, active: frozenset[str]) -> LoopPass:
    spans = [(r.start, r.stop) for r in plan.regions if r.name in active]
    groups: list[RowGroup] = []
    offset = 0
    for start, stop in spans:
        for g in plan.groups:
            low, high = max(start, g.start), min(stop, g.stop)
            if low < high:
                shift = offset - start
                groups.append(g._replace(start=low + shift, stop=high + shift))
        offset += stop - start
    return LoopPass(
        reduce(merged, [(span,) for span in spans]), joined(groups), _modulations(groups), active
    )


def _modulations(groups: list[RowGroup]) -> tuple[Modulation, ...]:
    merged: list[Modulation] = []
    for g in groups:
        if merged and merged[-1][2:] == (g.stream, g.timestep):
            merged[-1] = merged[-1]._replace(stop=g.stop)
        else:
            merged.append(Modulation(g.start, g.stop, g.stream, g.timestep))
    return tuple(merged)
