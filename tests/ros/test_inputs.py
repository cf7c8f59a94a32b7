"""Laws of inputs: which messages are taken, and what they become."""

import time
from collections import Counter
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
import rclpy
import yaml
from geometry_msgs.msg import WrenchStamped
from rclpy.context import Context
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image, JointState

from canvas_robot.kinematics.arm import Arm
from canvas_robot.resources import config_path
from canvas_robot.ros.bag import BagInputs
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.inputs import Inputs, check_sources, newest_only
from canvas_robot.ros.messages import joints_to_msg, stamp_from_ns
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, load_binding
from canvas_robot.signals.binding import BindingError, RosFields, RosJoined, binding_from_yaml
from tests.ros.conftest import JOINTS, RESET, TIMEOUT_S, received

WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))

PICTURE = np.full((64, 64, 3), 90, np.uint8)


class Counting:
    """In the loop's place: what came of each signal."""

    def __init__(self) -> None:
        self.stamps, self.passed = {"image": [], "state": [], "touch": []}, Counter()
        self.values: dict[str, np.ndarray] = {}
        self.faults: list[str] = []

    def sample(self, signal: str, stamp_ns: int, value: np.ndarray, waited_ns: int = 0) -> bool:
        self.stamps[signal].append(stamp_ns)
        self.values[signal], self.waited_ns = value, waited_ns
        return True

    def skipped(self, signal: str, messages: int) -> None:
        self.passed[signal] += messages

    def fault(self, signal: str, detail: str) -> None:
        self.faults.append(detail)


def test_only_the_newest_counts_of_a_camera_whose_regions_show_one_frame():
    one = load_binding(config_path("bindings", "widowx.yaml"))
    tiny, real = (
        CanvasSchema.from_json(config_path("schemas", name))
        for name in ("widowx_tiny.json", "widowx_bridge_2b.json")
    )
    assert newest_only(one, tiny, simulated=False) == {"image"}
    assert newest_only(one, tiny, simulated=True) == frozenset()  # it may be of after the tick
    assert newest_only(one, real, simulated=False) == frozenset()  # five frames
    two = load_binding(config_path("bindings", "widowx_two_cameras.yaml"))
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_two_cameras_tiny.json"))
    assert newest_only(two, schema, simulated=False) == {"image", "wrist_image"}


@contextmanager
def hearing(domain_id, binding, *topics):
    """Inputs over DDS, what they tell, and publishers of (message type, topic)."""
    context, told = Context(), Counting()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node("listener", context=context)
    newest = frozenset({"image"})
    inputs = Inputs(node, binding, Arm.load("wx250s"), told, "raw", newest_only=newest)
    publishers = [node.create_publisher(*topic, 10) for topic in topics]
    until = time.monotonic() + TIMEOUT_S
    while any(p.get_subscription_count() == 0 for p in publishers) and time.monotonic() < until:
        time.sleep(0.01)
    yield inputs, told, *publishers
    inputs.close()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.fixture
def listening(domain_id):
    topics = (Image, "camera/image_raw"), (JointState, "joint_states")
    with hearing(domain_id, load_binding(config_path("bindings", "widowx.yaml")), *topics) as made:
        yield made


def touching() -> Binding:
    """The shipped binding, with a vector out of two topics, of which one is the arm's too."""
    data = yaml.safe_load(config_path("bindings", "widowx.yaml").read_text())
    data["signals"]["touch"] = {
        "kind": "vector",
        "names": ["z", "waist", "elbow"],
        "units": ["N", "rad", "rad"],
        "low": [-9.0, -4.0, -4.0],
        "high": [9.0, 4.0, 4.0],
        "frame": "",
        "max_age_s": 0.5,
    }
    wrench, joints = "geometry_msgs/msg/WrenchStamped", "sensor_msgs/msg/JointState"
    positions = ["position[waist]", "position[elbow]"]
    data["sources"]["ros"]["touch"] = {
        "type": "joined",
        "parts": [
            {"type": "fields", "topic": "wrench", "message": wrench, "fields": ["wrench.force.z"]},
            {"type": "fields", "topic": "joint_states", "message": joints, "fields": positions},
        ],
    }
    return binding_from_yaml(yaml.safe_dump(data))


def wrench(z: float, stamp: int) -> WrenchStamped:
    msg = WrenchStamped()
    msg.header.stamp, msg.wrench.force.z = stamp_from_ns(stamp), z
    return msg


