"""From an action to a command by Bridge V2's rule, and whether the arm follows. Pure functions."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from canvas_robot.signals.binding import Robot
from canvas_robot.signals.pose import (
    Pose,
    angle_between,
    bridge_angles,
    rotation_from_bridge_angles,
    rpy_from_matrix,
    turn_between,
    turned,
)


@dataclass(frozen=True, eq=False)
class Limits:
    """What one action may ask for, and where the end effector may be sent.

    step: (6,) largest magnitude of dx, dy, dz (m) and droll, dpitch, dyaw (rad) in one action.
    box_low, box_high: (3,) corners of the workspace of `ee_gripper_link`, metres in `base_link`.
    rpy_low, rpy_high: (3,) bounds of the target's roll, pitch, yaw in Bridge's convention (0 is
        pointing down), radians; the default bounds nothing.
    """

    step: np.ndarray
    box_low: np.ndarray
    box_high: np.ndarray
    rpy_low: np.ndarray = (-np.pi, -np.pi, -np.pi)
    rpy_high: np.ndarray = (np.pi, np.pi, np.pi)

    def __post_init__(self) -> None:
        for name, size in _SIZES.items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (size,) or not np.isfinite(array).all():
                raise ValueError(
                    f"Limits.{name}: expected {size} finite numbers, got {array.tolist()}"
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if (self.step <= 0).any():
            raise ValueError(f"Limits.step: expected positive magnitudes, got {self.step.tolist()}")
        for name in ("box", "rpy"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if (low >= high).any():
                raise ValueError(
                    f"Limits.{name}_low: expected less than {name}_high {high.tolist()} in every "
                    f"coordinate, got {low.tolist()}"
                )

    @functools.cached_property
    def bounds_rotation(self) -> bool:
        """Whether some rotation is out of bounds."""
        return any(low > -math.pi or high < math.pi for low, high in self.rpy)

    @functools.cached_property
    def steps(self) -> list[float]:
        """`step`, as Python's numbers."""
        return self.step.tolist()

    @functools.cached_property
    def box(self) -> list[tuple[float, float]]:
        """`box_low` and `box_high` by coordinate, as Python's numbers."""
        return list(zip(self.box_low.tolist(), self.box_high.tolist(), strict=True))

    @functools.cached_property
    def rpy(self) -> list[tuple[float, float]]:
        """`rpy_low` and `rpy_high` by angle, as Python's numbers."""
        return list(zip(self.rpy_low.tolist(), self.rpy_high.tolist(), strict=True))


_SIZES = {"step": 6, "box_low": 3, "box_high": 3, "rpy_low": 3, "rpy_high": 3}

_ROUNDING = 1e-9
BRIDGE_CLOSED, BRIDGE_OPEN = 0.2, 1.08  # Bridge V2's gripper state, of any gripper


class OutsideError(ValueError):
    """A pose is further outside the limits than one step can bring back."""


def limits_of(robot: Robot) -> Limits:
    """The limits that a binding declares for its arm.

    A tilt limit is kept by bounding roll and pitch alike: cos(tilt) = cos(roll) cos(pitch), so
    both at acos(sqrt(cos(tilt_limit))) are just within it.
    """
    low, high = np.array(robot.rpy_low), np.array(robot.rpy_high)
    if robot.tilt_limit is not None:
        each = np.arccos(np.sqrt(np.cos(robot.tilt_limit)))
        bound = np.array([each, each, np.pi])
        low, high = np.maximum(low, -bound), np.minimum(high, bound)
    return Limits(robot.step_limits, robot.box_low, robot.box_high, low, high)


@dataclass(frozen=True)
class Command:
    """A target of `ee_gripper_link` in `base_link`, and an absolute gripper: 0 closed, 1 open."""

    target: Pose
    gripper: float

    def __post_init__(self) -> None:
        if not self.target.is_finite:
            raise ValueError(f"Command.target: expected finite numbers, got {self.target}")
        if not 0.0 <= self.gripper <= 1.0:
            raise ValueError(f"Command.gripper: expected a number in [0, 1], got {self.gripper}")


def gripper_from_state(state: float) -> float:
    """The command, 0 closed to 1 open, that leaves a gripper where Bridge V2's state says it is."""
    share = (state - BRIDGE_CLOSED) / (BRIDGE_OPEN - BRIDGE_CLOSED)
    return min(max(share, 0.0), 1.0)


