"""Motion that no policy decides: to a declared pose, or as somebody's hand says. No ROS.

Both start from rest at the measured pose and stay within the limits of motion. Times are seconds on
the caller's steady clock.
"""

from __future__ import annotations

from typing import Protocol, final

import numpy as np

from canvas_robot.kinematics.limiter import MotionLimiter, MotionLimits, SetPoint
from canvas_robot.signals.pose import Pose

TELEOPERATION_TIMEOUT_S = 0.25  # without a word for so long, the hand has let go
SHARE = 0.5  # of the limits of speed and acceleration, on the way to a pose
_THERE = 1e-3  # m and rad


class Guide(Protocol):
    """Set-points until it has come to its end."""

    gripper: float

    def at(self, now_s: float) -> SetPoint | None:
        """The set-point to publish now; None at the end, where the last one is at rest."""
        ...

    @property
    def is_still(self) -> bool:
        """Whether the last set-point was at rest."""
        ...

    def brake(self, now_s: float) -> SetPoint | None:
        """The set-point to publish now, going over to rest; None where the last one was at rest."""
        ...


@final
class GoTo:
    """Straight to a pose, in coordinates, at SHARE of the limits.

    Args:
        limits: of the motion.
        measured: where the arm is.
        target: (6,) x, y, z, roll, pitch, yaw as of a binding's `home`.
        gripper: kept on the way.
        now_s: the present moment; ahead_s: set-points are for this much later.
    """

    def __init__(
        self,
        limits: MotionLimits,
        measured: Pose,
        target: np.ndarray,
        gripper: float,
        now_s: float,
        ahead_s: float,
    ) -> None:
        slow = MotionLimits(
            SHARE * limits.speed, SHARE * limits.acceleration, limits.low, limits.high
        )
        self._stepper = _Stepper(slow, measured, now_s, ahead_s)
        self._target, self.gripper = np.asarray(target, np.float64), gripper

    def at(self, now_s: float) -> SetPoint | None:
        there = np.abs(self._stepper.position - self._target).max() < _THERE
        if there and self._stepper.is_still:
            return None
        return self._stepper.advance(self._target, now_s)

    @property
    def is_still(self) -> bool:
        return self._stepper.is_still

    def brake(self, now_s: float) -> SetPoint | None:
        return self._stepper.brake(now_s)


@final
class Teleoperation:
    """At the speeds that were said last, braking once nobody says any.

    Args:
        limits: of the motion; speeds beyond them are cut.
        measured: where the arm is.
        gripper: until another is said.
        now_s: the present moment; ahead_s: set-points are for this much later.
    """

    def __init__(
        self, limits: MotionLimits, measured: Pose, gripper: float, now_s: float, ahead_s: float
    ) -> None:
        self._limits, self.gripper = limits, gripper
        self._stepper = _Stepper(limits, measured, now_s, ahead_s)
        self._speed, self._said_s = np.zeros(6), now_s

    def say(self, speed: np.ndarray, now_s: float) -> None:
        """Speeds (6,) from now on: m/s of x, y, z, rad/s of roll, pitch, yaw.

        Raises ValueError for speeds that are not finite; what was said before stays.
        """
        if not np.isfinite(speed).all():
            raise ValueError(f"speed: expected finite numbers, got {np.asarray(speed).tolist()}")
        self._speed = np.clip(speed, -self._limits.speed, self._limits.speed)
        self._said_s = now_s

    def at(self, now_s: float) -> SetPoint | None:
        quiet = now_s - self._said_s > TELEOPERATION_TIMEOUT_S
        if quiet and self._stepper.is_still:
            return None
        return self._stepper.drift(np.zeros(6) if quiet else self._speed, now_s)

    @property
    def is_still(self) -> bool:
        return self._stepper.is_still

    def brake(self, now_s: float) -> SetPoint | None:
        return self._stepper.brake(now_s)


class _Stepper:
    """A MotionLimiter on a clock."""

    def __init__(self, limits: MotionLimits, measured: Pose, now_s: float, ahead_s: float) -> None:
        self._limiter = MotionLimiter(limits)
        self._limiter.reset(measured)
        self._period_s, self._reached_s = ahead_s, now_s

    @property
    def position(self) -> np.ndarray:
        return self._limiter.position

    @property
    def is_still(self) -> bool:
        return self._limiter.is_still

    def advance(self, wanted: np.ndarray, now_s: float) -> SetPoint:
        return self._limiter.advance(wanted, self._seconds(now_s))

    def drift(self, speed: np.ndarray, now_s: float) -> SetPoint:
        return self._limiter.drift(speed, self._seconds(now_s))

    def brake(self, now_s: float) -> SetPoint | None:
        return None if self.is_still else self._limiter.brake(self._seconds(now_s))

    def _seconds(self, now_s: float) -> float:
        time_s = max(now_s + self._period_s, self._reached_s)
        seconds = min(time_s - self._reached_s, 2 * self._period_s)  # a late one is no jump
        self._reached_s = time_s
        return seconds