def test_a_vector_is_joined_out_of_two_topics_of_which_one_is_anothers_too(domain_id):
    topics = (JointState, "joint_states"), (WrenchStamped, "wrench")
    with hearing(domain_id, touching(), *topics) as (inputs, told, joints, wrenches):
        wrenches.publish(wrench(2.5, 2 * 10**9))
        for stamp in (1, 2):
            joints.publish(joints_to_msg(JOINTS, RESET + stamp / 100, stamp * 10**9))
        polled(inputs, lambda: told.stamps["touch"])
        assert 0 <= told.waited_ns < TIMEOUT_S * 1e9
        assert told.stamps["touch"] == [2 * 10**9] and told.stamps["state"][-1] == 2 * 10**9
        waist, elbow = (RESET[JOINTS.index(name)] + 0.02 for name in ("waist", "elbow"))
        np.testing.assert_allclose(told.values["touch"], [2.5, waist, elbow], atol=1e-6)
        # Joint states pause: what they said before is too old to stand beside a newer force.
        wrenches.publish(wrench(2.5, 3 * 10**9))
        joints.publish(joints_to_msg(JOINTS, RESET, 4 * 10**9))
        polled(inputs, lambda: told.faults)
    assert told.stamps["touch"] == [2 * 10**9]
    assert told.faults == [
        "wrench: expected a sample of joint_states within 0.5 s before its own, got one 1.000 s "
        "before; see its rate and its clock"
    ]


def test_a_bag_gives_one_topic_to_all_that_are_made_of_it():
    """As the node's own subscriptions do."""
    binding = touching()
    inputs = BagInputs(binding, Arm.load("wx250s"), "raw", "/policy")
    for stamp, topic, msg in (
        (1, "/wrench", wrench(2.5, 1)),
        (2, "/joint_states", joints_to_msg(JOINTS, RESET, 1)),
    ):
        inputs.take(topic, stamp, serialize_message(msg))
    assert inputs.streams["state"].stamps_ns == inputs.streams["touch"].stamps_ns == [1]


def test_what_counts_as_received_has_no_need_of_stamps_that_mean_anything():
    binding = binding_from_yaml(received("image", "state"))
    inputs = BagInputs(binding, Arm.load("wx250s"), "raw", "/policy")
    picture = image_to_msg(np.full((256, 256, 3), 90, np.uint8), 0, "camera")
    for stamp in (10**9, 2 * 10**9):
        inputs.take("/joint_states", stamp, serialize_message(joints_to_msg(JOINTS, RESET, 5)))
        inputs.take("/camera/image_raw", stamp + 7, serialize_message(picture))
    assert inputs.streams["state"].stamps_ns == [10**9, 2 * 10**9]
    assert inputs.streams["image"].stamps_ns == [10**9 + 7, 2 * 10**9 + 7]


def test_a_message_counts_from_when_it_came_not_from_when_it_was_taken(domain_id):
    topic = (JointState, "joint_states")
    binding = binding_from_yaml(received("state"))
    with hearing(domain_id, binding, topic) as (inputs, told, joints):
        before_ns = time.time_ns()
        joints.publish(joints_to_msg(JOINTS, RESET, 0))
        time.sleep(0.05)  # it lies there
        polled(inputs, lambda: told.stamps["state"])
    (stamp,) = told.stamps["state"]
    assert told.waited_ns > 0 and before_ns <= stamp <= time.time_ns() - told.waited_ns


@pytest.mark.parametrize(
    ("turned", "ms", "believed"),
    [
        ([0, 0, 0.5, 0, 0], 20, [0, 1, 4]),  # a wrong reading, and the way back from it
        ([0, 0, 0.5, 0.5, 0.5], 20, [0, 1, 3, 4]),  # it is there to stay
        ([0, 0.1, 0.2, 0.3, 0.4], 20, [0, 1, 2, 3, 4]),  # 5 rad/s: somebody's hand
        ([0, 0, 1.2, 1.2, 2.4], 200, [0, 1, 2, 3, 4]),  # slow joint states
        ([0, 0.3, 0, 0.3, 0], 20, [0]),  # two publishers that disagree
    ],
)
def test_a_joint_that_is_said_to_be_elsewhere_at_once_is_not_believed(turned, ms, believed):
    inputs = BagInputs(WIDOWX, Arm.load("wx250s"), "raw", "/policy")
    stamps = [10**9 + k * ms * 10**6 for k in range(len(turned))]
    for stamp, angle in zip(stamps, turned, strict=True):
        msg = joints_to_msg(JOINTS, RESET + np.eye(7)[0] * angle, stamp)
        inputs.take("/joint_states", stamp, serialize_message(msg))
    assert inputs.streams["state"].stamps_ns == [stamps[k] for k in believed]
    refused, why = inputs.refused.get("state", (0, ""))
    assert refused == len(turned) - len(believed)
    assert not refused or "expected waist at most 0.23 rad from where it was 0.020 s before" in why


