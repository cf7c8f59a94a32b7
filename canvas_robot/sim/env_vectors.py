"""Readers of vectors: numbers, poses and grippers put together, or forward kinematics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from canvas_robot.signals import Pose, SignalError, VectorSignal
from canvas_robot.signals.binding import Robot
from canvas_robot.signals.env_sources import (
    EnvJoints,
    EnvVector,
    FixedPose,
    GripperNumber,
    Numbers,
    ObservedPose,
    Pick,
    PoseNumbers,
    Rotated,
)
from canvas_robot.signals.environment import check_count
from canvas_robot.signals.pose import BRIDGE_DEFAULT_ROTATION, rpy_from_matrix
from canvas_robot.signals.rotation_conventions import CONVENTIONS
from canvas_robot.sim.env_lookup import Moment, Picked, Reader, picked


@dataclass(frozen=True, eq=False)
class _VectorReader:
    parts: tuple[Any, ...]
    shape: tuple[int, ...]

    def read(self, moment: Moment) -> np.ndarray:
        return np.concatenate([part.read(moment) for part in self.parts]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _NumbersPart:
    picked: Picked
    scale: np.ndarray
    offset: np.ndarray

    @property
    def size(self) -> int:
        return len(self.picked.indices)

    def read(self, moment: Moment) -> np.ndarray:
        return self.picked.read(moment) * self.scale + self.offset


@dataclass(frozen=True, eq=False)
class _GripperPart:
    picked: Picked
    closed: float
    open: float
    size: int = 1

    def read(self, moment: Moment) -> np.ndarray:
        width = self.picked.read(moment).mean(keepdims=True)
        return (width - self.closed) / (self.open - self.closed)


@dataclass(frozen=True, eq=False)
class _PosePart:
    """x, y, z and three angles of `tool` on the shown pose, seen from `base`."""

    shown: Callable[[Moment], Pose]
    base: Callable[[Moment], Pose] | None
    tool: Pose | None
    bridge: bool
    size: int = 6

    def read(self, moment: Moment) -> np.ndarray:
        pose = self.shown(moment)
        if self.base is not None:
            pose = _seen_from(self.base(moment), pose)
        if self.tool is not None:
            pose = _carried(pose, self.tool)
        rotation = pose.rotation @ BRIDGE_DEFAULT_ROTATION.T if self.bridge else pose.rotation
        return np.concatenate([pose.position, rpy_from_matrix(rotation)])


def _seen_from(base: Pose, pose: Pose) -> Pose:
    """The pose in the frame of `base`, both given in one frame."""
    back = base.rotation.T
    return Pose(back @ (pose.position - base.position), back @ pose.rotation)


def _carried(pose: Pose, tool: Pose) -> Pose:
    """The pose of a tool that is mounted on `pose`; `_seen_from(pose, ...)` undoes it."""
    return Pose(pose.position + pose.rotation @ tool.position, pose.rotation @ tool.rotation)


@dataclass(frozen=True, eq=False)
class _ShownPose:
    position: Picked
    rotation: Picked
    to_matrix: Callable[[np.ndarray], np.ndarray]

    def __call__(self, moment: Moment) -> Pose:
        return Pose(self.position.read(moment), self.to_matrix(self.rotation.read(moment)))


@dataclass(frozen=True, eq=False)
class _JointsReader:
    """`canvas_robot.kinematics.Arm.measured_state` of joints and finger."""

    joints: Picked
    finger: Picked
    measured_state: Callable[[np.ndarray, float], np.ndarray]
    shape: tuple[int, ...]

    def read(self, moment: Moment) -> np.ndarray:
        return self.measured_state(self.joints.read(moment), float(self.finger.read(moment)[0]))


def vector_reader(
    signal: VectorSignal,
    source: str | EnvVector | EnvJoints,
    space: spaces.Space,
    robot: Robot | None,
) -> Reader:
    """Reads (size,) float32; raises SignalError where the observations do not give that."""
    if isinstance(source, EnvJoints):
        reader = _joints_reader(source, space, robot)
        made = "joints 7"
    else:
        vector = EnvVector(parts=(Numbers(key=source),)) if isinstance(source, str) else source
        parts = tuple(_part(part, space) for part in vector.parts)
        reader = _VectorReader(parts, (sum(part.size for part in parts),))
        made = ", ".join(
            f"{part.__struct_config__.tag} {compiled.size}"
            for part, compiled in zip(vector.parts, parts, strict=True)
        )
    if reader.shape != (signal.size,):
        raise SignalError(
            f"expected {signal.size} numbers, {', '.join(signal.names)}; "
            f"got {reader.shape[0]}: {made}"
        )
    return reader


def _part(part: Numbers | PoseNumbers | GripperNumber, space: spaces.Space) -> Any:
    if isinstance(part, PoseNumbers):
        return _PosePart(
            _shown_pose(part.position, part.rotation, space),
            None if part.base is None else _base_pose(part.base, space),
            None if part.tool is None else _fixed_pose(part.tool),
            part.angles == "bridge",
        )
    numbers = picked(part, space)
    if isinstance(part, GripperNumber):
        return _GripperPart(numbers, part.closed, part.open)
    for field in ("scale", "offset"):
        check_count(f"key {part.key!r}: {field}", getattr(part, field), len(numbers.indices))
    return _NumbersPart(numbers, np.array(part.scale), np.array(part.offset))


def _shown_pose(position: Pick, rotation: Rotated, space: spaces.Space) -> _ShownPose:
    writing = CONVENTIONS[rotation.convention]
    return _ShownPose(
        picked(position, space, 3), picked(rotation, space, writing.size), writing.to_matrix
    )


def _base_pose(base: FixedPose | ObservedPose, space: spaces.Space) -> Callable[[Moment], Pose]:
    if isinstance(base, ObservedPose):
        return _shown_pose(base.position, base.rotation, space)
    fixed = _fixed_pose(base)
    return lambda _: fixed


def _fixed_pose(pose: FixedPose) -> Pose:
    return Pose(np.array(pose.position), pose.matrix())


def _joints_reader(source: EnvJoints, space: spaces.Space, robot: Robot) -> _JointsReader:
    from canvas_robot.kinematics.arm import Arm  # MuJoCo, which other sources need not

    arm = Arm.declared(robot)
    joints = picked(source.joints, space, len(arm.joint_names))
    return _JointsReader(joints, picked(source.finger, space, 1), arm.measured_state, (7,))
