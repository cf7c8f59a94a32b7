"""Laws of the policy node over real DDS: when it commands, what it commands, and when it holds."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from canvas_robot.kinematics import Arm
from canvas_robot.resources import config_path
from canvas_robot.ros import running
from canvas_robot.ros.canvas_picture import HEIGHT, WIDTH
from canvas_robot.ros.guards import DEADMAN_TIMEOUT_S
from canvas_robot.ros.images import image_from_msg
from canvas_robot.ros.messages import (
    chunk_from_msg,
    pose_from_msg,
    stamp_from_ns,
    stamp_ns,
    trajectory_from_msg,
    twist_from_msg,
    values_from_msg,
)
from canvas_robot.ros.parameters import unknown_parameters
from canvas_robot.ros.rehearsal import Rehearsal
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding
from canvas_robot.signals.pose import bridge_state_from_pose
from tests.ros.conftest import JOINTS, PATIENCE_S, RESET, TIMEOUT_S, received

LIMITS = load_binding(config_path("bindings", "widowx.yaml")).robot
SECOND_NS = 1_000_000_000
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

CONSTANT = {  # a node that decides no motion, at once
    "autostart": True,
    "stand_in": "constant",
    "instruction": "touch it",
    "decision_timeout": PATIENCE_S,
}


def held(monitor, text: str) -> bool:
    """Waits for a hold whose message holds `text`."""
    return monitor.wait_for(lambda: any(text in s.message for s in monitor.statuses), TIMEOUT_S)


def commands_again(monitor) -> bool:
    before = len(monitor.statuses)
    return monitor.wait_for(
        lambda: sum(s.active for s in monitor.statuses[before:]) >= 2, TIMEOUT_S
    )


def called(monitor, service: str) -> Trigger.Response:
    """The answer of a service without arguments."""
    client = monitor.node.create_client(Trigger, service)
    assert monitor.wait_for(client.service_is_ready, TIMEOUT_S)
    future = client.call_async(Trigger.Request())
    assert monitor.wait_for(future.done, TIMEOUT_S)
    return future.result()


def measured_pose():
    return Arm.load("wx250s").forward(RESET[:6])


def test_commands_are_finite_within_limits_and_in_the_base_frame(active_policy, monitor):
    assert monitor.wait_for(lambda: len(monitor.poses) >= 5, TIMEOUT_S)
    previous, stamp = bridge_state_from_pose(measured_pose(), 0.0)[:6], 0
    for msg in monitor.poses:
        state = bridge_state_from_pose(pose_from_msg(msg), 0.0)[:6]
        assert msg.header.frame_id == "wx250s/base_link" and stamp_ns(msg.header.stamp) > stamp
        stamp = stamp_ns(msg.header.stamp)
        assert np.isfinite(state).all()
        assert (np.array(LIMITS.box_low) - 1e-6 <= state[:3]).all()
        assert (state[:3] <= np.array(LIMITS.box_high) + 1e-6).all()
        assert (np.abs(state[:3] - previous[:3]) <= np.array(LIMITS.step_limits[:3]) + 1e-6).all()
        previous = state
    assert all(0.0 <= gripper <= 1.0 for gripper in monitor.grippers)


def test_each_tick_adds_its_delta_to_the_previous_target(active_policy, monitor):
    assert monitor.wait_for(lambda: sum(s.active for s in monitor.statuses) >= 5, TIMEOUT_S)
    active = [s.values for s in monitor.statuses if s.active]
    assert [v["tick"] for v in active] == list(range(len(active)))
    target = measured_pose().position
    for values in active:
        target = np.clip(
            target + np.array(values["action_chunk"][0][:3]), LIMITS.box_low, LIMITS.box_high
        )
        np.testing.assert_allclose(values["target"], target, atol=1e-6)


@pytest.mark.parametrize("fails", [False, True])
def test_decisions_are_rehearsed_before_they_come_and_come_whatever_becomes_of_that(
    active_policy, monitor, monkeypatch, fails
):
    running, told, rehearsed = active_policy.node._running, [], []
    run = Rehearsal.run

    def spied(rehearsal, measured, now, is_over) -> None:
        rehearsed.append(now)
        run(rehearsal, measured, now, is_over)
        if fails:
            raise RuntimeError("on purpose")

    monkeypatch.setattr(Rehearsal, "run", spied)
    monkeypatch.setattr(running, "_warn", told.append)
    before = sum(s.active for s in monitor.statuses)
    assert monitor.wait_for(
        lambda: len(rehearsed) >= 3 and sum(s.active for s in monitor.statuses) >= before + 3,
        TIMEOUT_S,
    )
    assert all(("no rehearsal of a decision: RuntimeError: on purpose" in t) for t in told)
    assert bool(told) == fails


def test_command_topics_are_reliable_and_volatile(active_policy, monitor):
    for topic in ("/policy/target_pose", "/policy/target_twist", "/policy/gripper"):
        (info,) = monitor.node.get_publishers_info_by_topic(topic)
        assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert info.qos_profile.durability == DurabilityPolicy.VOLATILE


def test_covering_the_camera_changes_the_action(active_policy, robot, monitor):
    seen = [s.values["action_chunk"] for s in monitor.statuses if s.active][-1]
    robot.picture = np.full((256, 256, 3), 12, np.uint8)
    assert monitor.wait_for(
        lambda: any(s.active and s.values["action_chunk"] != seen for s in monitor.statuses),
        TIMEOUT_S,
    )


def test_a_camera_that_stops_holds_once_at_the_measured_pose_and_resumes(
    active_policy, robot, monitor
):
    before, picture, robot.picture = len(monitor.statuses), robot.picture, None

    def holds() -> list:
        return [s.values for s in monitor.statuses[before:] if not s.active]

    assert monitor.wait_for(lambda: len(holds()) >= 4, TIMEOUT_S)
    assert held(monitor, "signal 'image': newest sample is")
    first, *others = holds()
    np.testing.assert_allclose(first["target"], measured_pose().position, atol=1e-6)
    assert first["command_stamp_ns"] > 0 and not any(v["command_stamp_ns"] for v in others)
    last = monitor.poses[-1]
    np.testing.assert_allclose(pose_from_msg(last).position, measured_pose().position, atol=1e-6)
    assert stamp_ns(last.header.stamp) == first["command_stamp_ns"]
    robot.picture = picture
    assert commands_again(monitor)


def test_without_newer_pictures_a_decision_is_followed_until_its_timeout(
    start_policy, robot, monitor
):
    """Then one hold at the measured pose, no speed, and silence."""
    twists = []
    monitor.node.create_subscription(TwistStamped, "policy/target_twist", twists.append, 100)
    start_policy(autostart=True, instruction="touch the red cube", decision_timeout=1.0)
    assert monitor.wait_for(lambda: sum(s.active for s in monitor.statuses) >= 2, TIMEOUT_S)
    robot.picture = None
    assert held(monitor, "signal 'image': newest sample is")
    assert not monitor.wait_for(lambda: monitor.statuses[-1].active, 1.0)
    image_ns = max(motion["image_stamp_ns"] for motion in monitor.motions)
    ages = [m["command_stamp_ns"] - m["image_stamp_ns"] for m in monitor.motions]
    assert 0 < min(ages) and max(ages) <= 1.1 * SECOND_NS
    last = monitor.poses[-1]
    np.testing.assert_allclose(pose_from_msg(last).position, measured_pose().position, atol=1e-6)
    assert stamp_ns(last.header.stamp) - image_ns <= 1.3 * SECOND_NS
    linear, angular = twist_from_msg(twists[-1])
    assert not linear.any() and not angular.any()


def test_between_decisions_commands_come_at_their_own_rate_and_say_whose_they_are(
    active_policy, monitor
):
    def span() -> float:
        return monitor.poses[-1].header.stamp.sec - monitor.poses[0].header.stamp.sec

    monitor.poses.clear()
    assert monitor.wait_for(lambda: monitor.poses and span() >= 3, TIMEOUT_S)
    decisions = {s.values["index"]: s.values for s in monitor.statuses if s.active}
    assert len(monitor.poses) > 3 * len(decisions)
    owned = [motion for motion in monitor.motions if motion["decision"] in decisions]
    assert len(owned) > 3 * len(decisions)
    for motion in owned:
        decision = decisions[motion["decision"]]
        assert motion["image_stamp_ns"] == decision["image_stamp_ns"]
        assert motion["image_stamp_ns"] < motion["computed_ns"] <= motion["command_stamp_ns"]


def test_every_decision_tells_its_whole_chunk(active_policy, monitor):
    told = []
    monitor.node.create_subscription(Float64MultiArray, "policy/action_chunk", told.append, 10)
    assert monitor.wait_for(lambda: len(told) >= 3, TIMEOUT_S)
    decided = [s.values["action_chunk"] for s in monitor.statuses if s.active]
    assert chunk_from_msg(told[0]).tolist() in decided


def test_diagnostics_say_how_each_signal_comes_in(active_policy, robot, monitor):
    told = {}

    def hear(msg: DiagnosticArray) -> None:
        told.update({status.name: status for status in msg.status})

    monitor.node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)

    def level(name: str) -> bytes | None:
        return told[name].level if name in told else None

    image, state = "policy: input image", "policy: input state"
    assert monitor.wait_for(lambda: level(image) == DiagnosticStatus.OK, TIMEOUT_S)
    told.clear()
    assert monitor.wait_for(lambda: level(state) == DiagnosticStatus.OK, TIMEOUT_S)
    assert 1.0 < values_from_msg(told[state])["Actual frequency (Hz)"] < 60.0
    robot.picture = None
    assert monitor.wait_for(lambda: level(image) == DiagnosticStatus.STALE, TIMEOUT_S)
    robot.positions = np.append(RESET[:6], np.nan)
    assert monitor.wait_for(lambda: level(state) == DiagnosticStatus.ERROR, TIMEOUT_S)
    assert "left_finger=nan" in told[state].message
    assert level("policy: control loop") == DiagnosticStatus.WARN
    assert "holding: " in told["policy: control loop"].message


@pytest.mark.parametrize("way", ["service", "topic", "pulse", "best effort"])
def test_an_emergency_stop_holds_until_start_is_called(start_policy, robot, monitor, way):
    start_policy(
        autostart=True,
        instruction="touch the red cube",
        estop_topic="estop",
        decision_timeout=PATIENCE_S,
    )
    assert monitor.wait_for(lambda: any(s.active for s in monitor.statuses), TIMEOUT_S)
    if way == "service":
        assert called(monitor, "policy/estop").success
    else:
        quality = {"topic": LATCHED, "pulse": 10, "best effort": BEST_EFFORT}[way]
        button = monitor.node.create_publisher(Bool, "estop", quality)
        assert monitor.wait_for(lambda: button.get_subscription_count() > 0, TIMEOUT_S)
        for pressed in (True, False) if way == "pulse" else (True,):
            button.publish(Bool(data=pressed))
    assert held(monitor, "emergency stop")
    monitor.statuses.clear()
    assert not monitor.wait_for(lambda: any(s.active for s in monitor.statuses), 1.0)
    if way in ("topic", "best effort"):
        answer = called(monitor, "policy/start")
        assert not answer.success and "release the emergency stop" in answer.message
        button.publish(Bool(data=False))
    assert monitor.wait_for(lambda: called(monitor, "policy/start").success, TIMEOUT_S)
    assert commands_again(monitor)


def test_no_cleanup_lets_go_of_an_emergency_stop(start_policy, robot, monitor):
    node = start_policy(**CONSTANT, estop_topic="estop").node
    assert commands_again(monitor)
    button = monitor.node.create_publisher(Bool, "estop", 10)
    assert monitor.wait_for(lambda: button.get_subscription_count() > 0, TIMEOUT_S)
    button.publish(Bool(data=True))
    assert held(monitor, "emergency stop")
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        monitor.statuses.clear()
        assert getattr(node, f"trigger_{transition}")() == TransitionCallbackReturn.SUCCESS
    assert held(monitor, "emergency stop")
    assert not any(s.active for s in monitor.statuses)
    assert "release the emergency stop" in called(monitor, "policy/start").message
    assert monitor.wait_for(lambda: button.get_subscription_count() > 0, TIMEOUT_S)
    button.publish(Bool(data=False))
    assert monitor.wait_for(lambda: called(monitor, "policy/start").success, TIMEOUT_S)
    assert commands_again(monitor)


def test_what_was_said_before_the_node_was_kept_waiting_moves_nothing(
    start_policy, robot, monitor, capfd
):
    deadman = monitor.node.create_publisher(Bool, "deadman", 1)
    hand = monitor.node.create_publisher(TwistStamped, "teleop", 1)
    policy = start_policy(**CONSTANT, deadman_topic="deadman", teleop_topic="teleop")
    assert held(monitor, "hold the deadman switch")
    for publisher in (deadman, hand):
        assert monitor.wait_for(lambda p=publisher: p.get_subscription_count() > 0, TIMEOUT_S)

    def be_kept() -> None:
        hand.publish(TwistStamped())
        deadman.publish(Bool(data=True))
        time.sleep(1.2 * DEADMAN_TIMEOUT_S)

    monitor.statuses.clear()
    policy._do(be_kept)
    assert held(monitor, "it said true 0.")
    assert "teleoperation refused: TwistStamped: expected speeds of now" in capfd.readouterr().err
    assert {s.values["reason"] for s in monitor.statuses} == {"deadman_released"}
    assert not monitor.poses


def test_stop_holds_and_start_goes_on(active_policy, monitor):
    assert called(monitor, "policy/stop").success
    assert held(monitor, "~/start goes on")
    poses = len(monitor.poses)
    assert called(monitor, "policy/start").success
    assert commands_again(monitor)
    assert len(monitor.poses) > poses


def test_the_arm_moves_only_while_the_deadman_switch_is_held(start_policy, robot, monitor):
    deadman = monitor.node.create_publisher(Bool, "deadman", 1)
    start_policy(
        autostart=True,
        instruction="touch the red cube",
        deadman_topic="deadman",
        decision_timeout=PATIENCE_S,
    )
    assert held(monitor, "hold the deadman switch")
    assert not monitor.poses

    def moves() -> bool:
        deadman.publish(Bool(data=True))
        return sum(s.active for s in monitor.statuses) >= 2

    assert monitor.wait_for(moves, TIMEOUT_S)
    monitor.statuses.clear()
    assert held(monitor, "has not said true for 0.5 s")


def test_a_deadman_switch_that_was_released_for_a_moment_stops_the_arm(
    start_policy, robot, monitor
):
    deadman = monitor.node.create_publisher(Bool, "deadman", 10)
    start_policy(**CONSTANT, deadman_topic="deadman")

    def moves() -> bool:
        deadman.publish(Bool(data=True))
        return sum(s.active for s in monitor.statuses) >= 2

    assert monitor.wait_for(moves, TIMEOUT_S)
    monitor.statuses.clear()
    deadman.publish(Bool(data=False))
    deadman.publish(Bool(data=True))
    assert held(monitor, "deadman says false; hold the deadman switch")
    monitor.statuses.clear()
    assert monitor.wait_for(moves, TIMEOUT_S)


@pytest.mark.parametrize("seconds", [-2.0, 2.0])
def test_speeds_that_are_stamped_long_before_or_after_now_lead_nothing(
    start_policy, robot, monitor, capfd, seconds
):
    start_policy(**CONSTANT, teleop_topic="teleop")
    assert commands_again(monitor)
    hand, said = monitor.node.create_publisher(TwistStamped, "teleop", 1), ""
    msg = TwistStamped()
    msg.twist.linear.z = 0.05

    def refused() -> bool:
        nonlocal said
        stamp = monitor.node.get_clock().now().nanoseconds + round(seconds * 1e9)
        msg.header.stamp = stamp_from_ns(stamp)
        hand.publish(msg)
        said += capfd.readouterr().err
        return "teleoperation refused: TwistStamped: expected speeds of now" in said

    assert monitor.wait_for(refused, TIMEOUT_S)
    assert not any(s.values["reason"] == "teleoperated" for s in monitor.statuses)
    msg.header.stamp = stamp_from_ns(0)  # of who sets none

    def led() -> bool:
        hand.publish(msg)
        return any(s.values["reason"] == "teleoperated" for s in monitor.statuses)

    assert monitor.wait_for(led, TIMEOUT_S)


def test_a_second_publisher_of_a_command_topic_holds_until_it_is_gone(active_policy, monitor):
    rival = monitor.node.create_publisher(PoseStamped, "policy/target_pose", 1)
    assert held(monitor, "somebody else publishes /policy/target_pose")
    monitor.node.destroy_publisher(rival)
    assert commands_again(monitor)


def test_joints_lead_where_the_poses_do(start_policy, robot, monitor):
    """Of each stamp the joints' pose is the commanded one, and the first is near the measured."""
    arm, told, fingers = Arm.load("wx250s"), [], []
    node = monitor.node
    node.create_subscription(JointTrajectory, "policy/joint_trajectory", told.append, 100)
    node.create_subscription(JointTrajectory, "policy/gripper_trajectory", fingers.append, 100)
    start_policy(
        autostart=True,
        instruction="touch the red cube",
        joint_output=True,
        decision_timeout=PATIENCE_S,
    )
    assert monitor.wait_for(lambda: len(told) >= 30 and fingers, TIMEOUT_S)
    poses = {stamp_ns(msg.header.stamp): pose_from_msg(msg) for msg in monitor.poses}
    both = [msg for msg in told if stamp_ns(msg.header.stamp) in poses]
    assert len(both) >= 10
    for msg in both:
        names, joints, seconds = trajectory_from_msg(msg)
        assert names == JOINTS[:6] and 0 < seconds <= 0.1
        wanted = poses[stamp_ns(msg.header.stamp)]
        np.testing.assert_allclose(arm.forward(joints).position, wanted.position, atol=2e-4)
    names, finger, _ = trajectory_from_msg(fingers[0])
    assert names == ("left_finger",) and 0.0 < finger[0] < 0.04


