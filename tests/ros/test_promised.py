"""Laws of what is promised of the node's topics: it is what the node itself then makes."""

from __future__ import annotations

from contextlib import closing

from rclpy.lifecycle import TransitionCallbackReturn

from canvas_robot.resources import config_path
from canvas_robot.ros.listener import Listener
from canvas_robot.ros.parameters import declare_parameters, read_settings
from canvas_robot.ros.promised import Promised
from canvas_robot.ros.qos import policy_value, untaken_overrides
from canvas_robot.signals import load_binding
from tests.ros.conftest import TIMEOUT_S

POLICIES = ("reliability", "durability", "deadline", "liveliness", "liveliness_lease_duration")
OF_ROS = {"/rosout", "/parameter_events", "/policy/transition_event"}
PARAMETERS = {
    "joint_output": True,
    "joint_positions": True,
    "estop_topic": "estop",
    "deadman_topic": "deadman",
    "teleop_topic": "hand",
    "qos_overrides./policy/target_pose.publisher.deadline": 100_000_000,
    "qos_overrides./estop.subscription.durability": "transient_local",
    "qos_overrides./estob.subscription.durability": "transient_local",
}


def test_what_is_promised_is_what_the_node_makes(start_policy, monitor, domain_id):
    node = start_policy(stand_in="constant", **PARAMETERS).node
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    with closing(Listener("looks", domain_id, PARAMETERS)) as listener:
        declare_parameters(listener.node)
        settings = read_settings(listener.node)
        binding = load_binding(config_path("bindings", "widowx.yaml"))
        promised = Promised(listener.node, "/policy", settings, binding)
        assert [line.split(":")[0] for line in untaken_overrides(listener.node)] == [
            "qos_overrides./estob.subscription.durability"
        ]
    graph = monitor.node

    def published() -> set[str]:
        names = graph.get_publisher_names_and_types_by_node("policy", "/")
        return {topic for topic, _ in names} - OF_ROS

    def is_policy(info) -> bool:
        return info.node_name == "policy"

    assert monitor.wait_for(
        lambda: "policy" in graph.get_node_names() and published() == set(promised.offered),
        TIMEOUT_S,
    ), published() ^ set(promised.offered)

    def of(profile) -> tuple:
        return tuple(policy_value(profile, policy) for policy in POLICIES)

    for topics, look in (
        ({t: [qos] for t, qos in promised.offered.items()}, graph.get_publishers_info_by_topic),
        (promised.requested, graph.get_subscriptions_info_by_topic),
    ):
        for topic, wanted in topics.items():

            def made(topic=topic, look=look) -> list[tuple]:
                return sorted(of(info.qos_profile) for info in look(topic) if is_policy(info))

            count = len(wanted)
            assert monitor.wait_for(lambda m=made, n=count: len(m()) == n, TIMEOUT_S), topic
            assert made() == sorted(map(of, wanted)), topic
