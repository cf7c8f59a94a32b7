"""MotionLimiter: set-points that follow a target within limits of speed, acceleration and place.

Plain Python. Poses are six coordinates here: x, y, z (m) and Bridge's roll, pitch, yaw (rad).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from canvas_robot.kinematics.rule import limits_of
from canvas_robot.signals.binding import BindingError, Robot
from canvas_robot.signals.pose import (
    Pose,
    angular_velocity,
    coordinates_from_pose,
    pose_from_coordinates,
    rotation_vector,
    turn_between,
)

CATCH_UP = 2.0  # 1/s: an arm that obeys speeds makes good what it is away within half a second
UNLIMITED = 1e3  # m/s, rad/s and their like per second: faster than any arm
_STILL = 1e-4  # m/s and rad/s


@dataclass(frozen=True, eq=False)
class MotionLimits:
    """What set-points may do, by coordinate, each (6,): x, y, z, roll, pitch, yaw.

    speed: m/s and rad/s; acceleration: m/s^2 and rad/s^2. low, high: where they may be, m and rad.
    """

    speed: np.ndarray
    acceleration: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        for name in ("speed", "acceleration", "low", "high"):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (6,) or not np.isfinite(array).all():
                raise ValueError(
                    f"MotionLimits.{name}: expected 6 finite numbers, got {array.tolist()}"
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        for name in ("speed", "acceleration"):
            if (getattr(self, name) <= 0).any():
                raise ValueError(
                    f"MotionLimits.{name}: expected positive numbers, "
                    f"got {getattr(self, name).tolist()}"
                )
        if (self.low >= self.high).any():
            raise ValueError(
                f"MotionLimits.low: expected less than high {self.high.tolist()} in every "
                f"coordinate, got {self.low.tolist()}"
            )


def motion_limits_of(robot: Robot, unsafe: bool = False) -> MotionLimits:
    """The limits that a binding declares for its arm's motion.

    Raises BindingError where it declares none, unless that is asked for: `unsafe`.
    """
    missing = [n for n in ("speed_limits", "acceleration_limits") if getattr(robot, n) is None]
    if missing and not unsafe:
        raise BindingError(
            f"robot: expected {' and '.join(missing)}, (6,) each: x, y, z in m/s (m/s^2), then "
            f"rad/s (rad/s^2); without them the arm is not moved. Declare them in the binding, or "
            f"set the parameter unsafe"
        )
    place = limits_of(robot)
    return MotionLimits(
        robot.speed_limits or (UNLIMITED,) * 6,
        robot.acceleration_limits or (UNLIMITED,) * 6,
        np.concatenate([place.box_low, place.rpy_low]),
        np.concatenate([place.box_high, place.rpy_high]),
    )


@dataclass(frozen=True, eq=False)
class SetPoint:
    """Where the end effector is to be, and how it moves there.

    pose: of `ee_gripper_link` in `base_link`. linear: (3,) m/s; angular: (3,) rad/s about the
    base's axes.
    """

    pose: Pose
    linear: np.ndarray
    angular: np.ndarray


def catching_up(set_point: SetPoint, measured: Pose, limits: MotionLimits) -> SetPoint:
    """The set-point with speeds that also bring an arm at `measured` to it, within `limits.speed`.

    An arm that integrates speeds drifts away from where it is led without that.
    """
    turn = rotation_vector(turn_between(measured.rotation, set_point.pose.rotation))
    away = (*(set_point.pose.position - measured.position).tolist(), *turn.tolist())
    speeds = (*set_point.linear.tolist(), *set_point.angular.tolist())
    caught_up = [
        min(max(speed + CATCH_UP * part, -most), most)
        for speed, part, most in zip(speeds, away, limits.speed.tolist(), strict=True)
    ]
    return SetPoint(set_point.pose, np.array(caught_up[:3]), np.array(caught_up[3:]))


@final
class MotionLimiter:
    """Goes after a target as fast as its limits allow, and can always stop in time.

    Of each coordinate, position and speed follow the time-optimal course to rest at the target,
    computed anew at every call: never beyond a limit of speed, acceleration or place, whatever the
    targets do. Started outside its place, it moves in. Jerk is not bounded.
    """

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        # A coordinate that may go all the way round has no ends: it takes the short way.
        angular = np.arange(6) >= 3
        self._round = angular & (limits.low <= -np.pi) & (limits.high >= np.pi)
        places, paces = (self._round, limits.low, limits.high), (limits.speed, limits.acceleration)
        self._places = list(zip(*(values.tolist() for values in places), strict=True))
        self._paces = list(zip(*(values.tolist() for values in paces), strict=True))
        self._position, self._velocity = [0.0] * 6, [0.0] * 6

    @property
    def position(self) -> np.ndarray:
        """Coordinates (6,) of the last set-point."""
        return np.array(self._position)

    @property
    def velocity(self) -> np.ndarray:
        """Their speeds (6,)."""
        return np.array(self._velocity)

    def reset(self, pose: Pose) -> None:
        """At rest at a pose; raises ValueError for one that is not finite."""
        if not pose.is_finite:
            raise ValueError(f"pose: expected finite numbers, got {pose}")
        self._position, self._velocity = coordinates_from_pose(pose).tolist(), [0.0] * 6

    @property
    def is_still(self) -> bool:
        """Whether the last set-point was at rest."""
        return all(abs(speed) < _STILL for speed in self._velocity)

    def nearest(self, target: Sequence[float]) -> list[float]:
        """Where coordinates (6,) lead from here: within the ends, and round where there are none.

        Raises ValueError for a target that is not finite.
        """
        wanted = [float(value) for value in target]
        if not all(map(math.isfinite, wanted)):
            raise ValueError(f"target: expected finite numbers, got {wanted}")
        # One by one: with six numbers numpy takes longer to begin than to compute.
        return [
            to - math.tau * ((to - position + math.pi) // math.tau)
            if is_round
            else min(max(to, low), high)
            for position, to, (is_round, low, high) in zip(
                self._position, wanted, self._places, strict=True
            )
        ]

    def advance(self, target: Sequence[float], seconds: float) -> SetPoint:
        """The set-point `seconds` later, on the way to the nearest of coordinates (6,).

        Raises ValueError for a target that is not finite; the state stays as it was.
        """
        states = zip(
            self._position,
            self._velocity,
            self.nearest(target),
            self._paces,
            strict=True,
        )
        reached = [
            course_to_rest(position, velocity, to, *pace, seconds)
            for position, velocity, to, pace in states
        ]
        self._position, self._velocity = map(list, zip(*reached, strict=True))
        return self._set_point()

    def drift(self, speed: np.ndarray, seconds: float) -> SetPoint:
        """The set-point `seconds` later, going over to speeds (6,) and stopping where place ends.

        Raises ValueError for speeds that are not finite; the state stays as it was.
        """
        if not np.isfinite(speed).all():
            raise ValueError(f"speed: expected finite numbers, got {np.asarray(speed).tolist()}")
        limits, position, velocity = self.limits, self.position, self.velocity
        change = limits.acceleration * seconds
        wanted = np.clip(speed, -limits.speed, limits.speed)
        wanted = np.clip(wanted, velocity - change, velocity + change)
        up = _stoppable(limits.high - position, velocity, limits.acceleration, seconds)
        down = _stoppable(position - limits.low, -velocity, limits.acceleration, seconds)
        wanted = np.where(self._round, wanted, np.clip(wanted, -down, up))
        self._position = (position + (velocity + wanted) / 2 * seconds).tolist()
        self._velocity = wanted.tolist()
        return self._set_point()

    def brake(self, seconds: float) -> SetPoint:
        """The set-point `seconds` later, going over to rest along the present motion."""
        return self.drift(np.zeros(6), seconds)

    def _set_point(self) -> SetPoint:
        position, velocity = self.position, self.velocity
        return SetPoint(
            pose_from_coordinates(position),
            velocity[:3],
            angular_velocity(position[3:], velocity[3:]),
        )


def _stoppable(
    room: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, seconds: float
) -> np.ndarray:
    """The fastest speed after `seconds` from which it can still stop within `room`.

    With w that speed: (velocity + w) / 2 * seconds + w^2 / 2a + w / 2 * seconds <= room, the last
    because a stop takes whole periods. At least as much as braking all the time leaves.
    """
    change = acceleration * seconds
    left = np.maximum(change**2 + acceleration * (2 * room - velocity * seconds), 0.0)
    return np.maximum(np.sqrt(left) - change, np.maximum(velocity - change, 0.0))


def course_to_rest(
    position: float,
    velocity: float,
    target: float,
    speed: float,
    acceleration: float,
    seconds: float,
) -> tuple[float, float]:
    """Position and velocity, `seconds` into the fastest course from here to rest at `target`.

    One coordinate speeds up, or brakes, to a peak, keeps it where that is `speed`, and brakes: the
    time-optimal control of a double integrator under bounds of speed and `acceleration`.
    """
    braking = velocity * abs(velocity) / (2 * acceleration)
    side = 1.0 if target - position - braking >= 0 else -1.0
    start, distance = side * velocity, side * (target - position)
    # (peak^2 - start^2) / 2a up to the peak and peak^2 / 2a after it make the distance.
    highest = math.sqrt(max(acceleration * distance + start**2 / 2, 0.0))
    peak = min(highest, speed)
    up, down = max(peak - start, 0.0) / acceleration, peak / acceleration
    cruise = (highest**2 - peak**2) / (acceleration * peak) if highest > speed else 0.0
    in_up = min(seconds, up)
    in_cruise = min(max(seconds - up, 0.0), cruise)
    in_down = min(max(seconds - up - cruise, 0.0), down)
    moved = (
        (start + acceleration * in_up / 2) * in_up
        + peak * in_cruise
        + (peak - acceleration * in_down / 2) * in_down
    )
    return position + side * moved, side * (start + acceleration * (in_up - in_down))