@pytest.mark.parametrize(
    "wrong",
    [
        {"binding": "widowx_pose.yaml", "joint_output": True},  # it measures no joints
        {"estop_topic": "not a topic!"},
        {"deadman_topic": "1/x"},
        {"execution": "second"},
        {"execution": "receding"},  # its chunk outlasts decision_timeout
    ],
    ids=str,
)
def test_a_configure_that_fails_half_way_leaves_nothing_behind(start_policy, monitor, wrong):
    good = {"binding": "", "joint_output": False, "execution": "first"}
    node = start_policy(stand_in="constant", **wrong).node
    for _ in range(2):
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    node.set_parameters([Parameter(name, value=good.get(name, "")) for name in wrong])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert not [p.topic_name for p in node.publishers if "policy/" in p.topic_name]


def test_a_dry_run_only_proposes(start_policy, robot, monitor):
    proposed = []
    monitor.node.create_subscription(PoseStamped, "policy/proposed", proposed.append, 100)
    start_policy(
        autostart=True,
        instruction="touch the red cube",
        dry_run=True,
        decision_timeout=PATIENCE_S,
    )
    assert monitor.wait_for(lambda: len(proposed) >= 10, TIMEOUT_S)
    for topic in ("target_pose", "target_twist", "gripper"):
        assert monitor.node.count_publishers(f"/policy/{topic}") == 0


