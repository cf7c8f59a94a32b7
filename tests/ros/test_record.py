"""Laws of recording: a bag holds what came in and went out, and its decisions can be made again."""

from __future__ import annotations

import ast
import io
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rich.console import Console
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String

from canvas_robot.policy.assemble import assemble_policy
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.resources import config_path
from canvas_robot.ros import record
from canvas_robot.ros.bag import BagError, is_bag, verify_bag
from canvas_robot.ros.decisions import COMMAND_STATUS, DECISION_STATUS
from canvas_robot.ros.definitions import DefinitionError
from canvas_robot.ros.messages import values_from_msg
from canvas_robot.ros.monitor import Monitor
from canvas_robot.ros.record import OUTPUTS, Recorder, RecordError, input_topics
from canvas_robot.ros.record_run import run_record
from canvas_robot.signals import binding_from_yaml, load_binding
from tests.ros.conftest import FOLLOWING, TIMEOUT_S, NodeInThread, Robot, new_domain

WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("recorded") / "bag", joint_output=True)


def recorded(folder: Path, **parameters) -> Path:
    """A recording of some decisions, the first of them after a new instruction."""
    domain = new_domain()
    with (
        Monitor(domain) as monitor,
        closing(Robot(domain)) as robot,
        closing(NodeInThread(domain, **FOLLOWING, **parameters)),
    ):
        assert monitor.wait_for(lambda: sum(s.active for s in monitor.statuses) >= 2, TIMEOUT_S)
        with Recorder(folder, WIDOWX, "raw", "policy", domain) as recorder, recording(recorder):
            inputs = ("/camera/image_raw", "/joint_states")
            assert monitor.wait_for(
                lambda: all(recorder.counts[topic] >= 5 for topic in inputs), TIMEOUT_S
            ), recorder.counts
            robot.instruction.publish(String(data="touch the blue cube"))
            before = len(monitor.statuses)

            def fresh() -> int:
                new = [s.values for s in monitor.statuses[before:] if s.active]
                return sum(v["instruction"] == "touch the blue cube" for v in new)

            assert monitor.wait_for(lambda: fresh() >= 6, TIMEOUT_S)
            seen = recorder.counts["/policy/status"]
            assert monitor.wait_for(
                lambda: recorder.counts["/policy/status"] >= seen + 20, TIMEOUT_S
            )
    return folder


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """A thread in which a recorder records."""
    stop = threading.Event()

    def record() -> None:
        while not stop.is_set():
            recorder.spin_for(0.1)

    thread = threading.Thread(target=record)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_decisions_made_again_from_a_bag_are_bit_for_bit_as_recorded(bag):
    assert is_bag(bag)
    verified = verify_bag(bag, assemble_policy(PolicySettings()))
    assert verified.equal >= 5 and verified.first == ""
    assert verified.equal + verified.missing == verified.decisions
    other = verify_bag(bag, assemble_policy(PolicySettings(seed=99)))
    assert other.equal == 0 and "actions differ by up to" in other.first


def test_decisions_that_went_on_with_others_are_made_again_from_what_went_on(tmp_path):
    """A diffusion head under real-time chunking: a bag says of each decision what it was told."""
    binding = tmp_path / "drawing.yaml"
    text = config_path("bindings", "widowx.yaml").read_text()
    # This robot stands still, and what an untrained policy wants may soon be far away.
    for was, now in (
        ("codec: action,", "codec: action_diffusion,"),
        ("part_m: 0.08", "part_m: 9.0"),
        ("part_rad: 0.4", "part_rad: 9.0"),
    ):
        assert was in text
        text = text.replace(was, now)
    binding.write_text(text)
    folder = recorded(tmp_path / "bag", binding=str(binding), execution="rtc")
    guided = 0
    with Reader(folder) as reader:
        for connection, _, data in reader.messages():
            if connection.topic == "/policy/status":
                guided += "going_on" in values_from_msg(deserialize_message(data, DiagnosticStatus))
    verified = verify_bag(folder, assemble_policy(PolicySettings(binding=str(binding))))
    assert guided >= 3 and verified.equal >= 5 and verified.first == ""


