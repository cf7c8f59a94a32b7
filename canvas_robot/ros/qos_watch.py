"""QosWatch: what the middleware says of a subscription beside its messages, told to the loop."""

from __future__ import annotations

import contextlib
import functools
from typing import final

from rclpy.event_handler import QoSSubscriptionEventType, UnsupportedEventTypeError
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.subscription import Subscription

from canvas_robot.ros.control import ControlLoop

_DEADLINE = QoSSubscriptionEventType.RCL_SUBSCRIPTION_REQUESTED_DEADLINE_MISSED
_LIVELINESS = QoSSubscriptionEventType.RCL_SUBSCRIPTION_LIVELINESS_CHANGED
_UNMET = QoSSubscriptionEventType.RCL_SUBSCRIPTION_REQUESTED_INCOMPATIBLE_QOS


@final
class QosWatch:
    """Missed deadlines, lost liveliness, and publishers that cannot be heard.

    It is asked with the messages, not run by an executor: a busy one would delay a fault, and only
    so is it known whether a message came after it.

    Args:
        subscription: deadline and liveliness are watched where it requests them.
        signal: that it fills.
        loop: is told.
    """

    def __init__(self, subscription: Subscription, signal: str, loop: ControlLoop) -> None:
        self._subscription, self._signal, self._loop = subscription, signal, loop
        self._silences: set[str] = set()  # that stand, by the names that the loop knows

    def look(self, came: bool) -> None:
        """Asks what happened; after messages were taken. came: whether there were any."""
        if came:
            self._end("deadline")
        for kind, handle in self._handles.items():
            with handle:
                event = handle.take_event()
            self._tell(kind, event)

    def close(self) -> None:
        """Stops watching; no silence stands any longer."""
        self._end(*self._silences)
        for handle in self.__dict__.pop("_handles", {}).values():
            handle.destroy_when_not_in_use()

    @functools.cached_property
    def _handles(self) -> dict:
        """Made at the first look: what stands in for a node has no subscription to look at."""
        made, qos = {}, self._qos
        with contextlib.suppress(UnsupportedEventTypeError):  # of some middleware, as in rclpy
            made[_UNMET] = self._handle(_UNMET)
        if qos.deadline.nanoseconds:
            made[_DEADLINE] = self._handle(_DEADLINE)
        if qos.liveliness_lease_duration.nanoseconds:
            made[_LIVELINESS] = self._handle(_LIVELINESS)
        return made

    def _handle(self, kind):
        with self._subscription.handle:
            return rclpy_implementation.EventHandle(self._subscription.handle, kind)

    @property
    def _qos(self) -> QoSProfile:
        return self._subscription.qos_profile

    def _tell(self, kind, event) -> None:
        if kind == _DEADLINE:
            if event.total_count_change > 0:
                self._begin("deadline", _missed(self._subscription.topic_name, self._qos))
        elif kind == _LIVELINESS:
            if event.alive_count > 0:
                self._end("liveliness")
            elif event.alive_count_change < 0 or event.not_alive_count_change > 0:
                self._begin("liveliness", _lost(self._subscription.topic_name, self._qos))
        elif event.total_count_change > 0:
            policy = QoSPolicyKind(event.last_policy_kind)
            told = _unheard(self._subscription.topic_name, self._qos, policy)
            self._loop.unheard(self._signal, told)

    def _begin(self, event: str, detail: str) -> None:
        self._silences.add(event)
        self._loop.silent(self._signal, f"{self._subscription.topic_name} {event}", detail)

    def _end(self, *events: str) -> None:
        for event in self._silences.intersection(events):
            self._silences.remove(event)
            self._loop.heard(f"{self._subscription.topic_name} {event}")


def _missed(topic: str, qos: QoSProfile) -> str:
    return (
        f"{topic}: no message within the deadline of {qos.deadline.nanoseconds / 1e9:g} s; restart "
        f"its publisher, or raise {_parameter(topic, 'deadline')}"
    )


def _lost(topic: str, qos: QoSProfile) -> str:
    lease_s = qos.liveliness_lease_duration.nanoseconds / 1e9
    return (
        f"{topic}: no publisher has been alive for {lease_s:g} s; restart it, or raise "
        f"{_parameter(topic, 'liveliness_lease_duration')}"
    )


def _unheard(topic: str, qos: QoSProfile, policy: QoSPolicyKind) -> str:
    """A publisher does not offer what is asked for. The middleware tells of one policy only."""
    name, asked = policy.name.lower(), ""
    if policy in (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY):
        asked = getattr(qos, name).short_key
    elif policy == QoSPolicyKind.DEADLINE:
        asked = f"{qos.deadline.nanoseconds} ns"
    elif policy == QoSPolicyKind.LIVELINESS:
        asked = f"{qos.liveliness.short_key}"
        if lease_ns := qos.liveliness_lease_duration.nanoseconds:
            name, asked = "liveliness_lease_duration", f"{lease_ns} ns of liveliness {asked}"
    return (
        f"{topic}: a publisher is not heard, as it does not offer {name} {asked}; make it do so, "
        f"or set {_parameter(topic, name)} to what it offers (ros2 topic info -v {topic})"
    )


def _parameter(topic: str, policy: str) -> str:
    return f"qos_overrides.{topic}.subscription.{policy}"
