"""Quality of service from parameters: which policies they may change, and to what.

rclpy declares and reads them, as `qos_overrides.<topic>.<subscription or publisher>.<policy>`.
"""

from __future__ import annotations

import difflib
import re

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from canvas_robot.ros.parameters import ParameterError

QOS_PREFIX = "qos_overrides"
INPUT_OVERRIDES = QoSOverridingOptions(
    (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
        QoSPolicyKind.DEADLINE,
        QoSPolicyKind.LIVELINESS,
        QoSPolicyKind.LIVELINESS_LEASE_DURATION,
    )
)
# Of what people say. A deadman has a time limit of its own, and no other topic must come in time.
OPERATOR_OVERRIDES = QoSOverridingOptions(
    (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)
# History, depth and durability stay as they are: no command may wait for who comes later.
OUTPUT_OVERRIDES = QoSOverridingOptions(
    (
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DEADLINE,
        QoSPolicyKind.LIFESPAN,
        QoSPolicyKind.LIVELINESS,
        QoSPolicyKind.LIVELINESS_LEASE_DURATION,
    )
)

_WORDS = {
    "history": HistoryPolicy,
    "reliability": ReliabilityPolicy,
    "durability": DurabilityPolicy,
    "liveliness": LivelinessPolicy,
}
_DURATIONS = ("deadline", "lifespan", "liveliness_lease_duration")
_INFINITE_NS = 2**63 - 1  # how the middleware says that there is none
_SHORTEST_NS = 1_000_000  # what is shorter was not meant as nanoseconds
_NAME = re.compile(rf"{QOS_PREFIX}\./.+\.(?:subscription|publisher)\.(\w+)")


def check_overrides(node: Node) -> None:
    """Raises ParameterError for what was set at start and is no value of its policy."""
    for name, parameter in node._parameter_overrides.items():  # rclpy has no public way
        match = _NAME.fullmatch(name)
        expected = _expected(match[1], parameter.value) if match else ""
        if expected:
            raise ParameterError(f"{name}: expected {expected}, got {parameter.value!r}")


def untaken_overrides(node: Node) -> list[str]:
    """What was set at start and no topic of the node takes, each with what may have been meant."""
    known = [f"{QOS_PREFIX}.{name}" for name in node.get_parameters_by_prefix(QOS_PREFIX)]
    told = []
    for name in node._parameter_overrides:
        if name.startswith(f"{QOS_PREFIX}.") and not node.has_parameter(name):
            near = difflib.get_close_matches(name, known, 1)
            told.append(
                f"{name}: no topic of the node takes it" + (f"; {near[0]}?" if near else "")
            )
    return told


def unmet(offered: QoSProfile, requested: QoSProfile) -> list[str]:
    """The policies in which a publisher offers less than a subscription requests: it hears nothing.

    Source: OMG DDS 1.4, 2.2.3, the RxO column of its table of policies.
    """
    less = {
        "reliability": requested.reliability == ReliabilityPolicy.RELIABLE
        and offered.reliability == ReliabilityPolicy.BEST_EFFORT,
        "durability": requested.durability == DurabilityPolicy.TRANSIENT_LOCAL
        and offered.durability == DurabilityPolicy.VOLATILE,
        "liveliness": requested.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC
        and offered.liveliness != LivelinessPolicy.MANUAL_BY_TOPIC,
    }
    for policy in ("deadline", "liveliness_lease_duration"):
        asked, given = policy_value(requested, policy), policy_value(offered, policy)
        less[policy] = asked != 0 and (given == 0 or given > asked)
    return [policy for policy, is_less in less.items() if is_less]


def policy_value(qos: QoSProfile, policy: str) -> str | int:
    """A policy as `qos_overrides` takes it: a word, or nanoseconds, 0 for none."""
    value = getattr(qos, policy)
    if isinstance(value, Duration):
        return value.nanoseconds if value.nanoseconds < _INFINITE_NS else 0
    if value == LivelinessPolicy.SYSTEM_DEFAULT and policy == "liveliness":
        return LivelinessPolicy.AUTOMATIC.short_key  # the default of DDS
    return value.short_key


def told_policy(qos: QoSProfile, policy: str) -> str:
    """The same for people: deadline 100000000 ns, deadline none."""
    value = policy_value(qos, policy)
    said = value if isinstance(value, str) else f"{value} ns" if value else "none"
    return f"{policy} {said}"


def _expected(policy: str, value: object) -> str:
    """What a value should be, in words; "" where it is, or where the policy is none."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if policy in _WORDS:
        words = [word for word in _WORDS[policy].short_keys() if word != "unknown"]
        return "" if value in words else f"one of {', '.join(words)}"
    if policy == "depth":
        return "" if whole and value >= 1 else "a whole number of messages, at least 1"
    if policy in _DURATIONS and not (whole and (value == 0 or value >= _SHORTEST_NS)):
        return f"nanoseconds, a whole number from {_SHORTEST_NS} (1 ms), or 0 for none"
    return ""