def test_an_arm_without_limits_of_motion_is_not_moved_unless_that_is_asked_for(
    start_policy, tmp_path
):
    from rclpy.parameter import Parameter

    lines = config_path("bindings", "widowx.yaml").read_text().splitlines()
    without = [line for line in lines if not line.strip().startswith("speed_limits")]
    (tmp_path / "free.yaml").write_text("\n".join(without))
    node = start_policy(binding=str(tmp_path / "free.yaml")).node
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    node.set_parameters([Parameter("unsafe", value=True)])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize("size", [(100, 100), (480, 640)])
def test_an_image_of_another_size_is_refused_and_held(active_policy, robot, monitor, size):
    good, robot.picture = robot.picture, np.full((*size, 3), 90, np.uint8)
    assert held(monitor, f"got {size[1]}x{size[0]}")
    robot.picture = good
    assert commands_again(monitor)


def test_a_missing_joint_is_named_and_held(active_policy, robot, monitor):
    robot.names, robot.positions = JOINTS[1:], RESET[1:]
    assert held(monitor, "joints missing: waist")
    robot.names, robot.positions = JOINTS, RESET
    assert commands_again(monitor)


def test_a_joint_that_is_not_a_number_is_named_and_held(active_policy, robot, monitor):
    robot.positions = np.append(RESET[:6], np.nan)
    assert held(monitor, "left_finger=nan")


