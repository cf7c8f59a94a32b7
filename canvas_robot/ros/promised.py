"""Promised: the quality of service that the policy node will offer and ask for, without the node.

Its topics are made by the node's own code, on what stands in for the node and makes none.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import final

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions, _declare_qos_parameters
from rclpy.subscription import Subscription
from std_msgs.msg import String

from canvas_robot.ros.guards import Guards
from canvas_robot.ros.hands import Hands
from canvas_robot.ros.outputs import Outputs
from canvas_robot.ros.parameters import Settings
from canvas_robot.ros.qos import OPERATOR_OVERRIDES
from canvas_robot.signals import Binding


@final
class Promised:
    """All topics of the node but its inputs.

    offered: of what it publishes, by the topic's full name; requested: of what people say, of each
    subscription: a topic may have two.

    Args:
        node: has the policy node's parameters, and is in its namespace; what of `qos_overrides` the
            policy node would take is declared on it.
        name: of the policy node, absolute.
        settings, binding: of the policy node.
    """

    def __init__(self, node: Node, name: str, settings: Settings, binding: Binding) -> None:
        self._node, self._name = node, name
        self.offered: dict[str, QoSProfile] = {}
        self.requested: dict[str, list[QoSProfile]] = defaultdict(list)
        source = binding.joint_source
        heard = (source.joints, source.finger) if source is not None else None
        joints = heard if settings.joint_output else None
        Outputs(self, "", settings.dry_run, joints, settings.joint_positions, None)
        Guards(self, None, None, None, None, settings.estop_topic, settings.deadman_topic)
        Hands(self, None, binding.robot, None, None, None, settings.teleop_topic)
        instruction = {"qos_overriding_options": OPERATOR_OVERRIDES}
        self.create_subscription(String, "~/instruction", None, QoSProfile(depth=1), **instruction)

    # ------------------------------------------------------------------ as the policy node

    def create_lifecycle_publisher(
        self,
        msg_type: type,
        topic: str,
        qos: QoSProfile,
        *,
        qos_overriding_options: QoSOverridingOptions,
    ) -> None:
        full = self.full(topic)
        self.offered[full] = self._overridden(Publisher, full, qos, qos_overriding_options)

    def create_subscription(
        self,
        msg_type: type,
        topic: str,
        callback,
        qos: QoSProfile,
        *,
        event_callbacks: SubscriptionEventCallbacks | None = None,
        qos_overriding_options: QoSOverridingOptions | None = None,
    ) -> None:
        full = self.full(topic)
        if qos_overriding_options is not None:
            qos = self._overridden(Subscription, full, qos, qos_overriding_options)
        self.requested[full].append(qos)

    def create_service(self, *arguments, **options) -> None:
        """Services have none that could be changed."""

    def destroy_subscription(self, subscription: None) -> None:
        """None was made."""

    def destroy_service(self, service: None) -> None:
        """None was made."""

    def full(self, topic: str) -> str:
        """A topic's name as the policy node resolves it."""
        private = topic.removeprefix("~/")
        named = topic if private == topic else f"{self._name}/{private}"
        return self._node.resolve_topic_name(named)

    def _overridden(
        self, kind: type, topic: str, qos: QoSProfile, options: QoSOverridingOptions
    ) -> QoSProfile:
        changed = copy.copy(qos)  # rclpy writes what is overridden into it
        _declare_qos_parameters(kind, self._node, topic, changed, options)
        return changed
