"""A plan as plain JSON values and back. What a plan means is in plan.py."""

from __future__ import annotations

from dataclasses import asdict

from canvas_robot.schema.plan import (
    EdgeBlock,
    Plan,
    PlanError,
    RegionRows,
    ResidualEdge,
    RowGroup,
)


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
        return Plan(
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
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"plan: expected what plan_to_dict wrote, got {error!r}") from error


def _runs(runs: list) -> tuple[tuple[int, int], ...]:
    return tuple((start, stop) for start, stop in runs)