@pytest.mark.parametrize(
    ("stamp", "text"),
    [
        (lambda now: 0, "let its driver set header.stamp"),
        (lambda now: now + 5 * SECOND_NS, "expected a stamp no later than the clock"),
        (lambda now: now - 3600 * SECOND_NS, "expected a stamp after"),
    ],
    ids=["zero", "future", "backward"],
)
def test_stamps_that_cannot_be_are_faults(active_policy, robot, monitor, stamp, text):
    robot.stamp = stamp
    assert held(monitor, text)


def test_an_arm_that_does_not_follow_is_held(active_policy, robot, monitor):
    for turned in np.linspace(0.0, 0.5, 20):  # by somebody's hand
        robot.positions = RESET + np.eye(7)[0] * turned
        monitor.spin_once(0.05)
    assert held(monitor, "the arm does not follow")


def test_a_joint_that_is_said_to_be_elsewhere_at_once_is_not_believed(
    active_policy, robot, monitor
):
    robot.positions = RESET + np.eye(7)[0] * 0.5
    assert held(monitor, "expected waist at most")
    assert commands_again(monitor)  # it is there to stay


def test_a_new_instruction_starts_from_the_measured_pose(active_policy, robot, monitor):
    assert monitor.wait_for(lambda: sum(s.active for s in monitor.statuses) >= 4, TIMEOUT_S)
    robot.instruction.publish(String(data="touch the blue cube"))
    before = len(monitor.statuses)
    assert monitor.wait_for(
        lambda: any(s.active and s.values["tick"] == 0 for s in monitor.statuses[before:]),
        TIMEOUT_S,
    )
    first = next(s.values for s in monitor.statuses[before:] if s.values["tick"] == 0)
    expected = measured_pose().position + np.array(first["action_chunk"][0][:3])
    np.testing.assert_allclose(first["target"], expected, atol=1e-6)


def test_an_instruction_that_is_too_long_changes_nothing(active_policy, robot, monitor):
    robot.instruction.publish(String(data="touch " * 100_000))
    assert commands_again(monitor)
    ticks = [s.values["tick"] for s in monitor.statuses if s.active]
    assert ticks == sorted(ticks)


def test_diagnostics_tell_what_was_refused_why_it_held_and_where_the_time_went(
    active_policy, robot, monitor
):
    told = {}

    def hear(msg: DiagnosticArray) -> None:
        told.update({status.name: values_from_msg(status) for status in msg.status})

    monitor.node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    robot.instruction.publish(String(data="a" * 500))

    def loop() -> dict:
        return told.get("policy: control loop", {})

    assert monitor.wait_for(lambda: loop().get("instructions_refused") == 1, TIMEOUT_S)
    assert loop()["refusal"].startswith("instruction refused, staying with 'touch the red cube'")
    assert loop()["Target frequency (Hz)"] == 5.0
    assert monitor.wait_for(lambda: loop()["Actual frequency (Hz)"] > 0.0, TIMEOUT_S)
    # Said once per status and second; whichever comes first.
    assert monitor.wait_for(
        lambda: any(s.values["refusal"] == loop()["refusal"] for s in monitor.statuses), TIMEOUT_S
    )
    assert called(monitor, "policy/stop").success
    assert monitor.wait_for(lambda: loop().get("holds.stopped") == 1, TIMEOUT_S)
    assert (loop()["reason"], loop()["reaction"]) == ("stopped", "hold")
    assert loop()["holds.estop"] == 0
    assert loop()["refreshes.visual"] >= 2
    for stage in ("poll", "assembly", "exchange", "squash", "codec", "forward", "publish"):
        assert loop()[f"{stage}_p99_ms"] >= loop()[f"{stage}_p50_ms"] >= 0.0
    assert loop()["image_age_p99_ms"] > 0.0
    assert loop()["model_memory_mb"] > 0
    state = told["policy: input state"]
    assert state["drops"] == state["refused"] + state["superseded"] > 0


def test_diagnostics_come_as_often_as_is_asked_for(start_policy, monitor):
    stamps_ns = []

    def hear(msg: DiagnosticArray) -> None:
        stamps_ns.append(msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec)

    monitor.node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    often = {"diagnostic_updater.period": 0.1}
    start_policy(autostart=True, stand_in="constant", **often)
    assert monitor.wait_for(lambda: len(stamps_ns) >= 8, TIMEOUT_S)
    assert np.diff(stamps_ns).min() < 500_000_000


