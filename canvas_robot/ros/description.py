"""The arm that a binding declares, by a file or as a robot_state_publisher describes it."""

from __future__ import annotations

import time

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from canvas_robot.kinematics.arm import FINGER_JOINT, Arm
from canvas_robot.kinematics.arm_model import is_topic
from canvas_robot.ros.polled import Polled
from canvas_robot.signals import Binding

WAIT_S = 5.0
_LOOK_S = 0.02
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class DescriptionError(RuntimeError):
    """Nobody says what the arm is."""


def arm_of(binding: Binding, description: str = "") -> Arm:
    """As `Arm.declared`, with the finger that the binding's joint states name."""
    heard = binding.joint_source
    finger = FINGER_JOINT if heard is None else heard.finger
    return Arm.declared(binding.robot, finger, description)


def heard_description(node: Node, binding: Binding) -> str:
    """The URDF on the topic that the binding names; "" where it names none. Any thread.

    Raises DescriptionError where none comes within WAIT_S.
    """
    if binding.robot is None or not is_topic(binding.robot.arm):
        return ""
    topic = binding.robot.arm
    subscription = node.create_subscription(
        String, topic, lambda msg: None, _LATCHED, callback_group=Polled()
    )
    try:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            with subscription.handle:
                taken = subscription.handle.take_message(String, False)
            if taken:
                return taken[0].data
            time.sleep(_LOOK_S)
    finally:
        node.destroy_subscription(subscription)
    raise DescriptionError(
        f"robot.arm: expected a URDF on {topic}, none came within {WAIT_S:g} s; start "
        f"robot_state_publisher, remap the topic, or name a .urdf file in the binding"
    )
