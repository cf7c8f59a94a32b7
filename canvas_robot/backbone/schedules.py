"""Schedules: how many loops run at a training step, how sharp attention is in a loop.

Plain numbers; nothing here computes with tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral

from canvas_robot.backbone.loops import require_count

SCHEDULES = ("linear", "exponential", "cosine")


@dataclass(frozen=True)
class CurriculumScheduler:
    """Raises the number of loops from 1 to max_loops over training, in equal phases.

    Args:
        max_loops: number of loops in the last phase, which does not end.
        total_steps: training steps.
        warmup_fraction: part of the steps, in [0, 1), that runs 1 loop before the phases begin;
            they share the rest. The first of them runs 1 loop too.
    Raises:
        ValueError: a number that is none of these.
    """

    max_loops: int = 3
    total_steps: int = 5000
    warmup_fraction: float = 0.0

    def __post_init__(self) -> None:
        require_count("max_loops", self.max_loops)
        if not _is_finite(self.total_steps) or self.total_steps <= 0:
            raise ValueError(f"total_steps: expected a number > 0, got {self.total_steps!r}")
        if not _is_finite(self.warmup_fraction) or not 0.0 <= self.warmup_fraction < 1.0:
            raise ValueError(
                f"warmup_fraction: expected a number in [0, 1), got {self.warmup_fraction!r}"
            )

    def get_loops(self, step: int) -> int:
        """Number of loops at a step, from 0. Raises ValueError for a negative step."""
        if not _is_finite(step) or step < 0:
            raise ValueError(f"step: expected a number >= 0, got {step!r}")
        warmup = self.warmup_fraction * self.total_steps
        phase = (self.total_steps - warmup) / self.max_loops
        return 1 + min(int(max(step - warmup, 0) / phase), self.max_loops - 1)

    def step(self, blocks: Iterable, step: int) -> int:
        """Sets the number of loops of all blocks that have `set_loops`, and returns it."""
        n = self.get_loops(step)
        for block in blocks:
            if hasattr(block, "set_loops"):
                block.set_loops(n)
        return n


@dataclass(frozen=True)
class SharpeningSchedule:
    """Inverse temperature beta of attention by loop, from beta_min to beta_max.

    Args:
        max_loops: number of loops; with one, it has beta_min.
        beta_min, beta_max: beta of the first and of the last loop; below each other is legal.
        schedule: "linear", "exponential" (equal ratios) or "cosine" (slow at both ends).
    Raises:
        ValueError: an unknown schedule, max_loops < 1, a beta that is negative, or is zero in an
            exponential schedule.
    """

    max_loops: int = 4
    beta_min: float = 1.0
    beta_max: float = 4.0
    schedule: str = "linear"

    def __post_init__(self) -> None:
        require_count("max_loops", self.max_loops)
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule: expected one of {SCHEDULES}, got {self.schedule!r}")
        for name, beta in (("beta_min", self.beta_min), ("beta_max", self.beta_max)):
            zero_is_wrong = self.schedule == "exponential" and beta == 0
            if not _is_finite(beta) or beta < 0 or zero_is_wrong:
                bound = "> 0" if self.schedule == "exponential" else ">= 0"
                raise ValueError(f"{name}: expected a finite number {bound}, got {beta!r}")

    def __call__(self, loop_idx: int) -> float:
        """Beta of a loop, from 0. Raises ValueError for what is no int in 0..max_loops - 1."""
        whole = isinstance(loop_idx, Integral) and not isinstance(loop_idx, bool)
        if not whole or not 0 <= loop_idx < self.max_loops:
            raise ValueError(
                f"loop_idx: expected an int from 0 to {self.max_loops - 1}, got {loop_idx!r}"
            )
        if self.max_loops == 1:
            return self.beta_min
        t = loop_idx / (self.max_loops - 1)
        if self.schedule == "exponential":
            return self.beta_min * (self.beta_max / self.beta_min) ** t
        if self.schedule == "cosine":
            return self.beta_min + 0.5 * (self.beta_max - self.beta_min) * (
                1 - math.cos(math.pi * t)
            )
        return self.beta_min + t * (self.beta_max - self.beta_min)


def _is_finite(value: object) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(value)
    except (TypeError, OverflowError):  # no number, or an int beyond float's range
        return False
