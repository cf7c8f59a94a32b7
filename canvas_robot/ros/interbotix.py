"""Interbotix: joints and gripper as messages of Interbotix's own driver (xs_sdk).

Its group `arm` must be in position mode and its `gripper` in linear_position mode, both on time
profiles; config/ros/interbotix_modes.yaml says so at its start. Setting a mode takes the torque
off, and an arm would fall: here a mode is looked at, never set. Source:
Interbotix/interbotix_ros_core, branch jazzy, xs_sdk_obj.cpp, and interbotix_xs_driver.
"""

from __future__ import annotations

from typing import final

import numpy as np
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from interbotix_xs_msgs.srv import RegisterValues, RobotInfo
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile

from canvas_robot.kinematics.arm import Arm
from canvas_robot.ros.openings import Openings
from canvas_robot.ros.preparation import Call, Preparation

GROUP, GRIPPER = "arm", "gripper"
# How long the driver takes for a commanded step, and how long it accelerates. Its own 2 s are for
# lone poses; Bridge V2 took 0.25 s and 0.1 s at 5 Hz.
PROFILE_MS = {"Profile_Velocity": 200, "Profile_Acceleration": 100}
_COMMAND_QOS = QoSProfile(depth=1)  # reliable, volatile


@final
class Interbotix:
    """Publishers and services of one configured period.

    publishers: of its two topics.

    Args:
        node: owns them.
        robot: namespace of the driver, such as wx250s.
        joints: names of the arm's joints, in the order in which they are commanded.
        arm: knows the finger's positions closed and open.
    """

    def __init__(self, node: LifecycleNode, robot: str, joints: tuple[str, ...], arm: Arm) -> None:
        self._node, self._arm = node, arm
        self._openings, self._ready = Openings(), False
        make = node.create_lifecycle_publisher
        self._group = make(JointGroupCommand, f"{robot}/commands/joint_group", _COMMAND_QOS)
        self._single = make(JointSingleCommand, f"{robot}/commands/joint_single", _COMMAND_QOS)
        self.publishers = (self._group, self._single)
        self._preparation = Preparation(node, _calls(robot, joints))

    def close(self) -> None:
        self._preparation.close()
        for publisher in self.publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def begin(self) -> None:
        self._openings.forget()
        self._ready = False
        self._preparation.begin()

    def look(self) -> str:
        """What the driver lacks; "" where it may be commanded."""
        lacks = self._preparation.look()
        self._ready = not lacks
        if lacks:
            self._openings.forget()  # what was told to one that is gone
        return lacks

    # Not ready is not commanded, not even to stay: in another mode the numbers mean speeds.

    def move_joints(self, joints: np.ndarray) -> None:
        """Commands the arm's joints (6,), rad."""
        if self._ready:
            self._group.publish(JointGroupCommand(name=GROUP, cmd=[float(q) for q in joints]))

    def open_to(self, share: float, stamp_ns: int) -> None:
        """Commands the gripper, 0 closed to 1 open: metres between its two fingers."""
        if self._ready and self._openings.differs(share):
            self._openings.last = share
            apart = 2.0 * self._arm.finger_from_gripper(share)
            self._single.publish(JointSingleCommand(name=GRIPPER, cmd=apart))


def _calls(robot: str, joints: tuple[str, ...]) -> list[Call]:
    """Modes as they must be, the joints' order, and the profile's times."""

    def mode_fault(name: str, mode: str, answer: RobotInfo.Response) -> str:
        if (answer.mode, answer.profile_type) == (mode, "time"):
            return ""
        return (
            f"Interbotix's {name}: expected mode {mode!r} on a 'time' profile, got "
            f"{answer.mode!r} on {answer.profile_type!r}; start its driver with mode_configs:= "
            f"config/ros/interbotix_modes.yaml of this package"
        )

    def arm_fault(answer: RobotInfo.Response) -> str:
        if (there := tuple(answer.joint_names)) != joints:
            return f"Interbotix's group {GROUP!r}: expected the joints {joints}, got {there}"
        return mode_fault(GROUP, "position", answer)

    def gripper_fault(answer: RobotInfo.Response) -> str:
        return mode_fault(GRIPPER, "linear_position", answer)

    info, registers = f"{robot}/get_robot_info", f"{robot}/set_motor_registers"
    group = {"cmd_type": "group", "name": GROUP}
    single = {"cmd_type": "single", "name": GRIPPER}
    times = [
        RegisterValues.Request(**group, reg=register, value=ms)
        for register, ms in PROFILE_MS.items()
    ]
    return [
        Call(RobotInfo, info, RobotInfo.Request(**group), arm_fault),
        Call(RobotInfo, info, RobotInfo.Request(**single), gripper_fault),
        *(Call(RegisterValues, registers, request, lambda answer: "") for request in times),
    ]
