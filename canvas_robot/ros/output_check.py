"""OutputCheck: whether somebody hears what the policy node will say, and nobody else says it too.

It looks at the graph; nothing is published and no service called.
"""

from __future__ import annotations

from typing import final

from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.topic_endpoint_info import TopicEndpointInfo
from std_msgs.msg import Bool, Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from canvas_robot.ros.drivers import SERVO_SERVICE, missing_packages
from canvas_robot.ros.findings import Finding, full_name, type_name
from canvas_robot.ros.outputs import COMMAND_QOS
from canvas_robot.ros.parameters import Settings
from canvas_robot.ros.promised import Promised
from canvas_robot.ros.qos import QOS_PREFIX, policy_value, told_policy, unmet

COMMANDS = {"target_pose": PoseStamped, "target_twist": TwistStamped, "gripper": Float64}
TRAJECTORIES = {"joint_trajectory": JointTrajectory, "gripper_trajectory": JointTrajectory}
POSITIONS = {"joint_positions": Float64MultiArray, "gripper_position": Float64MultiArray}


@final
class OutputCheck:
    """The outputs of one policy node.

    Args:
        node: looks at the graph.
        name: of the policy node, absolute, in whose namespace `node` is.
        settings: of the policy node, which name its outputs.
        promised: what it will offer.
    """

    def __init__(self, node: Node, name: str, settings: Settings, promised: Promised) -> None:
        self._node, self._name, self._settings = node, name, settings
        self._promised = promised

    def findings(self) -> list[Finding]:
        """A line for each topic, and for each service and action of a driver."""
        settings = self._settings
        findings = [
            Finding("fault", missing.parameter, missing.found, missing.remedy)
            for missing in missing_packages(settings)
        ]
        if settings.dry_run:
            told = f"dry_run: poses go to {self._name}/proposed, and no arm is commanded"
            return [*findings, Finding("ok", "commands", told)]
        findings += [
            self._said(parameter, topic, type_name(kind))
            for parameter, topic, kind in (
                ("estop_topic", settings.estop_topic, Bool),
                ("deadman_topic", settings.deadman_topic, Bool),
                ("teleop_topic", settings.teleop_topic, TwistStamped),
            )
            if topic
        ]
        topics = dict(COMMANDS)
        if settings.joint_output:
            topics |= TRAJECTORIES
        if settings.joint_positions:
            topics |= POSITIONS
        for topic, kind in topics.items():
            findings.append(self._heard(f"{self._name}/{topic}", type_name(kind)))
        return findings + self._drivers()

    def _drivers(self) -> list[Finding]:
        settings, findings = self._settings, []
        if settings.servo:
            kind = "moveit_msgs/srv/ServoCommandType"
            findings.append(self._served(SERVO_SERVICE, kind, "start MoveIt Servo"))
        if action := settings.gripper_action:
            kind = "control_msgs/action/ParallelGripperCommand"
            remedy = "start the gripper's controller, of that type"
            goal = (f"{action}/_action/send_goal", f"{kind}_SendGoal")
            findings.append(self._served(*goal, remedy))
        if robot := settings.interbotix:
            for topic, kind in (("group", "JointGroupCommand"), ("single", "JointSingleCommand")):
                kind = f"interbotix_xs_msgs/msg/{kind}"
                findings.append(self._heard(f"{robot}/commands/joint_{topic}", kind))
            services = {"get_robot_info": "RobotInfo", "set_motor_registers": "RegisterValues"}
            for service, kind in services.items():
                kind = f"interbotix_xs_msgs/srv/{kind}"
                remedy = f"start Interbotix's driver with robot_name:={robot.strip('/')}"
                findings.append(self._served(f"{robot}/{service}", kind, remedy))
        return findings

    def _said(self, parameter: str, topic: str, kind: str) -> Finding:
        """Of what people say: a misspelt emergency stop must not be found out when it is needed."""
        full = self._promised.full(topic)
        publishers = self._node.get_publishers_info_by_topic(full)
        found = {info.topic_type for info in publishers}
        subject, asked = f"{parameter} {full}", self._promised.requested[full]
        for publisher in publishers:
            lacks = [unmet(publisher.qos_profile, one) for one in asked]
            if kind in found and all(lacks):
                told = not_heard(full, publisher, asked[0], lacks[0][0])
                return Finding("fault", subject, *told)
        sayers = [full_name(info) for info in publishers if info.topic_type == kind]
        if len(sayers) > 1:
            told = f"{len(sayers)} publish it: {', '.join(sorted(sayers))}"
            remedy = "let one node publish for all: whose word came cannot be told apart"
            return Finding("fault", subject, told, remedy)
        if kind in found:
            return Finding("ok", subject, kind)
        told = f"expected {kind}, got {', '.join(sorted(found))}" if found else "nobody publishes"
        remedy = "start what publishes it, or mend the parameter"
        return Finding("fault" if found else "warning", subject, told, remedy)

    def _heard(self, topic: str, kind: str) -> Finding:
        full = self._promised.full(topic)
        publishers = self._node.get_publishers_info_by_topic(full)
        others = [p.node_name for p in publishers if p.node_name != self._name.split("/")[-1]]
        if others:
            remedy = "stop it, or remap this node's topic"
            return Finding("fault", full, f"{', '.join(others)} publishes it too", remedy)
        hearers = self._node.get_subscriptions_info_by_topic(full)
        if not hearers:
            remedy = "start the arm's driver, if it is to obey this one"
            return Finding("warning", full, "nobody listens", remedy)
        for hearer in hearers:
            if hearer.topic_type != kind:
                found = f"{hearer.node_name} expects {hearer.topic_type}, it is {kind}"
                return Finding("fault", full, found, "remap it to another topic")
            offered = self._promised.offered.get(full, COMMAND_QOS)
            if less := unmet(offered, hearer.qos_profile):
                return self._unheard(full, hearer, less[0], offered)
        return Finding("ok", full, f"heard by {', '.join(h.node_name for h in hearers)}")

    def _unheard(
        self, topic: str, hearer: TopicEndpointInfo, policy: str, offered: QoSProfile
    ) -> Finding:
        """One who hears nothing, as it asks for more than the node will offer."""
        who, asked = full_name(hearer), told_policy(hearer.qos_profile, policy)
        less = told_policy(offered, policy)
        found = f"{who} hears nothing: it asks for {asked}, the node offers {less}"
        remedy = f"let {who} ask for {less}"
        key = f"{QOS_PREFIX}.{topic}.publisher.{policy}"
        if self._node.has_parameter(key):
            value = policy_value(hearer.qos_profile, policy)
            remedy = f"set {key}: {value} in the parameters file, or {remedy}"
        return Finding("fault", topic, found, remedy)

    def _served(self, service: str, kind: str, remedy: str) -> Finding:
        full = self._promised.full(service)
        found = dict(self._node.get_service_names_and_types()).get(full, [])
        subject, wanted = full.removesuffix("/_action/send_goal"), kind.removesuffix("_SendGoal")
        if kind in found:
            return Finding("ok", subject, wanted)
        if found:
            there = ", ".join(one.removesuffix("_SendGoal") for one in found)
            return Finding("fault", subject, f"expected {wanted}, got {there}", remedy)
        return Finding("fault", subject, f"nobody offers it ({wanted})", remedy)


def not_heard(
    topic: str, publisher: TopicEndpointInfo, requested: QoSProfile, policy: str
) -> tuple[str, str]:
    """That the node will not hear a publisher, which offers less of a policy; and what mends it."""
    offered, who = publisher.qos_profile, full_name(publisher)
    wanted = told_policy(requested, policy)
    found = (
        f"{who} is not heard: it offers {told_policy(offered, policy)}, the node asks for {wanted}"
    )
    key = f"{QOS_PREFIX}.{topic}.subscription.{policy}"
    remedy = f"set {key}: {policy_value(offered, policy)} in the parameters file, or let {who} "
    return found, f"{remedy}offer {wanted}"
