"""Laws of learning from bags: an episode shows what the node saw, at the ticks it had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from std_msgs.msg import Float64, String
from typer.testing import CliRunner

from canvas_robot.cli import app
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.transitions import DataRules, chosen
from canvas_robot.kinematics.rule import gripper_from_state
from canvas_robot.resources import config_path
from canvas_robot.ros.bag import BagError
from canvas_robot.ros.bag_episode import PICTURE, bag_episode
from canvas_robot.ros.description import arm_of
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.messages import joints_to_msg
from canvas_robot.signals import load_binding
from tests.ros.conftest import JOINTS, RESET

BINDING = config_path("bindings", "widowx.yaml")
WIDOWX = load_binding(BINDING)
MS, TICK_NS = 1_000_000, WIDOWX.tick_ns
START_NS = 7_000 * MS
LATER_NS = 100_000 * MS  # the recorder's clock, ahead of the robot's
TYPES = get_typestore(Stores.ROS2_JAZZY)
RECORDED = {"canvas_robot.binding": BINDING.read_text(), "canvas_robot.instruction": "touch it"}


def joints_at(stamp_ns: int) -> np.ndarray:
    """The waist turns, and the finger closes."""
    seconds = (stamp_ns - START_NS) / 1e9
    return RESET + np.array([0.1 * seconds, 0, 0, 0, 0, 0, -0.01 - 0.002 * seconds])


def write(folder: Path, messages, about=RECORDED) -> Path:
    """A bag of (topic, type, stamp, message), each received LATER_NS after its stamp."""
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for key, value in about.items():
            writer.set_custom_data(key, value)
        connections = {}
        for topic, kind, stamp_ns, msg in sorted(messages, key=lambda one: one[2]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], stamp_ns + LATER_NS, serialize_message(msg))
    return folder


def seen(ms: int, topic: str, begins: int = 13, first: int = 10, without=range(0)) -> list:
    """Pictures of 20 Hz for so long; the n-th is grey, by `first` + n."""
    return [
        (
            topic,
            "sensor_msgs/msg/Image",
            START_NS + at * MS,
            image_to_msg(np.full((480, 640, 3), number + first, np.uint8), START_NS + at * MS, "c"),
        )
        for number, at in enumerate(range(begins, ms, 50))
        if at not in without
    ]


def watched(ms: int, namespace: str = "", without=range(0)) -> list:
    """Joints of 50 Hz and pictures of 20 Hz for so long."""
    joints = [
        (
            f"{namespace}/joint_states",
            "sensor_msgs/msg/JointState",
            stamp_ns,
            joints_to_msg(JOINTS, joints_at(stamp_ns), stamp_ns),
        )
        for stamp_ns in (START_NS + at * MS for at in range(0, ms, 20))
    ]
    return [*joints, *seen(ms, f"{namespace}/camera/image_raw", without=without)]


def gripper(at_ms: int, share: float, namespace: str = "") -> tuple:
    topic = f"{namespace}/policy/gripper"
    return topic, "std_msgs/msg/Float64", START_NS + at_ms * MS, Float64(data=share)


def told(at_ms: int, words: str) -> tuple:
    stamp_ns = START_NS + at_ms * MS
    return "/policy/instruction", "std_msgs/msg/String", stamp_ns, String(data=words)


def test_a_step_shows_the_newest_samples_at_or_before_its_tick(tmp_path):
    episode = bag_episode(write(tmp_path / "bag", watched(1200)))
    first_ns = START_NS + 13 * MS  # the first at which there is a picture too
    ticks = first_ns + TICK_NS * np.arange(len(episode))
    np.testing.assert_array_equal(episode.stamps_ns, ticks)
    assert len(episode) == 5 and episode.images.shape == (5, *PICTURE, 3)
    newest = (ticks - first_ns) // (50 * MS)
    np.testing.assert_array_equal(episode.images[:, 0, 0, 0], newest + 10)
    arm = arm_of(WIDOWX)
    for tick, state in zip(ticks.tolist(), episode.states, strict=True):
        joints = joints_at(START_NS + (tick - START_NS) // (20 * MS) * (20 * MS))
        expected = arm.measured_state(joints[:-1], joints[-1])
        np.testing.assert_allclose(state, expected, atol=1e-5)


def test_an_action_leads_to_the_next_state_with_the_gripper_as_commanded_by_then(tmp_path):
    messages = [*watched(1200), gripper(300, 1.0), gripper(700, 0.0)]
    episode = bag_episode(write(tmp_path / "bag", messages))
    moved = episode.states[:-1, :3] + episode.actions[:-1, :3]
    np.testing.assert_allclose(moved, episode.states[1:, :3], atol=1e-6)
    assert np.abs(episode.actions[:, :2]).max() > 1e-3
    # Ticks end 213, 413, 613, 813 and 1013 ms after the first sample.
    np.testing.assert_array_equal(episode.actions[1:, 6], [1.0, 1.0, 0.0, 0.0])


def test_where_nobody_commands_the_gripper_is_asked_to_be_where_it_comes_to(tmp_path):
    episode = bag_episode(write(tmp_path / "bag", watched(1200)))
    came_to = [gripper_from_state(state) for state in episode.states[1:, 6].tolist()]
    np.testing.assert_array_equal(episode.actions[:-1, 6], np.float32(came_to))


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_hand_that_nobody_commanded_is_seen_to_be_closed_or_open(tmp_path, monkeypatch, target):
    """As the targets of Bridge V2 say it, and not its states, which are 0.2 where it is closed."""
    finger = arm_of(WIDOWX).finger_from_gripper(target)
    moves = joints_at
    monkeypatch.setattr(
        f"{__name__}.joints_at", lambda stamp_ns: np.append(moves(stamp_ns)[:-1], finger)
    )
    episode = bag_episode(write(tmp_path / "bag", watched(1200)))
    np.testing.assert_allclose(episode.actions[:, 6], target, atol=1e-6)


def test_a_node_in_a_namespace_is_learnt_from_by_its_name(tmp_path):
    messages = [*watched(800, "/left"), gripper(100, 0.25, "/left")]
    episode = bag_episode(write(tmp_path / "bag", messages), name="left/policy")
    np.testing.assert_array_equal(episode.actions[:, 6], 0.25)
    with pytest.raises(BagError, match="expected samples of 'image' and 'state'"):
        bag_episode(tmp_path / "bag")


def test_what_is_shown_is_what_is_said_now_or_in_the_metadata_or_was_said_last(tmp_path):
    messages = [*watched(800), told(10, "touch that"), told(20, "touch this")]
    folder = write(tmp_path / "bag", messages)
    assert bag_episode(folder, instruction="lift it").instruction == "lift it"
    assert bag_episode(folder).instruction == "touch it"
    silent = write(tmp_path / "silent", messages, about={})
    assert bag_episode(silent, WIDOWX).instruction == "touch this"


@pytest.mark.parametrize(
    ("messages", "about", "words"),
    [
        (watched(2000, without=range(600, 1400)), RECORDED, "signal 'image' pauses 1.2 s after"),
        (watched(150), RECORDED, "expected two control ticks"),
        ([told(0, "touch it")], RECORDED, "expected samples of"),
        (watched(800), {}, "expected a binding in its metadata"),
        (
            watched(800),
            {"canvas_robot.binding": BINDING.read_text().replace("rate_hz: 5.0", "rate_hz: 10.0")},
            "control_rate_hz: expected 5",
        ),
    ],
)
def test_a_bag_that_shows_no_whole_episode_is_refused(tmp_path, messages, about, words):
    with pytest.raises(BagError, match=words):
        bag_episode(write(tmp_path / "bag", messages, about))


def test_what_is_no_bag_is_refused_with_what_it_may_be(tmp_path):
    bag = write(tmp_path / "bags" / "one", watched(800))
    for path, hint in (
        (tmp_path / "bags", r"it holds 1: give .*bags/\*"),
        (tmp_path / "none", "there is no such folder"),
        (next(bag.glob("*.mcap")), "give the folder that it is in"),
    ):
        with pytest.raises(BagError, match=f"expected the folder of a rosbag2 recording; {hint}"):
            bag_episode(path)


def test_a_bag_that_was_cut_short_is_refused_with_the_way_to_save_it(tmp_path):
    bag = write(tmp_path / "bag", watched(800))
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BagError, match=r"bag: expected a whole bag, got .*mcap recover"):
        bag_episode(bag)


def test_a_bag_whose_binding_is_none_says_which_bag(tmp_path):
    about = {**RECORDED, "canvas_robot.binding": "foo: 1"}
    bag = write(tmp_path / "bag", watched(800), about)
    with pytest.raises(BagError, match=r"bag: the binding in its metadata: .*--binding"):
        bag_episode(bag)


def test_all_bags_are_looked_at_before_the_first_is_read(tmp_path):
    good = write(tmp_path / "good", watched(800))
    words = ["data", "from-bags", str(good), str(tmp_path / "a"), str(tmp_path / "b")]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")])
    assert done.exit_code and not (tmp_path / "out").exists()
    assert all(f"{tmp_path / name}: expected" in str(done.exception) for name in "ab")
    assert "steps" not in done.output


def test_bags_that_make_no_episode_are_passed_over_where_that_is_asked_for(tmp_path):
    good, short = write(tmp_path / "good", watched(800)), write(tmp_path / "short", watched(100))
    bags = [str(tmp_path / "none"), str(short), str(good)]
    words = ["data", "from-bags", *bags[1:], "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code and "expected two control ticks at least" in str(done.exception)
    done = CliRunner().invoke(app, [*words, bags[0], "--skip-unusable"])
    told = " ".join(done.output.split())
    assert done.exit_code == 0 and told.count("passed over: ") == 2
    assert "2 of 3 bags passed over" in told and len(BridgeV2(tmp_path / "out/recorded")) == 1
    words = ["data", "from-bags", *bags[:2], "-o", str(tmp_path / "no"), "--skip-unusable"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code and all(bag in str(done.exception) for bag in bags[:2])


def test_what_cannot_be_asked_for_is_refused_before_a_bag_is_read(tmp_path):
    bag, file = write(tmp_path / "bag", watched(800)), tmp_path / "file"
    file.touch()
    for words, refusal in (
        (["-o", str(tmp_path), "--split", "test"], "--split: expected train or val, got 'test'"),
        (["-o", str(file)], f"--out: expected a folder, got the file {file}"),
    ):
        done = CliRunner().invoke(app, ["data", "from-bags", str(bag), *words])
        assert done.exit_code and str(done.exception) == refusal


def test_bags_become_a_data_set_that_training_reads(tmp_path):
    bags = [write(tmp_path / name, watched(800)) for name in ("one", "two")]
    done = CliRunner().invoke(app, ["data", "from-bags", *map(str, bags), "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    read = list(BridgeV2(tmp_path / "recorded"))
    for bag, episode in zip(bags, read, strict=True):
        expected = bag_episode(bag)
        np.testing.assert_array_equal(episode.states, expected.states)
        np.testing.assert_array_equal(episode.actions, expected.actions)
        assert episode.instruction == "touch it"
    assert BridgeV2(tmp_path / "recorded").achieved and "rules.actions=composed" in done.output


TWO = config_path("bindings", "widowx_two_cameras.yaml")


def two_cameras(folder: Path) -> Path:
    return write(folder, [*watched(1200), *seen(1200, "/wrist_camera/image_raw", 31, 100)])


def test_every_camera_is_stored_where_the_binding_reads_it_from(tmp_path):
    bag = two_cameras(tmp_path / "bag")
    words = ["data", "from-bags", str(bag), "-o", str(tmp_path), "--binding", str(TWO)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "left out" not in done.output, done.output
    episode = bag_episode(bag, load_binding(TWO))
    ticks = (episode.stamps_ns - START_NS) // MS
    np.testing.assert_array_equal(ticks, 31 + 200 * np.arange(len(ticks)))
    assert len(ticks) == 5 and episode.pictures.keys() == {"image_0", "image_3"}
    for camera, (begins, first) in {"image_0": (13, 10), "image_3": (31, 100)}.items():
        newest = first + (ticks - begins) // 50
        np.testing.assert_array_equal(episode.pictures[camera][:, 0, 0, 0], newest)
        stored = BridgeV2(tmp_path / "recorded").read(0)
        assert stored.has_picture(camera) and not stored.has_picture("image_1")
        decoded = stored.images(camera, range(len(ticks)))[:, 0, 0, 0]
        np.testing.assert_allclose(decoded, newest, atol=2)  # JPEG
    with pytest.raises(BagError, match=r"'wrist_image'.* lack, "):
        bag_episode(write(tmp_path / "one", watched(800)), load_binding(TWO))


def test_bags_that_differ_in_their_cameras_are_told(tmp_path):
    about = RECORDED | {"canvas_robot.binding": TWO.read_text()}
    wrist = seen(1200, "/wrist_camera/image_raw", 31, 100)
    two = write(tmp_path / "two", [*watched(1200), *wrist], about)
    one = write(tmp_path / "one", watched(1200))
    words = ["data", "from-bags", *map(str, (one, two)), "-o", str(tmp_path)]
    told = " ".join(CliRunner().invoke(app, words).output.split())
    assert "in their cameras: 1 have image_0; 1 have image_0, image_3; training leaves" in told
    kept = chosen(BridgeV2(tmp_path / "recorded"), DataRules(), ["image_0", "image_3"])
    assert kept.left_out["no picture from image_3"] == 1 and len(kept) == 1


@pytest.mark.parametrize("name", ["image_0", "image_7", "wrist"])
def test_a_camera_that_is_to_be_stored_as_another_or_nowhere_is_refused(tmp_path, name):
    bag, same = two_cameras(tmp_path / "bag"), tmp_path / "same.yaml"
    same.write_text(TWO.read_text().replace("wrist_image: image_3", f"wrist_image: {name}"))
    with pytest.raises(BagError, match=rf"sources\.dataset: expected one of .*'{name}'.*; mend"):
        bag_episode(bag, load_binding(same))


def test_where_no_camera_is_named_the_first_is_stored_as_the_first(tmp_path):
    bag, none = two_cameras(tmp_path / "bag"), tmp_path / "none.yaml"
    none.write_text(TWO.read_text().replace("image: image_0, wrist_image: image_3, ", ""))
    episode = bag_episode(bag, load_binding(none))
    assert list(episode.pictures) == ["image_0"] and episode.images.max() < 100


@pytest.mark.parametrize(
    ("begins", "ends", "steps", "words"),
    [(2400, 3000, 2, "begins 2.4 s late"), (31, 700, 3, "ends 2.3 s early"), (31, 2900, 14, "")],
)
def test_an_episode_that_begins_late_or_ends_early_is_told(tmp_path, begins, ends, steps, words):
    wrist = seen(ends, "/wrist_camera/image_raw", begins)
    bag = write(tmp_path / "bag", [*watched(3000), *wrist])
    words_of = ["data", "from-bags", str(bag), "-o", str(tmp_path), "--binding", str(TWO)]
    told = " ".join(CliRunner().invoke(app, words_of).output.split())
    assert f"{steps} steps" in told and "image_0, image_3" in told
    assert (f"signal 'wrist_image' {words}" in told) if words else ("'wrist_image'" not in told)


def test_pictures_of_a_size_that_is_not_declared_are_refused_as_by_the_node(tmp_path):
    bag, small = write(tmp_path / "bag", watched(800)), tmp_path / "small.yaml"
    small.write_text(BINDING.read_text().replace("[480, 640], ", ""))
    with pytest.raises(BagError, match=r"'image'\] lack, 16 messages .* are refused.* 640"):
        bag_episode(bag, load_binding(small))


def test_messages_that_are_refused_are_told_with_the_reason(tmp_path):
    dark = seen(1200, "/wrist_camera/image_raw", 31, first=0)  # black at first, then less so
    bag = write(tmp_path / "bag", [*watched(1200), *dark])
    lines = []
    bag_episode(bag, load_binding(TWO), tell=lines.append)
    assert ["messages of signal 'wrist_image' are refused" in line for line in lines] == [True]
    assert lines[0].startswith("3 ") and "the picture is black" in lines[0]
    black = write(tmp_path / "black", [*watched(150), *seen(150, "/wrist_camera/image_raw", 31, 0)])
    with pytest.raises(BagError, match=r"'wrist_image'\] lack, 3 messages .* picture is black"):
        bag_episode(black, load_binding(TWO))


def test_signals_that_a_step_has_no_place_for_are_told(tmp_path):
    bag = two_cameras(tmp_path / "bag")
    other = tmp_path / "other.yaml"
    other.write_text(TWO.read_text().replace(", wrist_image: image_3", ""))
    words = ["data", "from-bags", str(bag), "-o", str(tmp_path / "out")]
    told = CliRunner().invoke(app, [*words, "--binding", str(other)])
    assert told.exit_code == 0, told.output
    assert "sources.dataset names: wrist_image" in " ".join(told.output.split())
    one = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "one")])
    assert one.exit_code == 0 and "left out" not in one.output
