"""Hands: what people do with the arm themselves, whatever the policy decides.

Services ~/home and ~/park, and speeds on the teleoperation topic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from canvas_robot.kinematics.guide import TELEOPERATION_TIMEOUT_S
from canvas_robot.ros.control import ControlLoop
from canvas_robot.ros.decisions import Decision, HoldReason
from canvas_robot.ros.intake import FUTURE_TOLERANCE_NS
from canvas_robot.ros.messages import MessageError, said_s_ago, stamp_ns, twist_from_msg
from canvas_robot.ros.moving import GuideError
from canvas_robot.ros.qos import OPERATOR_OVERRIDES
from canvas_robot.signals.binding import Robot


class Hands:
    """Subscriptions and services of one configured period. `close` destroys them.

    Args:
        node: owns them.
        loop: leads the arm.
        robot: declares `home` and `park`, and the frame of speeds.
        publish: receives the hold of the policy that this begins with.
        is_active: whether commands are published at present.
        warn: receives one line for what is refused.
        teleop_topic: TwistStamped; none is heard where empty. Beside it, Float64 on
            <teleop_topic>_gripper.
    """

    def __init__(
        self,
        node: LifecycleNode,
        loop: ControlLoop,
        robot: Robot,
        publish: Callable[[Decision], None],
        is_active: Callable[[], bool],
        warn: Callable[[str], None],
        teleop_topic: str,
    ) -> None:
        self._node, self._loop, self._robot = node, loop, robot
        self._publish, self._is_active, self._warn = publish, is_active, warn
        self._destroy: list[Callable[[], None]] = []
        for reason, pose in ((HoldReason.HOME, robot.home), (HoldReason.PARK, robot.park)):
            answer = functools.partial(self._go, reason, pose)
            service = node.create_service(Trigger, f"~/{reason}", answer)
            self._destroy.append(functools.partial(node.destroy_service, service))
        if teleop_topic:
            for kind, topic, receive in (
                (TwistStamped, teleop_topic, self._on_twist),
                (Float64, f"{teleop_topic}_gripper", self._on_gripper),
            ):
                heard = node.create_subscription(
                    kind,
                    topic,
                    receive,
                    QoSProfile(depth=1),
                    qos_overriding_options=OPERATOR_OVERRIDES,
                )
                self._destroy.append(functools.partial(node.destroy_subscription, heard))

    def close(self) -> None:
        for destroy in self._destroy:
            destroy()
        self._destroy = []

    # ------------------------------------------------------------------ callbacks

    def _go(
        self,
        reason: HoldReason,
        pose: tuple[float, ...] | None,
        request: Trigger.Request,
        response: Trigger.Response,
    ) -> Trigger.Response:
        if not self._is_active():
            response.message = "the node is not active"
        elif pose is None:
            response.message = f"the binding declares no robot.{reason}"
        else:
            try:
                self._publish(self._loop.go_to(reason, pose))
                response.success, response.message = True, "on the way; ~/stop stops it"
            except GuideError as error:
                response.message = str(error)
        return response

    def _on_twist(self, msg: TwistStamped, info: Mapping[str, int]) -> None:
        if not self._is_active():
            return
        try:
            ago_s = self._said_s_ago(msg, info)
            if not -FUTURE_TOLERANCE_NS / 1e9 <= ago_s <= TELEOPERATION_TIMEOUT_S:
                raise MessageError(
                    f"TwistStamped: expected speeds of now, got what was said {ago_s:.2f} s ago; "
                    f"synchronise the clocks"
                )
            if msg.header.frame_id not in ("", self._robot.base_frame):
                raise MessageError(
                    f"TwistStamped: expected frame_id {self._robot.base_frame!r}, "
                    f"got {msg.header.frame_id!r}"
                )
            held = self._loop.teleoperate(np.concatenate(twist_from_msg(msg)))
        except (GuideError, ValueError) as error:
            self._warn(f"teleoperation refused: {error}")
            return
        if held is not None:
            self._publish(held)

    def _said_s_ago(self, msg: TwistStamped, info: Mapping[str, int]) -> float:
        """By its stamp, where it has one, and since it was sent, whichever is more.

        It may have lain here while this process was stopped, or with who passed it on.
        """
        sent_s_ago, stamp = max(said_s_ago(info), 0.0), stamp_ns(msg.header.stamp)
        if stamp == 0:
            return sent_s_ago
        stamped_s_ago = (self._node.get_clock().now().nanoseconds - stamp) / 1e9
        return stamped_s_ago if stamped_s_ago < 0.0 else max(sent_s_ago, stamped_s_ago)

    def _on_gripper(self, msg: Float64) -> None:
        if np.isfinite(msg.data):
            self._loop.teleoperate_gripper(msg.data)
