"""Laws of inputs: which messages are taken, and how poses pair with gripper positions."""

import time
from collections import Counter

import numpy as np
import pytest
import rclpy
from hypothesis import given
from hypothesis import strategies as st
from rclpy.context import Context
from sensor_msgs.msg import Image, JointState

from canvas_robot.kinematics.arm import Arm
from canvas_robot.resources import config_path
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.inputs import Inputs, PosePairing, newest_only
from canvas_robot.ros.messages import joints_to_msg
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding
from canvas_robot.signals.pose import Pose
from tests.ros.conftest import JOINTS, RESET, TIMEOUT_S

PICTURE = np.full((64, 64, 3), 90, np.uint8)
POSE = Pose(np.array([0.3, 0.0, 0.1]), np.eye(3))


def paired(events):
    out = []
    pairing = PosePairing(lambda stamp, state: out.append((stamp, round(float(state[6]), 6))))
    for kind, stamp in events:
        if kind == "pose":
            pairing.pose(stamp, POSE)
        else:
            pairing.gripper(stamp, stamp / 100)
    return out


@pytest.mark.parametrize("first", ["pose", "gripper"])
def test_equal_stamps_pair_whichever_comes_first(first):
    second = "gripper" if first == "pose" else "pose"
    assert paired([(first, 10), (second, 10)]) == [(10, 0.1)]


def test_a_pose_takes_the_newest_gripper_before_it_once_a_later_one_came():
    assert paired([("gripper", 5), ("gripper", 9), ("pose", 10)]) == []
    assert paired([("gripper", 5), ("gripper", 9), ("pose", 10), ("gripper", 12)]) == [(10, 0.09)]


def test_a_pose_without_an_earlier_gripper_is_passed_over():
    assert paired([("pose", 3), ("gripper", 5), ("pose", 5)]) == [(5, 0.05)]


def test_a_pose_from_the_future_keeps_no_other_waiting():
    ahead = ("pose", 10**9)
    assert paired([ahead, ("pose", 10), ("gripper", 10)]) == [(10, 0.1)]


@given(st.permutations([("pose", 10), ("gripper", 10), ("pose", 20), ("gripper", 20)]))
def test_order_of_arrival_between_topics_changes_nothing(events):
    in_order = [e for e in events if e[0] == "pose"] == [("pose", 10), ("pose", 20)]
    grippers_in_order = [e for e in events if e[0] == "gripper"] == [
        ("gripper", 10),
        ("gripper", 20),
    ]
    if in_order and grippers_in_order:
        assert paired(events) == [(10, 0.1), (20, 0.2)]


class Counting:
    """In the loop's place: what came of each signal."""

    def __init__(self) -> None:
        self.stamps, self.passed = {"image": [], "state": []}, Counter()
        self.faults: list[str] = []

    def sample(self, signal: str, stamp_ns: int, value: np.ndarray, waited_ns: int = 0) -> bool:
        self.stamps[signal].append(stamp_ns)
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


@pytest.fixture
def listening(domain_id):
    """Inputs over DDS, what they tell, and publishers of their two topics."""
    context, told = Context(), Counting()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node("listener", context=context)
    binding = load_binding(config_path("bindings", "widowx.yaml"))
    newest = frozenset({"image"})
    inputs = Inputs(node, binding, Arm.load("wx250s"), told, "raw", newest_only=newest)
    publishers = (
        node.create_publisher(Image, "camera/image_raw", 10),
        node.create_publisher(JointState, "joint_states", 10),
    )
    until = time.monotonic() + TIMEOUT_S
    while any(p.get_subscription_count() == 0 for p in publishers) and time.monotonic() < until:
        time.sleep(0.01)
    yield inputs, told, *publishers
    inputs.close()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


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
