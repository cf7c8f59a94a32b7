"""What the episodes of an environment come to: shares with Wilson intervals, steps, times."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from canvas_robot.evaluation.eval_outcome import PROTOCOLS, STAGES
from canvas_robot.evaluation.eval_session import EpisodeRow

Z = 1.959963984540054  # 95% of a normal distribution lie within so many deviations


def wilson(k: int, n: int) -> dict[str, float | int]:
    """A share with its 95% interval: rate, low, high, n, k.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22 (1927). It stays within 0 and 1 and is right for small n
    and for shares near 0 and 1, where rate ± 1.96 deviations is not.

    Raises ValueError unless 0 <= k <= n and n > 0.
    """
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"wilson: expected 0 <= k <= n and n > 0, got k = {k}, n = {n}")
    rate = k / n
    middle = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    # At the ends the formula gives exactly 0 and 1, its rounding does not.
    low = 0.0 if k == 0 else middle - half
    high = 1.0 if k == n else middle + half
    return {"rate": rate, "low": low, "high": high, "n": n, "k": k}


def shares(rows: Sequence[EpisodeRow]) -> dict[str, dict[str, float | int] | None]:
    """Success by protocol; None where the task does not define one."""
    found = {name: [getattr(row, f"success_{name}") for row in rows] for name in PROTOCOLS}
    return {
        name: None if None in values else wilson(sum(values), len(values))
        for name, values in found.items()
    }


def summarise(rows: Sequence[EpisodeRow]) -> dict:
    """Everything that reports say of an environment's episodes, as plain values.

    Raises ValueError without rows.
    """
    changes = [row.action_change for row in rows if row.action_change is not None]
    failures = Counter(row.failure for row in rows if row.failure)
    return {
        "success": shares(rows),
        "steps_to_success": spread_of(
            row.steps_to_success for row in rows if row.steps_to_success is not None
        ),
        "steps": spread_of(row.steps for row in rows),
        "action_change": {"mean": float(np.mean(changes)) if changes else None, "n": len(changes)},
        "decision_ms": spread_of(ms for row in rows for ms in row.decision_ms),
        "failures": dict(failures.most_common()),
        "stages": {
            stage: wilson(sum(row.stages.get(stage, False) for row in rows), len(rows))
            for stage in STAGES
            if any(stage in row.stages for row in rows)
        },
        "seconds": float(sum(row.seconds for row in rows)),
    }


def pairs(rows: Iterable[EpisodeRow]) -> dict | None:
    """Of scenes that were run once for each goal: in how many all goals were reached (any).

    None where no scene was run twice.
    """
    both = [
        all(row.success_any for row in group)
        for group in map(list, _by_scene(rows))
        if len(group) > 1
    ]
    return wilson(sum(both), len(both)) if both else None


def spread_of(values: Iterable[float]) -> dict[str, float | int | None]:
    """p5, p50, p95 and their number n; None where there is nothing."""
    known = list(values)
    points = np.percentile(known, (5, 50, 95)).tolist() if known else (None, None, None)
    return {**dict(zip(("p5", "p50", "p95"), points, strict=True)), "n": len(known)}


def _by_scene(rows: Iterable[EpisodeRow]) -> Iterable[Iterable[EpisodeRow]]:
    ordered = sorted(rows, key=lambda row: row.key)
    return (group for _, group in groupby(ordered, key=lambda row: (row.env, row.number)))
