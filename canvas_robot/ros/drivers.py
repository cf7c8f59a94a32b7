"""Drivers: outputs in the messages of one driver each, whose packages need not be installed.

The packages are imported where a parameter asks for them, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher

from canvas_robot.kinematics.arm import FINGER_JOINT, Arm
from canvas_robot.ros.parameters import SERVO_COMMANDS, Settings
from canvas_robot.ros.preparation import Call, Preparation
from canvas_robot.signals import Binding

SERVO_SERVICE = "servo_node/switch_command_type"  # the name that MoveIt's launch files give it
# Its installer builds them beside the driver; this is for a machine without one.
_BUILD_INTERBOTIX = (
    "source the workspace of Interbotix's installer, or git clone -b jazzy "
    "https://github.com/Interbotix/interbotix_ros_core && colcon build --base-paths "
    "interbotix_ros_core/interbotix_ros_xseries/interbotix_xs_msgs && . install/setup.sh"
)


class DriverError(ValueError):
    """A driver's package is not installed, or too old."""


@final
class Drivers:
    """All that the parameters ask for, of one configured period; in a dry run none.

    Args:
        node: owns what they need.
        settings: name them.
        binding: names the arm's joints and the finger.
        arm: knows the finger's positions closed and open.
        warn: receives one line for what a driver did not do.
    Their packages are there: `check_drivers` has said so.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: Settings,
        binding: Binding,
        arm: Arm,
        warn: Callable[[str], None],
    ) -> None:
        source = binding.joint_source
        live = not settings.dry_run
        self._looked_at: list = []
        self._gripper = self._interbotix = None
        with ExitStack() as made:
            if live and settings.servo:
                servo = servo_preparation(node, settings.servo)
                made.callback(servo.close)
                self._looked_at.append(servo)
            if live and settings.gripper_action:
                from canvas_robot.ros.gripper_action import GripperAction

                finger = source.finger if source is not None else FINGER_JOINT
                action = settings.gripper_action
                self._gripper = GripperAction(node, action, arm, finger, warn)
                made.callback(self._gripper.close)
            if live and settings.interbotix:
                from canvas_robot.ros.interbotix import Interbotix

                self._interbotix = Interbotix(node, settings.interbotix, source.joints, arm)
                made.callback(self._interbotix.close)
            self._made = made.pop_all()
        self._grippers = [d for d in (self._gripper, self._interbotix) if d is not None]
        self._looked_at += self._grippers

    def close(self) -> None:
        self._made.close()

    @property
    def publishers(self) -> list[LifecyclePublisher]:
        """Of the topics that no other node may publish."""
        return list(self._interbotix.publishers) if self._interbotix is not None else []

    def begin(self) -> None:
        """At activation: nothing that was said before counts."""
        for driver in self._looked_at:
            driver.begin()

    def look(self) -> str:
        """What a driver lacks; "" where all may be commanded. For a few times a second."""
        return "; ".join(filter(None, [driver.look() for driver in self._looked_at]))

    def rivals(self) -> list[str]:
        """What somebody else commands too, other than by topics."""
        return self._gripper.rivals() if self._gripper is not None else []

    def open_to(self, share: float, stamp_ns: int) -> None:
        """Commands the gripper: 0 closed, 1 open."""
        for driver in self._grippers:
            driver.open_to(share, stamp_ns)

    def move_joints(self, joints: np.ndarray) -> None:
        """Commands the arm's joints (6,), rad."""
        if self._interbotix is not None:
            self._interbotix.move_joints(joints)


@dataclass(frozen=True)
class MissingPackage:
    """Messages that a parameter needs and that cannot be imported.

    found: what was expected and what came. remedy: the command that installs them.
    """

    parameter: str
    found: str
    remedy: str


def missing_packages(settings: Settings) -> list[MissingPackage]:
    """Of what the parameters ask for; empty where everything is installed."""
    apt = f"apt install ros-{os.environ.get('ROS_DISTRO', 'jazzy')}"
    missing: list[MissingPackage] = []
    if settings.gripper_action:
        with _noted(missing, "gripper_action", f"{apt}-control-msgs"):
            from control_msgs.action import ParallelGripperCommand  # noqa: F401
    if settings.servo:
        with _noted(missing, "servo", f"{apt}-moveit-msgs"):
            from moveit_msgs.srv import ServoCommandType  # noqa: F401
    if settings.interbotix:
        with _noted(missing, "interbotix", _BUILD_INTERBOTIX):
            from interbotix_xs_msgs.msg import JointGroupCommand  # noqa: F401
    return missing


def check_drivers(settings: Settings) -> None:
    """Raises DriverError naming all that has to be installed for the parameters."""
    if missing := missing_packages(settings):
        raise DriverError(". ".join(f"{m.parameter}: {m.found}; {m.remedy}" for m in missing))


@contextmanager
def _noted(missing: list[MissingPackage], parameter: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        found = f"expected the messages of its driver, got {error}"
        missing.append(MissingPackage(parameter, found, remedy))


def servo_preparation(node: LifecycleNode, command: str) -> Preparation:
    """MoveIt Servo hears nothing until it was told what: `command` is one of SERVO_COMMANDS."""
    from moveit_msgs.srv import ServoCommandType

    def fault(answer: ServoCommandType.Response) -> str:
        return "" if answer.success else f"MoveIt Servo refuses the command type {command}"

    request = ServoCommandType.Request(command_type=SERVO_COMMANDS[command])
    return Preparation(node, [Call(ServoCommandType, SERVO_SERVICE, request, fault)])