def test_reset_starts_over(active_policy, monitor):
    assert monitor.wait_for(lambda: monitor.statuses[-1].values["tick"] >= 3, TIMEOUT_S)
    assert called(monitor, "policy/reset").success
    before = len(monitor.statuses)
    assert monitor.wait_for(
        lambda: any(s.values["tick"] == 0 for s in monitor.statuses[before:]), TIMEOUT_S
    )


def test_nothing_is_published_or_buffered_while_not_active(start_policy, robot, monitor):
    policy = start_policy(instruction="touch the red cube")
    node = policy.node
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert not monitor.wait_for(lambda: monitor.statuses or monitor.poses, 1.0)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert monitor.wait_for(lambda: any(s.active for s in monitor.statuses), TIMEOUT_S)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert held(monitor, "the node was deactivated")
    last_ns = monitor.statuses[-1].values["command_stamp_ns"]
    assert monitor.wait_for(lambda: stamp_ns(monitor.poses[-1].header.stamp) == last_ns, TIMEOUT_S)
    monitor.statuses.clear()
    monitor.poses.clear()
    assert not monitor.wait_for(lambda: monitor.statuses or monitor.poses, 1.0)


def test_autoconfigure_loads_the_model_and_waits(start_policy):
    node = start_policy(autoconfigure=True).node
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS


def test_every_transition_can_be_walked_twice(start_policy, robot, monitor):
    node = start_policy(instruction="touch the red cube").node
    for _ in range(2):
        for transition in (
            node.trigger_configure,
            node.trigger_activate,
            node.trigger_deactivate,
            node.trigger_cleanup,
        ):
            assert transition() == TransitionCallbackReturn.SUCCESS
    node.trigger_configure()
    node.trigger_activate()
    assert node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint", "/nonexistent"),
        ("binding", "nobody.yaml"),
        ("schema", "none.json"),
        ("image_transport", "smoke"),
        ("dtype", "float8"),
        ("refresh", "sliced"),  # this schema has no slow region
        ("prompts", "/nonexistent"),
    ],
)
def test_a_parameter_that_cannot_be_used_fails_configure_and_can_be_mended(
    start_policy, name, value
):
    from rclpy.parameter import Parameter

    node = start_policy(**{name: value}).node
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    good = {"image_transport": "raw", "dtype": "float32", "refresh": "inline"}.get(name, "")
    node.set_parameters([Parameter(name, value=good)])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_messages_without_stamps_are_acted_on_where_they_count_as_received(
    start_policy, robot, monitor, tmp_path
):
    robot.stamp = lambda now_ns: 0
    binding = tmp_path / "received.yaml"
    binding.write_text(received("image", "state"))
    start_policy(autostart=True, instruction="touch the red cube", binding=str(binding))
    assert monitor.wait_for(lambda: any(s.active for s in monitor.statuses), TIMEOUT_S)
    assert monitor.wait_for(lambda: monitor.motions, TIMEOUT_S)
    assert 0 <= monitor.motions[0]["image_age_ms"] < 1e3


def test_compressed_pictures_are_read_where_they_are_asked_for(start_policy, robot, monitor):
    picture, robot.picture = robot.picture, None
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    compressed = monitor.node.create_publisher(CompressedImage, "camera/image_raw/compressed", 1)
    start_policy(autostart=True, instruction="touch the red cube", image_transport="compressed")

    def commanded() -> bool:
        msg = CompressedImage(format="jpeg", data=jpeg)
        msg.header.stamp = monitor.node.get_clock().now().to_msg()
        compressed.publish(msg)
        return bool(monitor.poses)

    assert monitor.wait_for(commanded, TIMEOUT_S)


def test_a_fault_of_the_models_holds_and_does_not_end_the_node(active_policy, monitor, monkeypatch):
    def fail(observation, going_on=None):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(active_policy.node._session.model, "act", fail)
        assert held(monitor, "RuntimeError: out of memory")
    assert commands_again(monitor)


def test_a_fault_in_publishing_ends_no_thread_and_deactivates(active_policy, monitor, monkeypatch):
    node = active_policy.node
    commands, control = (
        next(t for t in threading.enumerate() if t.name == name) for name in ("commands", "control")
    )

    def fail(*_):
        raise RuntimeError("no memory for a message")

    monkeypatch.setattr(node._running.outputs, "move", fail)
    assert held(monitor, "internal_error") or held(monitor, "the node deactivated itself")
    assert monitor.wait_for(lambda: not node._is_active, TIMEOUT_S)
    assert held(monitor, "RuntimeError: no memory for a message")
    for thread in (commands, control):  # ended as they should, by the deactivation
        thread.join(TIMEOUT_S)
    monkeypatch.undo()
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert commands_again(monitor)


def test_parameters_are_set_all_or_none(active_policy, monitor):
    node = active_policy.node
    both = [Parameter("instruction", value="touch the blue cube"), Parameter("threads", value=2)]
    assert not node.set_parameters_atomically(both).successful
    assert node._session.loop.instruction == "touch the red cube"


def test_without_an_instruction_it_holds_and_says_so(start_policy, robot, monitor):
    start_policy(autostart=True)
    assert held(monitor, "publish one on ~/instruction")
    assert not monitor.poses


def test_a_simulation_clock_that_stops_holds(start_policy, robot, monitor):
    from rosgraph_msgs.msg import Clock

    from canvas_robot.ros.messages import stamp_from_ns

    clock = monitor.node.create_publisher(Clock, "/clock", 10)
    now_ns = [SECOND_NS]
    robot.stamp = lambda _: now_ns[0]
    start_policy(autostart=True, use_sim_time=True, instruction="touch the red cube")

    def advance() -> None:
        now_ns[0] += 20_000_000
        clock.publish(Clock(clock=stamp_from_ns(now_ns[0])))

    def active() -> bool:
        advance()
        return sum(s.active for s in monitor.statuses) >= 2

    # One turn of waiting is one clock message, whatever else arrives: this clock is no real one.
    deadline = 3000
    while not active() and deadline:
        monitor.spin_once(0.02)
        deadline -= 1
    assert deadline
    assert held(monitor, "the simulation clock (/clock) stands still")


