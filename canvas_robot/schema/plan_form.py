"""A plan as plain JSON values and back. What a plan means is in plan.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import inf

from canvas_robot.schema.attention_types import ATTENTION_TYPES
from canvas_robot.schema.layout import MAX_POSITIONS
from canvas_robot.schema.plain import MOST_INT
from canvas_robot.schema.plan import (
    EdgeBlock,
    Plan,
    PlanError,
    RegionRows,
    ResidualEdge,
    RowGroup,
)
from canvas_robot.schema.region import STREAMS


def plan_to_dict(plan: Plan) -> dict:
    """A plan as objects, lists, numbers and strings, for a file or another process."""
    return {
        "n_rows": plan.n_rows,
        "loops": plan.loops,
        "regions": [asdict(region) for region in plan.regions],
        "groups": [group._asdict() for group in plan.groups],
        "edges": [
            {**asdict(edge), "blocks": [block._asdict() for block in edge.blocks]}
            for edge in plan.edges
        ],
    }


def plan_from_dict(data: dict) -> Plan:
    """The inverse of `plan_to_dict`; raises PlanError for anything else."""
    try:
        plan = Plan(
            n_rows=data["n_rows"],
            loops=data["loops"],
            regions=tuple(
                RegionRows(**{**r, "cells": tuple(r["cells"]), "reads": tuple(r["reads"])})
                for r in data["regions"]
            ),
            groups=tuple(
                RowGroup(**{**g, "reads": _runs(g["reads"]), "weights": tuple(g["weights"])})
                for g in data["groups"]
            ),
            edges=tuple(
                ResidualEdge(
                    **{
                        **e,
                        "blocks": tuple(
                            EdgeBlock(**{**b, "reads": _runs(b["reads"])}) for b in e["blocks"]
                        ),
                    }
                )
                for e in data["edges"]
            ),
        )
        _require_whole(plan)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"plan: expected what plan_to_dict wrote, got {error!r}") from error
    return plan


def _runs(runs: list) -> tuple[tuple[int, int], ...]:
    return tuple((start, stop) for start, stop in runs)


def _require_whole(plan: Plan) -> None:
    """Regions and groups cover all rows once, in order, and read rows that there are."""
    _require(_is_int(plan.n_rows, 0, MAX_POSITIONS), f"n_rows {plan.n_rows!r}")
    _require(_is_int(plan.loops, 1, MAX_POSITIONS), f"loops {plan.loops!r}")
    names = {r.name for r in plan.regions}
    _require(len(names) == len(plan.regions), "regions of one name")
    _require_cover(plan.regions, plan.n_rows)
    _require_cover(plan.groups, plan.n_rows)
    for r in plan.regions:
        known = len(r.cells) == r.stop - r.start and names.issuperset(r.reads)
        counts = _is_int(r.period, 1, MOST_INT) and _is_int(r.loops, 1, plan.loops)
        plain = r.stream in STREAMS and isinstance(r.hold, bool)
        _require(known and counts and plain, f"region {r}")
    for g in plan.groups:
        plain = g.stream in STREAMS and _is_int(g.timestep, 0, MOST_INT)
        weighed = len(g.weights) == len(g.reads) and all(0 < w < inf for w in g.weights)
        _require_runs(g.reads, plan.n_rows)
        _require(plain and weighed and _is_int(g.loops, 1, plan.loops), f"group {g}")
    for e in plan.edges:
        known = {e.src, e.dst} <= names and e.fn in ATTENTION_TYPES
        _require(known and 0 < e.weight < inf, f"edge {e}")
        _require_runs([(b.start, b.stop) for b in e.blocks], plan.n_rows)
        for b in e.blocks:
            _require_runs(b.reads, plan.n_rows)


def _require_cover(parts: Sequence[RegionRows | RowGroup], n_rows: int) -> None:
    ends = [0, *(part.stop for part in parts)]
    starts = [part.start for part in parts]
    rising = all(
        _is_int(p.start, 0, n_rows) and _is_int(p.stop, p.start + 1, n_rows) for p in parts
    )
    _require(rising and starts == ends[:-1] and ends[-1] == n_rows, f"rows {starts}, {ends}")


def _require_runs(runs: Sequence[tuple[int, int]], n_rows: int) -> None:
    end = 0
    for start, stop in runs:
        _require(_is_int(start, end, n_rows) and _is_int(stop, start + 1, n_rows), f"runs {runs}")
        end = stop


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what[:200])
