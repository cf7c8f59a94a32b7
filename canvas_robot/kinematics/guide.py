"""Motion that no policy decides: to a declared pose, or as somebody's hand says. No ROS.

Both start from rest at the measured pose and stay within the limits of motion. Times are seconds on
the caller's steady clock.
"""

from __future__ import annotations

from typing import Protocol, final

import numpy as np

from canvas_robot.kinematics.limiter import UNLIMITED, MotionLimits, SetPoint
from canvas_robot.kinematics.stepper import Stepper
from canvas_robot.signals.pose import Pose, rpy_rates

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
    """Straight to a pose, in coordinates, at SHARE of the limits; or as near as these allow.

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
        self._stepper = Stepper(slow, measured, now_s, ahead_s)
        self._target, self.gripper = np.asarray(target, np.float64), gripper

    def at(self, now_s: float) -> SetPoint | None:
        nearest = self._stepper.nearest(self._target)
        there = np.abs(self._stepper.position - nearest).max() < _THERE
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
        limits: of the motion; speeds beyond them are cut, of a turn without changing its axis.
        measured: where the arm is.
        gripper: until another is said.
        now_s: the present moment; ahead_s: set-points are for this much later.
    """

    def __init__(
        self, limits: MotionLimits, measured: Pose, gripper: float, now_s: float, ahead_s: float
    ) -> None:
        self._limits, self.gripper = limits, gripper
        self._stepper = Stepper(limits, measured, now_s, ahead_s)
        self._speed, self._said_s = np.zeros(6), now_s

    def say(self, speed: np.ndarray, now_s: float) -> None:
        """Speeds (6,) from now on: m/s along and rad/s about the base's axes.

        Raises ValueError for speeds that are not finite; what was said before stays.
        """
        if not np.isfinite(speed).all():
            raise ValueError(f"speed: expected finite numbers, got {np.asarray(speed).tolist()}")
        self._speed = np.clip(speed, -UNLIMITED, UNLIMITED)
        self._said_s = now_s

    def at(self, now_s: float) -> SetPoint | None:
        quiet = now_s - self._said_s > TELEOPERATION_TIMEOUT_S
        if quiet and self._stepper.is_still:
            return None
        return self._stepper.drift(np.zeros(6) if quiet else self._rates(), now_s)

    @property
    def is_still(self) -> bool:
        return self._stepper.is_still

    def brake(self, now_s: float) -> SetPoint | None:
        return self._stepper.brake(now_s)

    def _rates(self) -> np.ndarray:
        """What was said, as speeds (6,) of the coordinates."""
        rates = rpy_rates(self._stepper.position[3:], self._speed[3:])
        rates /= max(1.0, (np.abs(rates) / self._limits.speed[3:]).max())
        return np.concatenate([self._speed[:3], rates])