def test_a_blank_instruction_holds(active_policy, robot, monitor):
    robot.instruction.publish(String(data="  "))
    assert held(monitor, "publish one on ~/instruction")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("execution", "firts", "one of first, receding"),
        ("estop_topic", "e stop", "a ROS name"),
        ("command_rate", 5.0, "out of range"),
    ],
)
def test_what_a_parameter_cannot_be_is_refused_when_it_is_set(start_policy, name, value, expected):
    from rclpy.parameter import Parameter

    node = start_policy().node
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful and name in result.reason and expected in result.reason
    assert node.get_parameter(name).value != value


def test_parameters_that_are_read_at_configure_are_refused_afterwards(active_policy, monitor):
    from rclpy.parameter import Parameter

    (result,) = active_policy.node.set_parameters([Parameter("control_rate", value=10.0)])
    assert not result.successful and "read at configure" in result.reason
    (result,) = active_policy.node.set_parameters([Parameter("instruction", value="touch it")])
    before = len(monitor.statuses)
    assert result.successful
    assert monitor.wait_for(
        lambda: any(s.values["tick"] == 0 for s in monitor.statuses[before:]), TIMEOUT_S
    )


def test_a_source_that_fills_no_region_fails_configure(start_policy, tmp_path):
    text = config_path("bindings", "widowx.yaml").read_text()
    extra = "  ros:\n    instruction: {type: image, topic: x}\n"
    (tmp_path / "extra.yaml").write_text(text.replace("  ros:\n", extra))
    node = start_policy(binding=str(tmp_path / "extra.yaml")).node
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE


# ---------------------------------------------------------------- the model's process


def set_to(node, **values) -> None:
    results = node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
    assert all(result.successful for result in results), results


def test_a_model_that_is_killed_holds_until_another_one_is_there(start_policy, robot, monitor):
    node = start_policy(
        autostart=True, stand_in="constant", instruction="touch it", decision_timeout=PATIENCE_S
    ).node
    assert commands_again(monitor)
    os.kill(node._session.model.pid, signal.SIGKILL)
    assert held(monitor, "model's process ended (exit code -9)")
    assert commands_again(monitor)


@pytest.mark.parametrize(
    "kind, reason, text",
    [
        ("raises", "model_error", "RuntimeError: the stand-in raises"),
        ("dies", "model_error", "ended (exit code -9)"),
        ("nan", "bad_action", "expected finite numbers"),
    ],
)
def test_what_a_model_does_wrong_is_held_and_told(start_policy, robot, monitor, kind, reason, text):
    start_policy(
        autostart=True,
        stand_in=kind,
        instruction="touch it",
        control_rate=20.0,  # every 20th decision fails
        decision_timeout=PATIENCE_S,
    )
    assert held(monitor, text)
    status = next(s for s in monitor.statuses if text in s.message)
    assert status.values["reason"] == reason
    assert commands_again(monitor)


def test_a_model_that_hangs_is_held_by_the_command_clock_and_ends_with_the_node(
    start_policy, robot, monitor, capfd
):
    hangs = {"stand_in": "hangs", "instruction": "touch it", "control_rate": 20.0}
    node = start_policy(autostart=True, **hangs).node
    assert held(monitor, "its action chunk has ended")
    hold = next(s.values for s in monitor.statuses if "its action chunk has ended" in s.message)

    def last() -> int:
        return stamp_ns(monitor.poses[-1].header.stamp)

    assert monitor.wait_for(lambda: last() == hold["command_stamp_ns"], TIMEOUT_S)
    assert not monitor.wait_for(lambda: last() != hold["command_stamp_ns"], 1.0)
    np.testing.assert_allclose(
        pose_from_msg(monitor.poses[-1]).position, measured_pose().position, atol=1e-6
    )
    assert node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
    assert "the model did not return" not in capfd.readouterr().err


def test_cleaning_up_ends_the_models_process(start_policy):
    node = start_policy(autoconfigure=True, stand_in="constant").node
    model = node._session.model
    assert model.pid is not None
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert model.pid is None and node._session is None


@pytest.mark.parametrize("how", ["/policy/stop", "estop", "instruction"])
def test_what_stops_the_arm_is_heard_while_another_policy_loads(
    start_policy, robot, monitor, monkeypatch, how
):
    node = start_policy(
        autostart=True,
        stand_in="constant",
        instruction="touch it",
        estop_topic="estop",
        decision_timeout=PATIENCE_S,
    ).node
    assert commands_again(monitor)
    load, loading, go_on = node._load, threading.Event(), threading.Event()

    def slowly(settings):
        loading.set()
        assert go_on.wait(TIMEOUT_S)
        return load(settings)

    monkeypatch.setattr(node, "_load", slowly)
    client = monitor.node.create_client(Trigger, "/policy/reload")
    assert monitor.wait_for(client.service_is_ready, TIMEOUT_S)
    reload = client.call_async(Trigger.Request())
    assert monitor.wait_for(loading.is_set, TIMEOUT_S)
    if how == "/policy/stop":
        assert called(monitor, how).success
        told = "stopped by ~/stop"
    elif how == "estop":
        publisher = monitor.node.create_publisher(Bool, "estop", 1)
        assert monitor.wait_for(lambda: publisher.get_subscription_count() > 0, TIMEOUT_S)
        publisher.publish(Bool(data=True))
        told = "emergency stop by its topic"
    else:
        robot.instruction.publish(String(data=" "))
        told = "publish one on ~/instruction"
    assert held(monitor, told) and not reload.done()
    go_on.set()
    assert monitor.wait_for(reload.done, TIMEOUT_S) and reload.result().success
    before = len(monitor.statuses)
    assert monitor.wait_for(lambda: len(monitor.statuses) >= before + 3, TIMEOUT_S)
    assert not any(s.active for s in monitor.statuses[before:])


def test_an_instruction_that_the_binding_refuses_is_no_parameter(start_policy):
    node = start_policy(autoconfigure=True, stand_in="constant").node
    (result,) = node.set_parameters([Parameter("instruction", value="touch\n" * 400)])
    assert not result.successful and "signal" in result.reason
    assert node.get_parameter("instruction").value == ""


def test_a_joint_that_is_a_whole_turn_away_is_not_believed(active_policy, robot, monitor):
    robot.positions = RESET + np.eye(7)[0] * 2 * np.pi
    assert held(monitor, "expected waist from -3.14 to 3.14 rad")


