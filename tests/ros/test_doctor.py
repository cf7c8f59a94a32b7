"""Laws of the doctor: a good robot has no fault, and each thing that is wrong is named."""

from __future__ import annotations

import io

import msgspec
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.duration import Duration
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rich.console import Console
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool, Float64, Float64MultiArray, String
from std_srvs.srv import Trigger

from canvas_robot.policy.checkpoint_files import CheckpointError
from canvas_robot.resources import config_path
from canvas_robot.ros.doctor import Doctor, compared
from canvas_robot.ros.doctor_run import findings_table
from canvas_robot.ros.findings import Finding
from canvas_robot.ros.parameters import ParameterError
from canvas_robot.signals import BindingError, load_binding
from tests.ros import driver_messages
from tests.ros.conftest import JOINTS, RESET

WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))
LISTEN_S = 1.5


def scene(seed: int = 0, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """A picture with things in it."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((size[0] // 8, size[1] // 8, 1), np.uint8))


@pytest.fixture
def examine(robot, domain_id):
    """Listens and examines; findings by (level, subject)."""
    robot.picture = scene()

    def run(
        declared=WIDOWX, reference=None, name="policy", remap=(), **parameters
    ) -> dict[tuple[str, str], tuple[str, str]]:
        with Doctor(declared, name, domain_id, parameters, remap) as doctor:
            doctor.listen(LISTEN_S)
            findings = doctor.examine(reference)
        assert all(bool(f.remedy) == (f.level != "ok") for f in findings), findings
        return {(f.level, f.subject): (f.found, f.remedy) for f in findings}

    return run


def faults(found) -> dict[str, tuple[str, str]]:
    return {subject: text for (level, subject), text in found.items() if level == "fault"}


def test_a_good_robot_has_no_fault(examine):
    found = examine(reference=scene())
    assert not faults(found)
    assert ("ok", "measured pose") in found and ("ok", "camera's view") in found
    assert ("warning", "/policy/target_pose") in found  # no driver listens
    assert not [subject for _, subject in found if "trajectory" in subject]


def test_a_robot_is_looked_at_where_the_node_is_remapped_to(examine, robot):
    robot.joints = robot.node.create_publisher(JointState, "/arm/joint_states", 10)
    driver = robot.node.create_subscription(PoseStamped, "/arm/pose", lambda msg: None, 1)
    found = examine(remap=("joint_states:=/arm/joint_states", "~/target_pose:=/arm/pose"))
    assert not faults(found)
    assert ("ok", "/arm/joint_states") in found and ("ok", "/arm/pose") in found
    robot.node.destroy_subscription(driver)


def test_a_camera_that_is_silent_is_named_with_where_its_type_is_published(examine, robot, monitor):
    robot.picture = None
    robot.node.destroy_publisher(robot.images)
    from sensor_msgs.msg import Image

    elsewhere = monitor.node.create_publisher(Image, "blue/image_raw", 1)
    found = faults(examine())
    assert found["/camera/image_raw"] == (
        "nobody publishes",
        "/blue/image_raw carries that type: name it in the binding, or remap the node "
        "(-r /camera/image_raw:=/blue/image_raw)",
    )
    assert found["signal image"][0] == "no sample came"
    monitor.node.destroy_publisher(elsewhere)


def test_a_topic_of_another_type_is_named(examine, robot, monitor):
    robot.picture = None
    robot.node.destroy_publisher(robot.images)
    monitor.node.create_publisher(CompressedImage, "camera/image_raw", 1)
    found, _ = faults(examine())["/camera/image_raw"]
    assert found == "expected sensor_msgs/msg/Image, got sensor_msgs/msg/CompressedImage"


def test_a_missing_joint_and_a_strange_picture_are_named(examine, robot):
    robot.names, robot.positions = JOINTS[1:], RESET[1:]
    robot.picture = np.full((100, 100, 3), 90, np.uint8)
    found = faults(examine())
    assert "joints missing: waist" in found["signal state"][0]
    assert "got 100x100" in found["signal image"][0]
    assert found["measured pose"][0] == "unknown"


@pytest.mark.parametrize(
    ("offset_s", "words"), [(5.0, "ahead of the clock"), (-5.0, "expected at most 0.5 s")]
)
def test_clocks_that_differ_are_named(examine, robot, offset_s, words):
    robot.stamp = lambda now: now + round(offset_s * 1e9)
    found = faults(examine())
    for signal in ("signal image", "signal state"):
        assert words in found[signal][0] and "synchronise the clocks" in found[signal][1]


def test_a_black_picture_is_named(examine, robot):
    robot.picture = np.zeros((256, 256, 3), np.uint8)
    found, remedy = faults(examine())["signal image"]
    assert "the picture is black: mean 0.0 of 255" in found and remedy.startswith("take the lid")


def test_a_camera_that_was_moved_is_named(examine, robot):
    reference = scene()
    robot.picture = np.roll(reference, 40, axis=1)
    found, remedy = faults(examine(reference=reference))["camera's view"]
    assert "shifted by" in found and "bring the camera back" in remedy


def test_an_arm_outside_its_workspace_is_named(examine, robot):
    away = RESET.copy()
    away[0] = 2.5
    robot.positions = away
    assert "further outside the box" in faults(examine())["measured pose"][0]


def test_a_second_publisher_and_a_listener_that_cannot_hear_are_named(examine, robot, monitor):
    monitor.node.create_publisher(PoseStamped, "policy/target_pose", 1)
    robot.node.create_subscription(String, "policy/gripper", print, 1)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    from geometry_msgs.msg import TwistStamped

    monitor.node.create_subscription(TwistStamped, "policy/target_twist", print, latched)
    found = faults(examine())
    assert found["/policy/target_pose"][0] == "canvas_robot_monitor publishes it too"
    assert "it asks for durability transient_local" in found["/policy/target_twist"][0]
    assert "expects std_msgs/msg/String" in found["/policy/gripper"][0]


def test_a_publisher_that_does_not_offer_what_the_node_requests_is_named(examine):
    deadline = "qos_overrides./joint_states.subscription.deadline"
    found, remedy = faults(examine(**{deadline: 100_000_000}))["/joint_states"]
    assert found == (
        "/robot is not heard: it offers deadline none, the node asks for deadline 100000000 ns"
    )
    assert remedy == (
        f"set {deadline}: 0 in the parameters file, or let /robot offer deadline 100000000 ns"
    )


def test_who_asks_for_more_than_the_node_offers_is_named_with_what_to_set(examine, monitor):
    strict = QoSProfile(depth=1, deadline=Duration(nanoseconds=100_000_000))
    monitor.node.create_subscription(Float64, "policy/gripper", print, strict)
    found, remedy = faults(examine())["/policy/gripper"]
    assert found.endswith("it asks for deadline 100000000 ns, the node offers deadline none")
    deadline = "qos_overrides./policy/gripper.publisher.deadline"
    assert remedy.startswith(f"set {deadline}: 100000000 in the parameters file, or let ")


def test_who_asks_for_no_more_than_the_node_is_set_to_offer_hears_it(examine, monitor):
    strict = QoSProfile(depth=1, deadline=Duration(nanoseconds=100_000_000))
    monitor.node.create_subscription(Float64, "policy/gripper", print, strict)
    deadline = "qos_overrides./policy/gripper.publisher.deadline"
    assert ("ok", "/policy/gripper") in examine(**{deadline: 100_000_000})


def test_outputs_that_the_parameters_ask_for_are_looked_at(examine, monitor):
    monitor.node.create_subscription(Float64MultiArray, "policy/joint_positions", print, 1)
    found = examine(joint_output=True, joint_positions=True)
    assert ("warning", "/policy/joint_trajectory") in found
    assert ("warning", "/policy/gripper_trajectory") in found
    assert ("ok", "/policy/joint_positions") in found
    dry = examine(dry_run=True, joint_output=True)
    assert ("ok", "commands") in dry and not [s for _, s in dry if s.startswith("/policy")]


def test_drivers_that_are_not_there_or_others_are_named(examine, robot, monkeypatch):
    driver_messages.hide(monkeypatch)
    robot.node.create_service(Trigger, "left/servo_node/switch_command_type", print)
    asked = {"servo": "twist", "gripper_action": "/hand/gripper_cmd", "interbotix": "/wx250s"}
    found = examine(name="left/policy", **asked)
    expected = "expected moveit_msgs/srv/ServoCommandType, got std_srvs/srv/Trigger"
    wrong = faults(found)
    assert wrong["/left/servo_node/switch_command_type"] == (expected, "start MoveIt Servo")
    kind = "control_msgs/action/ParallelGripperCommand"
    assert wrong["/hand/gripper_cmd"][0] == f"nobody offers it ({kind})"
    for parameter, command in (
        ("gripper_action", "apt install ros-"),
        ("servo", "apt install ros-"),
        ("interbotix", "colcon build"),
    ):
        lacks, remedy = wrong[parameter]
        assert lacks.startswith("expected the messages of its driver") and command in remedy
    for service in ("get_robot_info", "set_motor_registers"):
        assert "robot_name:=wx250s" in wrong[f"/wx250s/{service}"][1]
    assert ("warning", "/wx250s/commands/joint_group") in found


def test_what_people_say_is_looked_for(examine, monitor):
    monitor.node.create_publisher(Bool, "deadman", 1)
    found = examine(estop_topic="estob", deadman_topic="deadman", teleop_topic="joint_states")
    assert found["warning", "estop_topic /estob"][0] == "nobody publishes"
    assert ("ok", "deadman_topic /deadman") in found
    expected = "expected geometry_msgs/msg/TwistStamped, got sensor_msgs/msg/JointState"
    assert faults(found)["teleop_topic /joint_states"][0] == expected


def test_who_stops_the_arm_by_less_than_the_node_asks_for_is_named_if_it_is_not_heard(
    examine, monitor
):
    """An emergency stop is heard whatever it offers."""
    for topic in ("estop", "deadman"):
        monitor.node.create_publisher(Bool, topic, qos_profile_sensor_data)
    found = examine(estop_topic="estop", deadman_topic="deadman")
    assert ("ok", "estop_topic /estop") in found
    told, remedy = faults(found)["deadman_topic /deadman"]
    assert "is not heard: it offers reliability best_effort, the node asks for" in told
    assert "qos_overrides./deadman.subscription.reliability: best_effort" in remedy


def test_a_node_in_a_namespace_is_looked_at_there(examine):
    found = faults(examine(name="/left/policy"))
    assert found["/left/camera/image_raw"][0] == "nobody publishes"
    assert "/camera/image_raw carries that type" in found["/left/camera/image_raw"][1]


def test_a_topic_that_several_publish_is_named_with_who_does(examine, monitor):
    monitor.node.create_publisher(JointState, "joint_states", 1)
    told, remedy = examine()["warning", "/joint_states"]
    assert told == "2 publish it: /canvas_robot_monitor, /robot"
    for words in ("stop all but one", "-r /joint_states:=/other", "lacks a joint"):
        assert words in remedy


@pytest.mark.parametrize("parameter", ["estop_topic", "deadman_topic"])
def test_two_that_say_whether_it_may_move_are_a_fault(parameter, examine, monitor):
    first = monitor.node.create_publisher(Bool, "button", 1)
    assert ("ok", f"{parameter} /button") in examine(**{parameter: "button"})
    second = monitor.node.create_publisher(Bool, "button", 1)
    told, remedy = faults(examine(**{parameter: "button"}))[f"{parameter} /button"]
    assert told == "2 publish it: /canvas_robot_monitor, /canvas_robot_monitor"
    assert remedy.startswith("let one node publish for all")
    assert first is not second


def test_a_message_without_a_stamp_is_told_what_it_lacks(examine, robot):
    robot.stamp = lambda now: 0
    found, remedy = faults(examine())["signal state"]
    assert "expected a stamp, got 0" in found and remedy.startswith(
        "let its driver set header.stamp, or "
    )


REFUSED = {
    "joint_output": ({"joint_output": True, "binding": "widowx_pose.yaml"}, "type joint_states"),
    "timeout": ({"execution": "receding"}, "decision_timeout: expected at least 0.8 s"),
    "steps": ({"execution": "receding", "execute_steps": 9}, "execute_steps: expected 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_configure_would_refuse_is_told_in_its_words(case, examine, start_policy, capfd):
    parameters, words = REFUSED[case]
    found, remedy = faults(examine(None, **parameters))["configure"]
    assert words in found and remedy
    node = start_policy(stand_in="constant", **parameters).node
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert f"Error: {found}" in capfd.readouterr().err


def test_a_checkpoint_is_looked_at_without_its_weights(domain_id):
    def look(**parameters) -> None:
        with Doctor(None, "policy", domain_id, {"checkpoint": "demo", **parameters}):
            pass

    look()
    with pytest.raises(CheckpointError, match=r"control rate 5\.0, asked to run with 7"):
        look(control_rate=7.0)
    with pytest.raises(CheckpointError, match="trained with signals"):
        look(binding="fetch_reach.yaml")
    with pytest.raises(CheckpointError, match=r"expected a folder with schema\.json"):
        look(checkpoint="/nowhere")


def test_all_that_configure_would_refuse_is_told(domain_id):
    robot = msgspec.structs.replace(WIDOWX.robot, reactions={"stoped": "hold"}, speed_limits=None)
    binding = msgspec.structs.replace(WIDOWX, robot=robot)
    parameters = {"execution": "receding", "qos_overrides./policy/grip.publisher.deadline": 0}
    with Doctor(binding, "policy", domain_id, parameters) as doctor:
        doctor.listen(0.1)
        lines = [(f.level, f.subject, f.found) for f in doctor.examine()]
    told = [found for level, subject, found in lines if subject == "configure"]
    for words in ("robot.reactions: expected", "expected speed_limits", "decision_timeout: "):
        assert any(words in found for found in told), told
    warned = "qos_overrides./policy/grip.publisher.deadline: no topic of the node takes it"
    assert ("warning", "parameters", warned) in [(a, b, c[: len(warned)]) for a, b, c in lines]


def test_parameters_are_read_as_the_node_reads_them(examine):
    found = examine(joint_ouput=True)
    assert found["warning", "parameters"][0] == "joint_ouput: no such parameter; joint_output?"
    for name, value in (("execution", "frist"), ("estop_topic", "e stop"), ("threads", "many")):
        with pytest.raises(ParameterError, match=name):
            examine(**{name: value})


def test_a_binding_without_limits_is_named_and_one_without_a_robot_refused(examine, domain_id):
    robot = msgspec.structs.replace(WIDOWX.robot, speed_limits=None)
    found = faults(examine(msgspec.structs.replace(WIDOWX, robot=robot)))
    assert "expected speed_limits" in found["configure"][0]
    unsafe = examine(msgspec.structs.replace(WIDOWX, robot=robot), unsafe=True)
    assert ("warning", "limits") in unsafe
    with pytest.raises(BindingError, match="expected a robot"):
        Doctor(msgspec.structs.replace(WIDOWX, robot=None), "policy", domain_id)


# ---------------------------------------------------------------- comparing views


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 100), st.integers(-25, 25), st.floats(0.5, 1.0))
def test_a_shift_is_measured_whatever_the_light(seed, shift, light):
    picture = scene(seed)
    moved = np.roll(picture, shift, axis=1)
    _, found = compared((moved * light).astype(np.uint8), picture)
    assert abs(found - abs(shift) / 256) < 0.02


def test_the_same_view_is_alike_in_other_sizes_and_light_and_another_is_not():
    same, shift = compared((scene(size=(480, 640)) * 0.6).astype(np.uint8), scene())
    assert same > 0.8 and shift < 0.01
    assert compared(scene(1), scene(2))[0] < 0.4
    assert compared(np.zeros((64, 64, 3), np.uint8), scene())[0] == 0.0


def test_on_a_terminal_of_80_columns_what_is_to_be_copied_is_whole():
    findings = [
        Finding("ok", "/camera/image_raw", "sensor_msgs/msg/CompressedImage"),
        Finding("fault", "deadman_topic /deadman", "best [effort]", "see docs/robot.md, [red]"),
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(findings_table(findings))
    told = console.export_text()
    for whole in (*(f.found for f in findings), "deadman_topic /deadman", findings[1].remedy):
        assert whole in told
