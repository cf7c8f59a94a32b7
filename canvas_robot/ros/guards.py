"""Guards: what people and other programs say that stops the arm, whatever the policy decides.

Services ~/start, ~/stop and ~/estop, the emergency-stop and deadman topics, and a second publisher
on a command topic; and a driver that cannot be commanded.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Self

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from canvas_robot.ros.decisions import HoldReason
from canvas_robot.ros.messages import said_s_ago
from canvas_robot.ros.qos import OPERATOR_OVERRIDES

DEADMAN_TIMEOUT_S = 0.5
_EVERY_PRESS = 100  # a button that says false after true has been pressed all the same
_RIVALS_S = 0.2  # between two looks for other publishers
_STARTED_FROM = (
    HoldReason.STOPPED,
    HoldReason.ESTOP,
    HoldReason.PARTED,
    HoldReason.EFFORT,
    HoldReason.HOME,
    HoldReason.PARK,
)


class Guards:
    """Subscriptions and services of one configured period. `close` destroys them.

    Args:
        node: owns them.
        block, unblock: stop the motion for a reason, and let that reason go.
        rivals: names the command topics that somebody else publishes too.
        lacks: what a driver lacks to be commanded; "" where none lacks anything.
        estop_topic, deadman_topic: none where empty.
        before: of the configured period before. A button that was pressed then still is.
    """

    def __init__(
        self,
        node: LifecycleNode,
        block: Callable[[HoldReason, str], None],
        unblock: Callable[[HoldReason], None],
        rivals: Callable[[], list[str]],
        lacks: Callable[[], str],
        estop_topic: str,
        deadman_topic: str,
        before: Self | None = None,
    ) -> None:
        self._block, self._unblock = block, unblock
        self._rivals, self._lacks = rivals, lacks
        self._deadman_topic = deadman_topic
        self._held_at: float | None = None  # when the deadman last said true
        self._released = False  # it said false since
        self._is_late = ""  # what it said last was said long before
        self._estop_topic = estop_topic
        same = before is not None and before._estop_topic == estop_topic
        self._is_pressed = same and before._is_pressed
        self._looked_at = -_RIVALS_S
        self._destroy: list[Callable[[], None]] = []
        for name, answer in (
            ("start", self._on_start),
            ("stop", self._on_stop),
            ("estop", self._on_estop),
        ):
            service = node.create_service(Trigger, f"~/{name}", answer)
            self._destroy.append(functools.partial(node.destroy_service, service))
        for topic, receive, depth in (
            (estop_topic, self._on_estop_message, _EVERY_PRESS),
            (deadman_topic, self._on_deadman, _EVERY_PRESS),
        ):
            if topic:
                heard = node.create_subscription(
                    Bool,
                    topic,
                    receive,
                    QoSProfile(depth=depth),
                    event_callbacks=SubscriptionEventCallbacks(
                        use_default_callbacks=topic != estop_topic  # nobody is unheard there
                    ),
                    qos_overriding_options=OPERATOR_OVERRIDES,
                )
                self._destroy.append(functools.partial(node.destroy_subscription, heard))
        if estop_topic:  # the one above does not hear who publishes best effort
            every_way = QoSProfile(depth=_EVERY_PRESS, reliability=ReliabilityPolicy.BEST_EFFORT)
            heard = node.create_subscription(Bool, estop_topic, self._on_estop_message, every_way)
            self._destroy.append(functools.partial(node.destroy_subscription, heard))

    def close(self) -> None:
        for destroy in self._destroy:
            destroy()
        self._destroy = []

    def look(self) -> None:
        """Checks what must hold all the time; to be called at the command rate while active."""
        now = time.monotonic()
        if self._deadman_topic:
            if self._held_at is not None and now - self._held_at <= DEADMAN_TIMEOUT_S:
                self._unblock(HoldReason.DEADMAN)
            else:
                self._hold_for_deadman()
        if now - self._looked_at >= _RIVALS_S:
            self._looked_at = now
            if rivals := self._rivals():
                self._block(
                    HoldReason.SECOND_PUBLISHER,
                    f"somebody else publishes {', '.join(rivals)}; "
                    f"`ros2 topic info -v` says who; stop it, or remap this node's topic",
                )
            else:
                self._unblock(HoldReason.SECOND_PUBLISHER)
            self._look_at_drivers()

    def _hold_for_deadman(self) -> None:
        says = f"has not said true for {DEADMAN_TIMEOUT_S} s"
        told = f"{self._deadman_topic} {'says false' if self._released else says}"
        self._block(HoldReason.DEADMAN, f"{told}; hold the deadman switch{self._is_late}")

    def _look_at_drivers(self) -> None:
        """Stops the motion while a driver cannot be commanded."""
        if lacks := self._lacks():
            self._block(HoldReason.DRIVER, lacks)
        else:
            self._unblock(HoldReason.DRIVER)

    # ------------------------------------------------------------------ callbacks

    def _on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._is_pressed:
            response.message = (
                f"{self._estop_topic} still says true: release the emergency stop, so that it says "
                f"false, then start"
            )
            return response
        for reason in _STARTED_FROM:
            self._unblock(reason)
        told = "no stop stands; an active node goes on from the measured pose"
        response.success, response.message = True, told
        return response

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._block(HoldReason.STOPPED, "stopped by ~/stop; ~/start goes on")
        response.success, response.message = True, "holding; ~/start goes on"
        return response

    def _on_estop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._block(HoldReason.ESTOP, "emergency stop by ~/estop; ~/start goes on")
        response.success, response.message = True, "holding; ~/start goes on"
        return response

    def _on_estop_message(self, msg: Bool) -> None:
        self._is_pressed = msg.data
        if msg.data:
            self._block(HoldReason.ESTOP, "emergency stop by its topic; ~/start goes on")

    def _on_deadman(self, msg: Bool, info: Mapping[str, int]) -> None:
        ago_s, now = said_s_ago(info), time.monotonic()
        late = msg.data and ago_s > DEADMAN_TIMEOUT_S  # it lay here while this process was stopped
        self._is_late = f"; it said true {ago_s:.1f} s ago: synchronise the clocks" if late else ""
        self._held_at = now - max(ago_s, 0.0) if msg.data else None
        self._released = not msg.data
        if self._released:  # at once: before anybody looks it may say true again
            self._hold_for_deadman()
