"""Laws of the security policy: each node may say, hear and answer what it does, and no more."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from rclpy.lifecycle import TransitionCallbackReturn

from canvas_robot.resources import config_path
from canvas_robot.ros.processes import NodeProcesses, node_environment
from tests.ros.conftest import TIMEOUT_S

# Only with a parameter set otherwise; the graph of a node with others does not show them.
SOMETIMES = {"camera/image_raw/compressed", "clock", "policy/proposed"}


def allowed(node: str, kind: str, access: str) -> set[str]:
    """Names that the shipped policy allows a node, such as ("policy", "topic", "publish")."""
    root = ElementTree.parse(config_path("ros", "security.xml")).getroot()
    (profile,) = root.findall(f".//profile[@node='{node}']")
    groups = [group for group in profile if group.get(access) == "ALLOW"]
    return {item.text for group in groups for item in group.iter(kind)}


def graph(node, name: str) -> dict[tuple[str, str], set[str]]:
    """What a live node publishes, hears and answers."""
    found = {
        ("topic", "publish"): node.get_publisher_names_and_types_by_node(name, "/"),
        ("topic", "subscribe"): node.get_subscriber_names_and_types_by_node(name, "/"),
        ("service", "reply"): node.get_service_names_and_types_by_node(name, "/"),
    }
    return {key: {topic.lstrip("/") for topic, _ in entries} for key, entries in found.items()}


def assert_matches(found, name: str) -> None:
    for (kind, access), names in found.items():
        may = allowed(name, kind, access)
        assert names <= may, (access, names - may)
        assert may - names <= SOMETIMES, (access, may - names)


def test_the_policy_node_may_do_what_it_does(start_policy, monitor):
    node = start_policy(estop_topic="estop", deadman_topic="deadman").node
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS

    def complete() -> bool:
        return "joint_states" in graph(monitor.node, "policy")["topic", "subscribe"]

    assert monitor.wait_for(complete, TIMEOUT_S)
    assert_matches(graph(monitor.node, "policy"), "policy")


@pytest.mark.timeout(120)
def test_the_simulated_robot_may_do_what_it_does(monitor, domain_id):
    with NodeProcesses(node_environment(domain_id)) as nodes:
        nodes.start("sim_robot")
        assert monitor.wait_for(
            lambda: any(name == "sim_robot" for name in monitor.node.get_node_names()), TIMEOUT_S
        ), nodes.log("sim_robot")

        def complete() -> bool:
            found = graph(monitor.node, "sim_robot")
            return "sim_robot/next_episode" in found["service", "reply"]

        assert monitor.wait_for(complete, TIMEOUT_S)
        assert_matches(graph(monitor.node, "sim_robot"), "sim_robot")