def compose(previous: Pose, action: np.ndarray, limits: Limits) -> Command:
    """The command of an action: dx, dy, dz (m), droll, dpitch, dyaw (rad), gripper, shape (7,).

    Bridge's rule: the delta acts on the previous *target*, not on the measured pose. The position
    adds; the rotation turns about the base's axes through the end effector,
    R = R(rpy) @ R_previous; the gripper is absolute, 0 closed and 1 open. The delta is clipped to
    `limits.step`, the position to the box, the angles to their bounds, the gripper to [0, 1].
    Source: rail-berkeley/bridge_data_robot, action2transform_local and _next_qpos.

    Angles that leave their bounds at one end stay there: they do not come in at the other, where
    the arm could not follow. A turn is left out whose clipped result would be further than one step
    away, or that leads past a pitch of pi/2, where roll and yaw swing round.

    Raises ValueError for a wrong shape or a number that is not finite: an action that cannot be
    trusted is not clipped. Raises OutsideError where `previous` is further outside the limits than
    one step.
    """
    # Number by number: of so few, NumPy takes longer to begin than to compute.
    action = np.asarray(action, dtype=np.float64)
    if action.shape != (7,):
        raise ValueError(f"action: expected shape (7,), got {action.shape}")
    *deltas, gripper = values = action.tolist()
    if not all(map(math.isfinite, values)):
        raise ValueError(
            f"action: expected finite numbers, got {values}; hold the robot and check the policy"
        )
    places = previous.position.tolist()
    deltas = [_within(delta, -step, step) for delta, step in zip(deltas, limits.steps, strict=True)]
    moves = zip(places, deltas[:3], limits.box, strict=True)
    position = [_within(place + delta, low, high) for place, delta, (low, high) in moves]
    if not _are_near(position, places, limits.steps[:3]):
        raise OutsideError(f"position {places} m: further outside the box than a step")
    to = previous.rotation
    if any(deltas[3:]):
        to = turned(to, deltas[3:])
    rotation = _rotation_in_reach(previous.rotation, to, limits)
    return Command(Pose(position, rotation), _within(gripper, 0.0, 1.0))


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _are_near(values: list[float], others: list[float], steps: list[float]) -> bool:
    """Whether each is within a step of the other, but for rounding."""
    each = zip(values, others, steps, strict=True)
    return all(abs(value - other) <= step + _ROUNDING for value, other, step in each)


def _rotation_in_reach(previous: np.ndarray, to: np.ndarray, limits: Limits) -> np.ndarray:
    """The rotation within its bounds, or the previous one where that is out of reach."""
    if not limits.bounds_rotation:
        return to
    before = bridge_angles(previous)
    for rotation in (to, previous):
        rpy = before if rotation is previous else bridge_angles(rotation)
        bounded = _bounded_angles(rpy, before, limits)
        if bounded is None:
            continue
        if rpy == bounded:  # nothing was clipped: it is a step away, or none
            return rotation
        clipped = rotation_from_bridge_angles(bounded)
        moved = rpy_from_matrix(turn_between(previous, clipped)).tolist()
        if _are_near(moved, [0.0, 0.0, 0.0], limits.steps[3:]):
            return clipped
    raise OutsideError(f"orientation {before} rad: further outside its bounds than a step")


def _bounded_angles(rpy: list[float], before: list[float], limits: Limits) -> list[float] | None:
    """Angles within their bounds; None where they swing round from those of before.

    An angle that was within its bounds is clipped at the end by which it leaves.
    """
    bounded = []
    for angle, was, (low, high) in zip(rpy, before, limits.rpy, strict=True):
        went_on = angle - math.tau * round((angle - was) / math.tau)
        if abs(went_on - was) > math.pi / 2:
            return None
        has_ends = low > -math.pi or high < math.pi
        goes_on = has_ends and low <= was <= high
        bounded.append(_within(went_on if goes_on else angle, low, high))
    return bounded


def parted(target: Pose, measured: Pose, max_m: float = 0.08, max_rad: float = 0.4) -> bool:
    """Whether target and measured pose are apart: a blocked arm, a lost servo, no measurement.

    True beyond `max_m` metres or `max_rad` radians, and for a pose that is not finite.
    """
    if not (target.is_finite and measured.is_finite):
        return True
    distance = math.dist(target.position.tolist(), measured.position.tolist())
    return distance > max_m or angle_between(target.rotation, measured.rotation) > max_rad
