"""CommandStream: set-points at any rate, between commands that come now and then. No ROS."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from canvas_robot.kinematics.limiter import MotionLimiter, MotionLimits, SetPoint
from canvas_robot.kinematics.rule import Command
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
        self._limiter = MotionLimiter(limits)
        self._moving_s, self._ahead_s = moving_s, ahead_s
        self._reached_s: float | None = None  # the time that the last set-point is for

    def start(self, measured: Pose, now_s: float) -> None:
        """From rest at a measured pose."""
        self._limiter.reset(measured)
        self._from = self._to = coordinates_from_pose(measured)
        self._since_s = self._reached_s = now_s

    def follow(self, command: Command, now_s: float) -> None:
        """From now on towards a command's target."""
        self._require_start()
        self._from = self._wanted(now_s)
        self._to, self._since_s = _nearest(coordinates_from_pose(command.target), self._from), now_s

    def at(self, now_s: float) -> SetPoint:
        """The set-point to publish now.

        Time that goes back stands still. After a pause the motion goes on from where it was, as if
        no more than two periods had passed: a late set-point is no jump.
        """
        self._require_start()
        seconds = self._passed_s(now_s)
        return self._limiter.advance(self._wanted(self._reached_s), seconds)

    @property
    def is_still(self) -> bool:
        """Whether the last set-point was at rest."""
        return self._limiter.is_still

    def brake(self, now_s: float) -> SetPoint | None:
        """The set-point to publish now, going over to rest; None where the last one was at rest.

        No command is followed any more; the next motion begins with `start`.
        """
        self._require_start()
        return None if self.is_still else self._limiter.brake(self._passed_s(now_s))

    def _passed_s(self, now_s: float) -> float:
        """Seconds from the last set-point to the one to publish now."""
        time_s = max(now_s + self._ahead_s, self._reached_s)
        seconds = min(time_s - self._reached_s, 2 * self._ahead_s)
        self._reached_s = time_s
        return seconds

    def _wanted(self, time_s: float) -> np.ndarray:
        fraction = min(max((time_s - self._since_s) / self._moving_s, 0.0), 1.0)
        return self._from + fraction * (self._to - self._from)

    def _require_start(self) -> None:
        if self._reached_s is None:
            raise RuntimeError("CommandStream: expected start() before follow() or at()")


def _nearest(coordinates: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The same pose in coordinates whose angles are within half a turn of others."""
    nearest = coordinates.copy()
    nearest[3:] -= 2 * np.pi * np.round((coordinates[3:] - to[3:]) / (2 * np.pi))
    return nearest
