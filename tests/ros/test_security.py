"""Laws of the security policy: each node may say, hear and answer what it does, and no more."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from rclpy.lifecycle import TransitionCallbackReturn

from canvas_robot.resources import config_path
from canvas_robot.ros.processes import NodeProcesses, node_environment
from tests.ros import driver_messages
from tests.ros.conftest import TIMEOUT_S

# Only with a parameter set otherwise; the graph of a node with others does not show them.
SOMETIMES = {
    "camera/image_raw/compressed",
    "clock",
    "robot_description",
    "policy/proposed",
    "wx250s/commands/joint_group",
    "wx250s/commands/joint_single",
}


ACTION = "policy/run_policy"
# What an action comes to for the node that carries it out.
OF_ACTIONS = {
    ("topic", "publish"): ("feedback", "status"),
    ("service", "reply"): ("send_goal", "cancel_goal", "get_result"),
}


def allowed(node: str, kind: str, access: str) -> set[str]:
    """Names that the shipped policy allows a node, such as ("policy", "topic", "publish")."""
    root = ElementTree.parse(config_path("ros", "security.xml")).getroot()
    (profile,) = root.findall(f".//profile[@node='{node}']")

    def names(of: str, said: str) -> set[str]:
        groups = [group for group in profile if group.get(said) == "ALLOW"]
        return {item.text for group in groups for item in group.iter(of)}

    parts = OF_ACTIONS.get((kind, access), ())
    actions = {f"{name}/_action/{part}" for name in names("action", "execute") for part in parts}
    return names(kind, access) | actions


@pytest.fixture
def sometimes(tmp_path):
    """What the policy may allow beyond what is seen: the action too, where its messages cannot be
    made here.
    """
    interfaces = (driver_messages.INTERFACES,)
    if not driver_messages.missing(interfaces) or not driver_messages.why_not():
        driver_messages.add_to_path(tmp_path, interfaces)
        return SOMETIMES
    return SOMETIMES | {
        f"{ACTION}/_action/{part}" for parts in OF_ACTIONS.values() for part in parts
    }


def graph(node, name: str) -> dict[tuple[str, str], set[str]]:
    """What a live node publishes, hears and answers."""
    found = {
        ("topic", "publish"): node.get_publisher_names_and_types_by_node(name, "/"),
        ("topic", "subscribe"): node.get_subscriber_names_and_types_by_node(name, "/"),
        ("service", "reply"): node.get_service_names_and_types_by_node(name, "/"),
    }
    return {key: {topic.lstrip("/") for topic, _ in entries} for key, entries in found.items()}


def differences(node, name: str, sometimes: set[str]) -> list[str]:
    """What the policy lacks for a live node, and what it allows beyond that."""
    if name not in node.get_node_names():
        return ["the node is not there"]
    differing = []
    for (kind, access), names in graph(node, name).items():
        may = allowed(name, kind, access)
        differing += [f"not allowed: {access} {n}" for n in sorted(names - may)]
        differing += [f"not needed: {access} {n}" for n in sorted(may - names - sometimes)]
    return differing


def test_the_policy_node_may_do_what_it_does(start_policy, monitor, sometimes):
    topics = {"estop_topic": "estop", "deadman_topic": "deadman"}
    node = start_policy(joint_output=True, joint_positions=True, **topics).node
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    monitor.wait_for(lambda: not differences(monitor.node, "policy", sometimes), TIMEOUT_S)
    assert not differences(monitor.node, "policy", sometimes)


@pytest.mark.timeout(120)
def test_the_simulated_robot_may_do_what_it_does(monitor, domain_id):
    with NodeProcesses(node_environment(domain_id)) as nodes:
        nodes.start("sim_robot")
        monitor.wait_for(lambda: not differences(monitor.node, "sim_robot", SOMETIMES), TIMEOUT_S)
        assert not differences(monitor.node, "sim_robot", SOMETIMES), nodes.log("sim_robot")
