"""Stepper: a MotionLimiter on a clock. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from canvas_robot.kinematics.limiter import MotionLimiter, MotionLimits, SetPoint
from canvas_robot.signals.pose import Pose


@final
class Stepper:
    """Set-points from rest at a measured pose, each for `ahead_s` later than it is asked for.

    Times are seconds on the caller's steady clock. Time that goes back stands still. After a pause
    the motion goes on as if no more than two periods had passed: a late set-point is no jump.
    """

    def __init__(self, limits: MotionLimits, measured: Pose, now_s: float, ahead_s: float) -> None:
        self._limiter = MotionLimiter(limits)
        self._limiter.reset(measured)
        self._ahead_s, self._reached_s = ahead_s, now_s

    @property
    def position(self) -> np.ndarray:
        """Coordinates (6,) of the last set-point."""
        return self._limiter.position

    @property
    def is_still(self) -> bool:
        """Whether the last set-point was at rest."""
        return self._limiter.is_still

    def due_s(self, now_s: float) -> float:
        """The time that a set-point is for, if it is asked for now."""
        return max(now_s + self._ahead_s, self._reached_s)

    def nearest(self, target: Sequence[float]) -> list[float]:
        """As `MotionLimiter.nearest`."""
        return self._limiter.nearest(target)

    def advance(self, wanted: Sequence[float], now_s: float) -> SetPoint:
        """The set-point to publish now, on the way to coordinates (6,)."""
        return self._limiter.advance(wanted, self._passed_s(now_s))

    def drift(self, speed: np.ndarray, now_s: float) -> SetPoint:
        """The set-point to publish now, going over to speeds (6,) of the coordinates."""
        return self._limiter.drift(speed, self._passed_s(now_s))

    def brake(self, now_s: float) -> SetPoint | None:
        """The set-point to publish now, going over to rest; None where the last one was at rest."""
        return None if self.is_still else self._limiter.brake(self._passed_s(now_s))

    def _passed_s(self, now_s: float) -> float:
        """Seconds from the last set-point to the one to publish now."""
        time_s = self.due_s(now_s)
        seconds = min(time_s - self._reached_s, 2 * self._ahead_s)
        self._reached_s = time_s
        return seconds