def test_every_part_of_a_joined_vector_is_checked_before_anything_is_heard():
    part = RosFields(topic="x", message="sensor_msgs/msg/JointState", fields=("velocity[waist]",))
    wrong = msgspec.structs.replace(part, fields=("speed[waist]",) * 6)
    binding, schema = touching(), CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    ros = {"image": binding.sources.ros["image"], "state": RosJoined(parts=(part, wrong))}
    sources = msgspec.structs.replace(binding.sources, ros=ros)
    seven = msgspec.structs.replace(binding, sources=sources)
    with pytest.raises(BindingError, match=r"field 'speed\[waist\]': JointState has no 'speed'"):
        check_sources(seven, Arm.load("wx250s"), schema)


def polled(inputs: Inputs, come) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not come() and time.monotonic() < until:
        inputs.poll()
    assert come()


def test_of_pictures_the_newest_is_taken_of_joint_states_all(listening):
    inputs, told, images, joints = listening
    images.publish(image_to_msg(PICTURE, 1, "camera"))
    polled(inputs, lambda: told.stamps["image"])
    for stamp in range(2, 7):
        images.publish(image_to_msg(PICTURE, stamp, "camera"))
        joints.publish(joints_to_msg(JOINTS, RESET, stamp))
    polled(inputs, lambda: told.stamps["image"][-1] == (told.stamps["state"] or [0])[-1] == 6)
    assert told.stamps["state"] == [2, 3, 4, 5, 6] and told.passed["state"] == 0
    assert len(told.stamps["image"]) + told.passed["image"] == 6


def test_numbers_of_two_publishers_are_no_count_of_what_was_skipped(listening):
    """Each counts its own messages: what one has said before says nothing of the other's."""
    inputs, told, _, joints = listening
    for stamp in range(1, 9):
        joints.publish(joints_to_msg(JOINTS, RESET, stamp))
    polled(inputs, lambda: told.stamps["state"][-1:] == [8])
    other = inputs._node.create_publisher(JointState, "joint_states", 10)
    until = time.monotonic() + TIMEOUT_S
    while other.get_subscription_count() == 0 and time.monotonic() < until:
        time.sleep(0.01)
    for stamp in range(9, 20, 2):
        other.publish(joints_to_msg(JOINTS, RESET, stamp))
        polled(inputs, lambda stamp=stamp: told.stamps["state"][-1] == stamp)
        joints.publish(joints_to_msg(JOINTS, RESET, stamp + 1))
        polled(inputs, lambda stamp=stamp: told.stamps["state"][-1] == stamp + 1)
    assert told.passed["state"] == 0


def test_far_from_a_tick_pictures_wait(listening):
    inputs, told, images, joints = listening
    inputs.poll()
    images.publish(image_to_msg(PICTURE, 1, "camera"))
    joints.publish(joints_to_msg(JOINTS, RESET, 1))
    until = time.monotonic() + TIMEOUT_S
    while not told.stamps["state"] and time.monotonic() < until:
        inputs.poll(pictures=False)
        inputs._pictures_s = time.monotonic()  # as if only a moment had passed
    assert told.stamps["state"] and not told.stamps["image"]
    polled(inputs, lambda: told.stamps["image"] == [1])


def test_of_a_message_of_ten_thousand_names_a_fault_tells_some(listening):
    inputs, told, _, joints = listening
    names = tuple(f"joint_number_{i}" for i in range(10_000))
    joints.publish(joints_to_msg(names, np.zeros(10_000), 1))
    polled(inputs, lambda: told.faults)
    assert told.faults[0].startswith("joint_states: JointState: joints missing: waist, ")
    assert len(told.faults[0]) <= 1000