def test_a_bag_holds_inputs_commands_and_both_kinds_of_status(bag):
    names = set()
    with Reader(bag) as reader:
        topics = {connection.topic for connection in reader.connections if connection.msgcount}
        for connection, _, data in reader.messages():
            if connection.topic == "/policy/status":
                names.add(deserialize_message(data, DiagnosticStatus).name)
    assert names == {DECISION_STATUS, COMMAND_STATUS}
    assert {
        "/camera/image_raw",
        "/joint_states",
        "/policy/target_pose",
        "/policy/target_twist",
        "/policy/gripper",
        "/policy/joint_trajectory",
        "/policy/gripper_trajectory",
        "/policy/instruction",
    } <= topics


def test_what_is_remapped_is_recorded_under_the_name_that_the_binding_gives_it(
    tmp_path, monitor, domain_id
):
    rules = ("joint_states:=/arm/joint_states", "~/target_pose:=/arm/target_pose")
    joints = monitor.node.create_publisher(JointState, "/arm/joint_states", 10)
    poses = monitor.node.create_publisher(PoseStamped, "/arm/target_pose", 10)
    recorded = {"/left/joint_states", "/left/policy/target_pose"}
    with (
        Recorder(tmp_path / "bag", WIDOWX, "raw", "left/policy", domain_id, rules) as recorder,
        recording(recorder),
    ):

        def heard() -> bool:
            joints.publish(JointState())
            poses.publish(PoseStamped())
            return recorded <= recorder.counts.keys()

        assert monitor.wait_for(heard, TIMEOUT_S)
    with Reader(tmp_path / "bag") as reader:
        assert {c.topic for c in reader.connections if c.msgcount} == recorded


def test_other_topics_are_recorded_and_what_was_latched_on_them_before(
    tmp_path, monitor, domain_id
):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    switch = monitor.node.create_publisher(Bool, "/lamp/switch", latched)
    switch.publish(Bool(data=True))
    topics = ("/lamp/switch", "/joint_states")  # the second is recorded anyway
    monitor.node.create_publisher(JointState, "/joint_states", 1)
    with (
        Recorder(tmp_path / "bag", WIDOWX, "raw", "policy", domain_id, topics=topics) as recorder,
        recording(recorder),
    ):
        assert monitor.wait_for(lambda: recorder.counts["/lamp/switch"] == 1, TIMEOUT_S)
    with Reader(tmp_path / "bag") as reader:
        ((connection, _, message),) = reader.messages()
    assert connection.topic == "/lamp/switch" and deserialize_message(message, Bool).data


def test_another_topic_that_nobody_publishes_is_refused_before_a_bag_is_begun(
    tmp_path, domain_id, monkeypatch
):
    monkeypatch.setattr(record, "DISCOVERY_S", 0.2)
    with pytest.raises(RecordError, match=r"^/lamp/switch: expected somebody to publish it"):
        Recorder(tmp_path / "bag", WIDOWX, "raw", "policy", domain_id, topics=("lamp/switch",))
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize("rule", ["joint_states", ":=joint_states", "camera:=", "a b:=c"])
def test_a_rule_that_is_none_is_refused_before_a_bag_is_begun(tmp_path, domain_id, rule):
    with pytest.raises(ValueError, match=rule):
        Recorder(tmp_path / "bag", WIDOWX, "raw", "policy", domain_id, (rule,))
    assert not (tmp_path / "bag").exists()


def test_the_metadata_of_a_bag_says_what_it_was_given(tmp_path, domain_id):
    about = {"canvas_robot.instruction": "note: touch the red cube"}
    with Recorder(tmp_path / "bag", WIDOWX, "raw", "policy", domain_id, about=about):
        pass
    metadata = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    assert metadata["rosbag2_bagfile_information"]["custom_data"] == about


def test_a_replay_plays_nothing_that_the_recorded_policy_commanded_or_told():
    tree = ast.parse((Path(__file__).parents[2] / "launch/replay.launch.py").read_text())
    (said,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SAID"
    ]
    assert set(said) == set(OUTPUTS) - {"instruction"}


