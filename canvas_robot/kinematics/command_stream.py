"""CommandStream: set-points at any rate, between commands that come now and then. No ROS."""

from __future__ import annotations

import math
from typing import final

from canvas_robot.kinematics.limiter import MotionLimits, SetPoint
from canvas_robot.kinematics.rule import Command
from canvas_robot.kinematics.stepper import Stepper
from canvas_robot.signals.pose import Pose, coordinates_from_pose


@final
class CommandStream:
    """Leads the end effector from where it is to each command in turn, within limits of motion.

    A command at time t moves the wanted place, in a straight line of coordinates, from where it is
    at t to the command's over `moving_s`; the set-points follow it as fast as the limits allow.
    Times are seconds on the caller's steady clock.

    Args:
        limits: of the set-points.
        moving_s: how long a command moves the wanted place.
        ahead_s: set-points are for this much later than they are asked for: when they are obeyed.
    """

    def __init__(self, limits: MotionLimits, moving_s: float, ahead_s: float) -> None:
        for name, value in (("moving_s", moving_s), ("ahead_s", ahead_s)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected a positive number of seconds, got {value}")
        self._limits, self._moving_s, self._ahead_s = limits, moving_s, ahead_s
        self._stepper: Stepper | None = None

    def start(self, measured: Pose, now_s: float) -> None:
        """From rest at a measured pose."""
        self._stepper = Stepper(self._limits, measured, now_s, self._ahead_s)
        self._from = self._to = coordinates_from_pose(measured).tolist()
        self._since_s = now_s

    def follow(self, command: Command, now_s: float) -> None:
        """From now on towards a command's target."""
        self._require_start()
        self._from = self._wanted(now_s)
        to = coordinates_from_pose(command.target).tolist()
        self._to, self._since_s = _nearest(to, self._from), now_s

    def at(self, now_s: float) -> SetPoint:
        """The set-point to publish now; time that goes back or pauses is no jump, see `Stepper`."""
        self._require_start()
        return self._stepper.advance(self._wanted(self._stepper.due_s(now_s)), now_s)

    @property
    def is_still(self) -> bool:
        """Whether the last set-point was at rest."""
        return self._stepper is None or self._stepper.is_still

    def brake(self, now_s: float) -> SetPoint | None:
        """The set-point to publish now, going over to rest; None where the last one was at rest.

        No command is followed any more; the next motion begins with `start`.
        """
        self._require_start()
        return self._stepper.brake(now_s)

    def _wanted(self, time_s: float) -> list[float]:
        fraction = min(max((time_s - self._since_s) / self._moving_s, 0.0), 1.0)
        return [
            start + fraction * (end - start)
            for start, end in zip(self._from, self._to, strict=True)
        ]

    def _require_start(self) -> None:
        if self._stepper is None:
            raise RuntimeError("CommandStream: expected start() before follow() or at()")


def _nearest(coordinates: list[float], to: list[float]) -> list[float]:
    """The same pose in coordinates whose angles are within half a turn of others."""
    angles = zip(coordinates[3:], to[3:], strict=True)
    nearest = [angle - math.tau * round((angle - other) / math.tau) for angle, other in angles]
    return [*coordinates[:3], *nearest]
