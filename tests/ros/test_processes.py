"""The executables as processes of their own.

The simulated robot, the demo, Ctrl-C, replay of real recordings.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger
from typer.testing import CliRunner

from canvas_robot.cli import app
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.rlds import write_rlds
from canvas_robot.data.video import read_video
from canvas_robot.kinematics import Arm
from canvas_robot.resources import config_path
from canvas_robot.ros.decisions import DECISION_STATUS
from canvas_robot.ros.images import image_from_msg
from canvas_robot.ros.messages import joints_from_msg, pose_to_msg, stamp_ns, values_from_msg
from canvas_robot.ros.processes import NodeProcesses, node_environment
from canvas_robot.ros.replay import Recording, Replayer, ReplayError, SimulationClock
from canvas_robot.signals.binding import binding_from_yaml, load_binding
from canvas_robot.signals.pose import Pose
from canvas_robot.sim.reach import ReachTask
from tests.ros.conftest import JOINTS, TIMEOUT_S

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SAMPLE, CLIP = SHARED / "bridge_sample/bridge_dataset/1.0.0", SHARED / "clips/bridge_real_1.mp4"
START_TIMEOUT_S = 90.0
CHUNK_S = 0.8  # how long the action chunk of widowx_tiny lasts
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the real recordings in ../shared/data"
)


@pytest.fixture
def nodes(domain_id, tmp_path):
    with NodeProcesses(node_environment(domain_id), tmp_path) as nodes:
        yield nodes


def test_the_simulated_robot_shows_moves_and_stamps_on_its_own_clock(nodes, monitor):
    clocks, images, joints = [], [], []
    monitor.node.create_subscription(
        Clock, "/clock", lambda m: clocks.append(stamp_ns(m.clock)), 50
    )
    monitor.node.create_subscription(Image, "camera/image_raw", images.append, 5)
    monitor.node.create_subscription(JointState, "joint_states", joints.append, 50)
    target = monitor.node.create_publisher(PoseStamped, "policy/target_pose", 1)
    nodes.start("sim_robot", {"clock": "sim", "image_width": 256, "image_height": 256})
    assert monitor.wait_for(lambda: len(images) >= 3 and len(joints) >= 3, START_TIMEOUT_S)

    assert image_from_msg(images[-1]).shape == (256, 256, 3)
    assert image_from_msg(images[-1]).std() > 10
    assert all(b > a > 0 for a, b in pairwise(clocks))
    assert max(np.diff(clocks)) <= 10_000_000  # 100 Hz or more of its own time
    seen = stamp_ns(images[-1].header.stamp)
    # the picture may be heard before the clock that says its time, but that clock comes
    assert monitor.wait_for(lambda: clocks[-1] >= seen, TIMEOUT_S)
    assert seen >= clocks[0]

    arm = Arm.load("wx250s")
    start = arm.forward(joints_from_msg(joints[-1], JOINTS)[:6])
    goal = Pose(start.position + np.array([0.0, 0.04, 0.02]), start.rotation)
    target.publish(pose_to_msg(goal, clocks[-1], "wx250s/base_link"))

    def arrived() -> bool:
        at = arm.forward(joints_from_msg(joints[-1], JOINTS)[:6]).position
        return float(np.linalg.norm(at - goal.position)) < 0.005

    assert monitor.wait_for(arrived, TIMEOUT_S)
    target.publish(pose_to_msg(start, clocks[-1], "another_frame"))
    assert monitor.wait_for(lambda: "target refused" in nodes.log("sim_robot"), TIMEOUT_S)
    assert nodes.stop("sim_robot") == 0


def cli(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "canvas_robot.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.fixture
def command(domain_id, monkeypatch):
    """Runs `canvas-robot` in this process, nodes in their own: exit code and what it printed."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner(env={"COLUMNS": "120"}).invoke(app, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, result.output

    return run


def test_the_demo_runs_both_nodes_and_writes_its_report(domain_id, tmp_path):
    words = ("demo", "--seconds", "6", "--checkpoint", "", "--out", str(tmp_path))
    demo = cli(*words, env=node_environment(domain_id))
    output, _ = demo.communicate(timeout=120)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["trained"] is False
    assert report["active_ticks"] >= 20, output
    assert report["fresh_image_fraction"] >= 0.9
    assert set(report["latency_ms"]) >= {"total", "transport", "assembly", "model", "publish"}
    assert report["latency_ms"]["total"]["p50"] > report["latency_ms"]["model"]["p50"] > 0
    for name in ("report.html", "latency.png", "episode.mp4"):
        assert (tmp_path / name).stat().st_size > 1000, name