def test_where_messages_of_an_input_cannot_be_written_no_bag_is_begun(tmp_path, domain_id):
    wide = {"get_fields_and_field_types": lambda: {"data": "wstring"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "input_topics", lambda *_: {"wide": type("Wide", (), wide)})
        with pytest.raises(DefinitionError, match="Wide: expected no wide strings"):
            Recorder(tmp_path / "bag", WIDOWX, "raw", "policy", domain_id)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_not_written_over(tmp_path, domain_id):
    with pytest.raises(RecordError, match="exists already"):
        Recorder(tmp_path, WIDOWX, "raw", "policy", domain_id)


def test_where_nothing_comes_no_bag_is_left_and_what_was_awaited_is_told(
    tmp_path, domain_id, monkeypatch
):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))
    for _ in range(2):  # the same command can be given again
        console = Console(file=io.StringIO(), width=1000)
        assert not run_record(tmp_path / "bag", "widowx.yaml", "raw", "policy", 0.2, console)
        told = console.file.getvalue()
        assert "/camera/image_raw" in told and f"ROS_DOMAIN_ID {domain_id}" in told
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Records a robot by the command; whether the bag is whole, and what is said of it."""
    domain = new_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))

    def of(**changes) -> tuple[bool, str]:
        console, folder = Console(file=io.StringIO(), width=1000), tmp_path / "bag"
        with closing(Robot(domain)) as robot:
            vars(robot).update(changes)
            whole = run_record(folder, "widowx.yaml", "raw", "policy", 4.0, console)
        return whole, console.file.getvalue()

    return of


def test_a_bag_in_which_all_came_is_whole(run):
    whole, told = run()
    assert whole and "nothing came of /" not in told and "refuses" not in told


def test_an_input_of_which_nothing_came_is_told_and_the_bag_is_not_whole(run, tmp_path):
    whole, told = run(picture=None)
    assert not whole and "nothing came of /camera/image_raw" in told
    assert is_bag(tmp_path / "bag")


def test_an_input_that_no_node_would_take_is_told_and_the_bag_is_not_whole(run):
    small = np.full((10, 20, 3), 90, np.uint8)
    whole, told = run(picture=small)
    assert not whole and "signal 'image': a node refuses its messages: " in told and "20x10" in told


def test_a_bag_without_decisions_says_so(tmp_path, domain_id):
    with Recorder(tmp_path / "empty", WIDOWX, "raw", "policy", domain_id):
        pass
    with pytest.raises(BagError, match="record while the node is active"):
        verify_bag(tmp_path / "empty", assemble_policy(PolicySettings()))


def test_a_recorder_hears_as_far_as_its_user_lets_it(tmp_path, domain_id, monkeypatch):
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE")
    with Recorder(tmp_path / "bag", WIDOWX, "raw", "policy", domain_id):
        assert "ROS_AUTOMATIC_DISCOVERY_RANGE" not in os.environ


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda bag, file: file.write_bytes(file.read_bytes()[:-10]), "File end magic is invalid"),
        (lambda bag, file: file.write_bytes(file.read_bytes()[:99]), "File end magic is invalid"),
        (lambda bag, file: file.write_bytes(b""), "seems to be empty"),
        (lambda bag, file: file.unlink(), "files are missing"),
        (lambda bag, file: (bag / "metadata.yaml").unlink(), "does not exist"),
        (lambda bag, file: (bag / "metadata.yaml").write_text(""), "Invalid bag metadata"),
    ],
    ids=["cut", "half", "empty", "no file", "no metadata", "empty metadata"],
)
def test_a_bag_that_is_not_whole_says_what_to_do(tmp_path, domain_id, damage, words):
    bag = tmp_path / "bag"
    with Recorder(bag, WIDOWX, "raw", "policy", domain_id):
        pass
    damage(bag, next(bag.glob("*.mcap")))
    assert is_bag(bag)
    with pytest.raises(BagError, match=f"{bag}: expected a whole bag, got .*{words}") as refused:
        verify_bag(bag, SimpleNamespace(binding=WIDOWX))
    assert "`mcap recover`" in str(refused.value)


def test_a_folder_that_is_no_bag_is_refused(tmp_path):
    assert not is_bag(tmp_path)
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information: 3\n")
    with pytest.raises(BagError, match=str(tmp_path)):
        verify_bag(tmp_path, assemble_policy(PolicySettings()))


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_inputs_of_a_binding_are_those_that_its_node_hears(transport):
    camera = "camera/image_raw" + ("/compressed" if transport == "compressed" else "")
    assert set(input_topics(WIDOWX, transport)) == {camera, "joint_states"}


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_a_camera_whose_source_says_its_transport_keeps_it(transport):
    text = config_path("bindings", "widowx_two_cameras.yaml").read_text()
    said = text.replace("topic: camera/image_raw,", "topic: camera/image_raw, transport: raw,")
    other = "topic: wrist_camera/image_raw,"
    said = said.replace(other, f"{other} transport: compressed,")
    assert set(input_topics(binding_from_yaml(said), transport)) == {
        *("camera/image_raw", "wrist_camera/image_raw/compressed", "joint_states")
    }