def test_reload_puts_another_policy_in_the_place_of_the_first(start_policy, robot, monitor):
    node = start_policy(
        autostart=True, stand_in="constant", instruction="touch it", decision_timeout=PATIENCE_S
    ).node
    assert commands_again(monitor)
    pid = node._session.model.pid
    set_to(node, schema="widowx_small.json")
    answer = called(monitor, "/policy/reload")
    assert answer.success, answer.message
    assert held(monitor, "the policy is exchanged for another")
    assert commands_again(monitor)
    assert monitor.statuses[-1].values["instruction"] == "touch it"
    assert node._session.model.pid != pid
    assert node._session.model.schema == CanvasSchema.from_json(
        config_path("schemas", "widowx_small.json")
    )


def test_a_stopped_arm_is_still_stopped_under_another_policy(start_policy, robot, monitor):
    node = start_policy(
        autostart=True, stand_in="constant", instruction="touch it", decision_timeout=PATIENCE_S
    ).node
    assert commands_again(monitor)
    assert called(monitor, "/policy/estop").success
    assert held(monitor, "emergency stop by ~/estop")
    set_to(node, schema="widowx_small.json")
    before = len(monitor.statuses)
    assert called(monitor, "/policy/reload").success
    assert monitor.wait_for(lambda: len(monitor.statuses) > before + 5, TIMEOUT_S)
    assert not any(status.active for status in monitor.statuses[before:])
    assert called(monitor, "/policy/start").success
    assert commands_again(monitor)


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": "nowhere.json"},
        {"checkpoint": "/nowhere"},
        {"binding": "fetch_reach.yaml"},
    ],
    ids=["schema", "checkpoint", "no robot"],
)
def test_a_reload_that_fails_leaves_all_as_it_was(start_policy, robot, monitor, wrong):
    node = start_policy(
        autostart=True, stand_in="constant", instruction="touch it", decision_timeout=PATIENCE_S
    ).node
    assert commands_again(monitor)
    session = node._session
    set_to(node, **wrong)
    answer = called(monitor, "/policy/reload")
    assert not answer.success and "what ran before runs on" in answer.message
    assert node._session is session and session.model.pid is not None
    assert [node.get_parameter(name).value for name in wrong] == [""] * len(wrong)
    assert commands_again(monitor)


@pytest.mark.parametrize("where", ["its inputs", "its topics"])
def test_a_reload_that_fails_as_it_opens_leaves_all_as_it_was(
    start_policy, robot, monitor, monkeypatch, tmp_path, where
):
    """All of the old one is open until all of the new one is."""
    node = start_policy(
        autostart=True, stand_in="constant", instruction="touch it", decision_timeout=PATIENCE_S
    ).node
    assert commands_again(monitor)
    session = node._session
    if where == "its inputs":
        text = config_path("bindings", "widowx.yaml").read_text()
        binding = tmp_path / "binding.yaml"
        binding.write_text(text.replace("topic: joint_states", "topic: no topic"))
        assert "no topic" in binding.read_text()
        set_to(node, binding=str(binding))
    else:

        def fail(*_):
            raise RuntimeError("no more topics")

        monkeypatch.setattr(running, "Hands", fail)
    answer = called(monitor, "/policy/reload")
    assert not answer.success and "what ran before runs on" in answer.message
    assert node._session is session and session.model.pid is not None
    assert commands_again(monitor)
    assert monitor.statuses[-1].values["instruction"] == "touch it"
    assert called(monitor, "/policy/stop").success
    assert held(monitor, "stopped by ~/stop")


def test_reload_needs_a_policy_to_take_the_place_of(start_policy, monitor):
    start_policy()
    answer = called(monitor, "/policy/reload")
    assert (answer.success, answer.message) == (False, "the node is not configured")


def test_a_name_that_is_no_parameter_is_told(start_policy):
    node = start_policy(exekution="rtc", threads=2).node
    assert unknown_parameters(node) == ["exekution: no such parameter; execution?"]


# ---------------------------------------------------------------- the picture of decisions


def test_who_subscribes_sees_each_decision_as_a_picture(start_policy, robot, monitor, monkeypatch):
    node = start_policy(
        autostart=True, stand_in="constant", instruction="touch it", decision_timeout=PATIENCE_S
    ).node
    drawn, draw = [], node._running._canvas_picture.draw

    def counted(decision, *others):
        drawn.append(decision)
        return draw(decision, *others)

    monkeypatch.setattr(node._running._canvas_picture, "draw", counted)
    assert commands_again(monitor)
    assert not drawn  # nobody looks
    pictures: list[Image] = []
    monitor.node.create_subscription(Image, "/policy/canvas_image", pictures.append, 1)
    assert monitor.wait_for(lambda: len(pictures) >= 2, TIMEOUT_S)
    image = image_from_msg(pictures[-1])
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert (image == 90).all(axis=2).sum() > 100 * 100  # what the camera shows
    robot.instruction.publish(String(data="  "))
    assert monitor.wait_for(lambda: drawn[-1].reason is not None, TIMEOUT_S)
    count = len(drawn)
    assert not monitor.wait_for(lambda: len(drawn) > count, 1.0)  # a hold is drawn once


def test_who_subscribes_sees_what_the_policy_predicts(start_policy, robot, monitor, monkeypatch):
    node = start_policy(
        autostart=True,
        schema="widowx_small_video.json",
        binding="widowx_video.yaml",
        backbone="small",
        instruction="touch it",
        decision_timeout=PATIENCE_S,
    ).node
    model, asked = node._session.model, []
    imagined = model.imagined
    monkeypatch.setattr(model, "imagined", lambda s: [asked.append(s), imagined(s)][1])
    assert commands_again(monitor)
    assert not asked  # nobody looks
    pictures: list[Image] = []
    subscription = monitor.node.create_subscription(
        Image, "/policy/canvas_image", pictures.append, 1
    )

    def predicted() -> bool:
        """A frame in the colour of the untrained, on the right of the camera."""
        image = image_from_msg(pictures[-1])[62:262, 280:560] if pictures else np.zeros((1, 1, 3))
        return (image == (240, 160, 60)).all(axis=2).sum() > 400

    assert monitor.wait_for(predicted, TIMEOUT_S)
    assert 0 < max(asked) <= 0.04 + 1e-9  # a fifth of a tick
    monitor.node.destroy_subscription(subscription)
    assert monitor.wait_for(lambda: not node._session.foresight.shown, TIMEOUT_S)
    count = len(asked)
    assert commands_again(monitor)
    assert len(asked) == count


# ---------------------------------------------------------------- people


