"""Measured: where the end effector is, as far as anybody knows. Plain Python."""

from __future__ import annotations

from typing import final

import numpy as np

from canvas_robot.kinematics.rule import (
    Limits,
    OutsideError,
    compose,
    gripper_from_state,
    limits_of,
)
from canvas_robot.ros.decisions import Instant
from canvas_robot.ros.intake import Intake
from canvas_robot.signals import Binding
from canvas_robot.signals.binding import RosJoints, RosPose
from canvas_robot.signals.pose import Pose, pose_from_bridge_state


def state_signal(binding: Binding) -> str:
    """The signal of measured poses, which a ROS source fills from joints or poses.

    Raises ValueError where there is none.
    """
    for signal, source in binding.sources.ros.items():
        if isinstance(source, RosJoints | RosPose):
            return signal
    raise ValueError(
        "binding: expected a sources.ros entry of type joint_states or pose; "
        "the node needs the pose"
    )


def why_outside(pose: Pose, limits: Limits) -> str:
    """Why bringing a pose back within the limits would take more than one step; "" where it does
    not.
    """
    try:
        compose(pose, np.zeros(7), limits)
    except OutsideError as error:
        return str(error)
    return ""


@final
class Measured:
    """The newest sample of the signal of poses. Not thread-safe: the control loop's lock guards it.

    signal: its name.

    Args:
        binding: declares the signal and the arm's limits.
        intake: has the samples.
    """

    def __init__(self, binding: Binding, intake: Intake) -> None:
        self.signal = state_signal(binding)
        self._limits, self._intake = limits_of(binding.robot), intake
        self._newest: tuple[int, Pose, float] | None = None
        self._looked_at: tuple[Pose, bool] | None = None  # the last, and whether it is outside

    def forget(self) -> None:
        """The samples are no more."""
        self._newest = None

    @property
    def pose(self) -> Pose:
        """Raises NotReadyError where there is no sample."""
        return self._read()[1]

    @property
    def gripper(self) -> float:
        """The command that leaves the gripper where it is: 0 closed, 1 open."""
        return self._read()[2]

    @property
    def is_outside(self) -> bool:
        """Whether bringing it back within the limits would take more than one step."""
        pose = self.pose
        if self._looked_at is None or self._looked_at[0] is not pose:
            self._looked_at = pose, bool(why_outside(pose, self._limits))
        return self._looked_at[1]

    def is_old(self, now: Instant) -> bool:
        """Whether it is too old to be acted on, or there is none."""
        return self._intake.is_old(self.signal, now)

    def _read(self) -> tuple[int, Pose, float]:
        stamp_ns = self._intake.newest_stamp_ns(self.signal)
        if self._newest is None or self._newest[0] != stamp_ns:
            pose, gripper = pose_from_bridge_state(self._intake.newest(self.signal))
            self._newest = stamp_ns, pose, gripper_from_state(gripper)
        return self._newest
