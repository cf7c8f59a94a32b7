"""Laws of recording: a bag holds what came in and went out, and its decisions can be made again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from std_msgs.msg import String

from canvas_robot.policy.assemble import assemble_policy
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.resources import config_path
from canvas_robot.ros.bag import BagError, is_bag, verify_bag
from canvas_robot.ros.decisions import COMMAND_STATUS, DECISION_STATUS
from canvas_robot.ros.messages import values_from_msg
from canvas_robot.ros.monitor import Monitor
from canvas_robot.ros.record import Recorder, RecordError, input_topics
from canvas_robot.signals import load_binding
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


def test_a_folder_that_exists_is_not_written_over(tmp_path, domain_id):
    with pytest.raises(RecordError, match="exists already"):
        Recorder(tmp_path, WIDOWX, "raw", "policy", domain_id)


def test_a_bag_without_decisions_says_so(tmp_path, domain_id):
    with Recorder(tmp_path / "empty", WIDOWX, "raw", "policy", domain_id):
        pass
    with pytest.raises(BagError, match="record while the node is active"):
        verify_bag(tmp_path / "empty", assemble_policy(PolicySettings()))


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