def test_home_leads_the_arm_there_and_start_goes_on(start_policy, robot, monitor):
    start_policy(
        autostart=True, stand_in="constant", instruction="touch it", decision_timeout=PATIENCE_S
    )
    assert commands_again(monitor)
    answer = called(monitor, "/policy/home")
    assert answer.success, answer.message
    assert held(monitor, "sent to the binding's home")
    home = np.array(LIMITS.home[:3])

    def there() -> bool:
        # The arm of this test stands still a step away from home, which is near enough to follow.
        return bool(np.abs(pose_from_msg(monitor.poses[-1]).position - home).max() < 2e-3)

    assert monitor.wait_for(there, TIMEOUT_S)
    assert called(monitor, "/policy/start").success
    assert commands_again(monitor)


def test_a_hand_leads_the_arm_while_it_says_so(start_policy, robot, monitor):
    start_policy(
        **CONSTANT,
        teleop_topic="teleop",
    )
    assert commands_again(monitor)
    hand = monitor.node.create_publisher(TwistStamped, "teleop", 1)
    said = TwistStamped()
    said.header.frame_id = LIMITS.base_frame
    said.twist.linear.z = 0.05
    start = pose_from_msg(monitor.poses[-1]).position[2]

    def higher() -> bool:
        hand.publish(said)
        monitor.spin_once(0.02)
        return bool(pose_from_msg(monitor.poses[-1]).position[2] > start + 0.02)

    assert monitor.wait_for(higher, TIMEOUT_S)
    assert held(monitor, "somebody leads the arm")
    assert commands_again(monitor)


def test_a_slow_stop_brakes_within_the_limits_and_ends_at_rest(
    start_policy, robot, monitor, tmp_path
):
    text = config_path("bindings", "widowx.yaml").read_text()
    for was, slowly in (
        ("[3.5, 3.5, 3.5, 17.5, 17.5, 17.5]", "[0.5, 0.5, 0.5, 5.0, 5.0, 5.0]"),
        ("part_m: 0.08", "part_m: 0.3\n  reactions: {stopped: slow_stop}"),
    ):
        assert was in text
        text = text.replace(was, slowly)
    (tmp_path / "slow.yaml").write_text(text)
    start_policy(
        **CONSTANT,
        teleop_topic="teleop",
        binding=str(tmp_path / "slow.yaml"),
    )
    speeds: list[float] = []
    monitor.node.create_subscription(
        TwistStamped, "policy/target_twist", lambda m: speeds.append(m.twist.linear.z), 100
    )
    assert commands_again(monitor)
    stop = monitor.node.create_client(Trigger, "policy/stop")
    assert monitor.wait_for(stop.service_is_ready, TIMEOUT_S)
    hand = monitor.node.create_publisher(TwistStamped, "teleop", 1)
    said = TwistStamped()
    said.twist.linear.z = 0.1

    def fast() -> bool:
        hand.publish(said)
        monitor.spin_once(0.02)
        return bool(speeds) and speeds[-1] > 0.08

    assert monitor.wait_for(fast, TIMEOUT_S)
    assert monitor.wait_for(stop.call_async(Trigger.Request()).done, TIMEOUT_S)
    assert held(monitor, "stopped by ~/stop")
    stopping = next(s.values for s in monitor.statuses if "stopped by ~/stop" in s.message)
    assert stopping["reaction"] == "slow_stop"
    assert monitor.wait_for(lambda: speeds[-1] == 0.0, TIMEOUT_S)
    braking = speeds[max(i for i, speed in enumerate(speeds) if speed > 0.08) :]
    assert len([speed for speed in braking if 0.0 < speed < 0.08]) >= 3
    assert all(after <= before for before, after in itertools.pairwise(braking))
    assert not monitor.wait_for(lambda: speeds[-1] != 0.0, 0.3)


def test_an_effort_above_the_limit_holds_until_start_is_called(
    start_policy, robot, monitor, tmp_path
):
    text = config_path("bindings", "widowx.yaml").read_text()
    (tmp_path / "weak.yaml").write_text(text.replace("  anchor:", "  effort_limit: 4.0\n  anchor:"))
    start_policy(
        **CONSTANT,
        binding=str(tmp_path / "weak.yaml"),
    )
    assert commands_again(monitor)
    robot.efforts = [0.0, 0.0, -4.5, 0.0, 0.0, 0.0, 0.0]
    assert held(monitor, "effort of elbow -4.50 N m, expected at most 4.0")
    robot.efforts = []
    before = len(monitor.statuses)
    assert not monitor.wait_for(lambda: any(s.active for s in monitor.statuses[before:]), 1.0)
    assert called(monitor, "/policy/start").success
    assert commands_again(monitor)


def test_a_camera_that_hangs_or_shows_nothing_holds_where_the_binding_says_so(
    start_policy, robot, monitor, tmp_path
):
    text = config_path("bindings", "widowx.yaml").read_text()
    watched = text.replace("dark_below: 3", "dark_below: 3, frozen_after_s: 1")
    (tmp_path / "watched.yaml").write_text(watched)
    rng = np.random.default_rng(0)

    def lively() -> np.ndarray:
        return rng.integers(60, 120, (256, 256, 3), np.uint8)

    robot.lively = lively
    start_policy(
        **CONSTANT,
        binding=str(tmp_path / "watched.yaml"),
    )
    assert commands_again(monitor)
    robot.lively = None
    assert held(monitor, "the picture has not changed for")
    robot.lively = lively
    assert commands_again(monitor)
    robot.lively, robot.picture = None, np.zeros((256, 256, 3), np.uint8)
    assert held(monitor, "the picture is black")


def test_without_a_measured_pose_no_speed_stands(start_policy, robot, monitor):
    twists = []
    monitor.node.create_subscription(TwistStamped, "policy/target_twist", twists.append, 100)
    start_policy(autostart=True, instruction="touch the red cube", decision_timeout=PATIENCE_S)
    assert monitor.wait_for(lambda: sum(s.active for s in monitor.statuses) >= 2, TIMEOUT_S)
    robot.names = ()
    assert held(monitor, "signal 'state': newest sample is")
    hold = next(s for s in monitor.statuses if "signal 'state'" in s.message)
    assert hold.values["command_stamp_ns"] == 0
    assert monitor.wait_for(
        lambda: bool(np.all([*twist_from_msg(twists[-1])] == np.zeros((2, 3)))), TIMEOUT_S
    )