@pytest.mark.slow
def test_the_demo_plays_one_episode_after_the_other(command, tmp_path):
    words = ("demo", "--task", "reach", "--episodes", "2", "--episode", "90000")
    _, output = command(*words, "--out", str(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["trained"] is True, output
    episodes = report["details"]["episodes"]
    assert [e["episode"] for e in episodes] == [90_000, 90_001], output
    assert [e["instruction"] for e in episodes] == [
        ReachTask().episode(k).instruction for k in (90_000, 90_001)
    ]
    assert all(1 <= e["periods"] <= 40 for e in episodes)
    assert report["active_ticks"] + report["hold_ticks"] <= sum(e["periods"] + 2 for e in episodes)
    assert "success: any" in output


def test_the_simulated_robot_goes_on_to_the_next_episode(nodes, domain_id, monitor):
    nodes.start("sim_robot", {"task": "reach", "episode": 7})
    heard: list[dict] = []

    def on_episode(msg):
        heard.append({item.key: item.value for item in msg.values})

    kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    monitor.node.create_subscription(DiagnosticStatus, "sim_robot/episode", on_episode, kept)
    following = monitor.node.create_client(Trigger, "sim_robot/next_episode")
    assert monitor.wait_for(lambda: bool(heard) and following.service_is_ready(), START_TIMEOUT_S)
    assert heard[-1]["episode"] == "7"
    answer = following.call_async(Trigger.Request())
    assert monitor.wait_for(answer.done, TIMEOUT_S) and answer.result().success
    said = json.loads(answer.result().message)
    assert said["episode"] == 8 and said["instruction"] == ReachTask().episode(8).instruction
    assert monitor.wait_for(lambda: heard[-1]["episode"] == "8", TIMEOUT_S)
    assert heard[-1]["periods"] == "0" and heard[-1]["success"] == "false"


def test_a_simulated_robot_whose_physics_die_ends_with_an_error(domain_id, monitor, tmp_path):
    environment = {**node_environment(domain_id), "MUJOCO_GL": "disable"}
    with NodeProcesses(environment, tmp_path) as nodes:
        nodes.start("sim_robot")
        assert monitor.wait_for(lambda: nodes.died() == "sim_robot", START_TIMEOUT_S)
        assert nodes.stop("sim_robot") == 1
        said = nodes.log("sim_robot")
    assert "physics stopped: RuntimeError: rendering: expected EGL or a screen" in said
    assert "Traceback" not in said


def test_a_node_that_is_asked_to_end_while_its_model_loads_ends_well(nodes, monitor):
    nodes.start("policy", {"autostart": True})
    assert monitor.wait_for(lambda: "loading" in nodes.log("policy"), START_TIMEOUT_S)
    assert nodes.stop("policy") == 0
    assert "loading was given up: the node was asked to end" in nodes.log("policy")
    assert "[ERROR]" not in nodes.log("policy")


def test_ctrl_c_ends_the_demo_and_both_its_nodes(domain_id, monitor, tmp_path):
    demo = cli("demo", "--seconds", "600", "--out", str(tmp_path), env=node_environment(domain_id))
    assert monitor.wait_for(lambda: len(monitor.node.get_node_names()) >= 2, START_TIMEOUT_S)
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130 and "Traceback" not in output, output
    ours = {"policy", "sim_robot"}
    assert monitor.wait_for(lambda: not ours & set(monitor.node.get_node_names()), 30)


def test_nodes_end_with_the_process_that_started_them(domain_id, monitor, tmp_path):
    demo = cli("demo", "--seconds", "600", "--out", str(tmp_path), env=node_environment(domain_id))
    ours = {"policy", "sim_robot"}
    assert monitor.wait_for(lambda: ours <= set(monitor.node.get_node_names()), START_TIMEOUT_S)
    demo.kill()
    demo.communicate(timeout=30)
    assert monitor.wait_for(lambda: not ours & set(monitor.node.get_node_names()), 30)


# ---------------------------------------------------------------- replay


@pytest.fixture
def replay(command, tmp_path):
    """Runs `canvas-robot replay` and a node: exit code, what it printed, its report."""

    def run(source: Path, *options: str) -> tuple[int, str, dict]:
        told = command("replay", str(source), *options, "--launch", "--out", str(tmp_path))
        return *told, json.loads((tmp_path / "report.json").read_text())

    return run


@pytest.fixture
def few_episodes(tmp_path) -> Path:
    """The first two of the Bridge sample, as a data set."""
    sample = BridgeV2(SAMPLE, "train")
    return write_rlds([sample[number] for number in range(2)], tmp_path / "few")


def check_equal(replayed: tuple[int, str, dict]) -> None:
    """A command for every recorded step, each equal to the policy called directly."""
    code, output, report = replayed
    assert code == 0, output
    assert report["active_ticks"] == report["expected_ticks"] == report["ticks"]
    assert report["hold_ticks"] == report["missed_ticks"] == 0
    agreed = report["details"]["ticks equal to calling the policy directly"]
    assert agreed == f"{report['ticks']} of {report['ticks']}"


@needs_shared
@pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_real_episodes_get_a_command_a_tick_equal_to_the_policy_called_directly(
    whole, request, replay
):
    source = SAMPLE if whole else request.getfixturevalue("few_episodes")
    replayed = replay(source, "--episode", "-1", "--rate", "6", "--verify")
    check_equal(replayed)
    assert replayed[2]["details"]["recordings"] == (25 if whole else 2)


@pytest.mark.slow
@needs_shared
def test_a_real_clip_gets_a_command_a_tick_equal_to_the_policy_called_directly(replay):
    goal = ("--instruction", "put the spoon on the towel")
    check_equal(replay(CLIP, "--fixed-joints", *goal, "--rate", "2", "--verify"))


def test_a_camera_that_is_heard_compressed_is_not_replayed(monitor):
    text = config_path("bindings", "widowx.yaml").read_text()
    said = text.replace("{type: image,", "{type: image, transport: compressed,")
    with pytest.raises(
        ReplayError, match=r"camera/image_raw: expected transport: raw, .* got comp"
    ):
        Replayer(monitor, binding_from_yaml(said), SimulationClock(monitor, 6.0))


def test_a_recording_in_which_the_machine_came_to_a_halt_is_replayed_again(nodes, monitor):
    parameters = {"autostart": True, "use_sim_time": True, "binding": "replay_pose.yaml"}
    nodes.start("policy", {**parameters, "decision_timeout": 30.0})
    replayer = Replayer(
        monitor,
        load_binding(config_path("bindings", "replay_pose.yaml")),
        SimulationClock(monitor, 6.0),
        tries=3,
    )
    replayer.wait_for_node()
    state = np.float32([0.3, 0.0, 0.1, 0.0, 0.0, 0.1, 1.0])
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    stamps = np.arange(6) * 200_000_000
    recording = Recording("one", "touch it", images, stamps, np.tile(state, (6, 1)))
    policy, active = nodes.pid("policy"), []

    def halt_once(msg: DiagnosticStatus) -> None:
        if msg.name == DECISION_STATUS and values_from_msg(msg)["state"] == "active":
            active.append(msg)
            if len(active) == 3:
                os.kill(policy, signal.SIGSTOP)
                threading.Timer(CHUNK_S + 0.4, os.kill, (policy, signal.SIGCONT)).start()

    monitor.node.create_subscription(DiagnosticStatus, "policy/status", halt_once, 100)
    replayed = replayer.replay(recording)
    assert 2 <= replayed.tries <= 3
    assert replayed.commands == len(replayed.statuses) == len(recording)


@pytest.fixture
def short_clip(tmp_path) -> Path:
    """The first dozen pictures of the real clip."""
    pictures, fps = read_video(CLIP)
    path, (height, width) = tmp_path / "short.mp4", pictures.shape[1:3]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    for picture in pictures[:12]:
        video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    video.release()
    return path


@pytest.mark.slow
@needs_shared
def test_a_video_with_recorded_states_is_replayed_with_them(replay, short_clip, tmp_path):
    states = np.tile(np.float32([0.3, 0.0, 0.1, 0.0, 0.0, 0.1, 1.0]), (12, 1))
    states[:, 1] += np.linspace(0.0, 0.1, 12, dtype=np.float32)
    np.save(tmp_path / "states.npy", states)
    options = ("--state", str(tmp_path / "states.npy"), "--rate", "3", "--verify")
    code, output, _ = replay(short_clip, *options)
    assert code == 0, output
    assert "12 of 12" in output


@pytest.mark.slow
@needs_shared
def test_a_video_without_an_arm_state_holds_and_says_so(replay, short_clip):
    code, output, report = replay(short_clip, "--rate", "4")
    assert code == 1
    assert (
        "the node has no arm state and will hold" in output and "no sample yet of 'state'" in output
    )
    assert report["active_ticks"] == 0
