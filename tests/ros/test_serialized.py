"""Laws of serialized messages: they say what rclpy's say, and bad ones say why."""

import array
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String

from canvas_robot.ros.images import image_from_msg
from canvas_robot.ros.messages import (
    MessageError,
    joints_from_msg,
    pose_to_msg,
    stamp_from_ns,
    stamp_ns,
    twist_to_msg,
)
from canvas_robot.ros.serialized import (
    CommandMessages,
    JointsReader,
    ReadImage,
    ReadJoints,
    Template,
    read_image,
)
from canvas_robot.signals.pose import Pose, matrix_from_rpy

NUMBERS = st.floats(-1e3, 1e3)
STAMPS = st.integers(0, 2**31 * 10**9 - 1)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(deadline=None)
@given(STAMPS, WORDS, st.lists(NUMBERS, min_size=6, max_size=6))
def test_commands_say_what_rclpys_messages_say(stamp, frame, numbers):
    messages = CommandMessages(frame)
    place, turn = np.array(numbers[:3]), matrix_from_rpy(np.array(numbers[3:]))
    for written_before in (False, True):
        pose = Pose(place, turn)
        for written, msg in (
            (messages.pose(pose, stamp), pose_to_msg(pose, stamp, frame)),
            (messages.twist(place, turn[0], stamp), twist_to_msg(place, turn[0], stamp, frame)),
            (messages.gripper(numbers[0]), Float64(data=numbers[0])),
        ):
            assert deserialize_message(written, type(msg)) == msg
            assert len(written) == len(serialize_message(msg))
        place = place + written_before


def test_a_message_that_is_laid_out_otherwise_is_refused():
    with pytest.raises(ValueError, match=r"String: expected .* its 1 numbers last, got 0"):
        Template(String(data="no number"), (0.5,))


def image(stamp: int, frame: str, height: int, width: int, encoding: str, pad: int) -> Image:
    step = width * 3 + pad
    data = array.array("B", np.arange(height * step).astype(np.uint8).tobytes())
    msg = Image(height=height, width=width, encoding=encoding, step=step, data=data)
    msg.header.stamp, msg.header.frame_id = stamp_from_ns(stamp), frame
    return msg


@settings(deadline=None)
@given(STAMPS, WORDS, st.integers(1, 5), st.integers(1, 5), WORDS, st.integers(0, 3))
def test_images_are_read_as_rclpy_reads_them(stamp, frame, height, width, encoding, pad):
    msg = image(stamp, frame, height, width, encoding, pad)
    read = read_image(serialize_message(msg))
    assert isinstance(read, ReadImage)
    assert stamp_ns(read.header.stamp) == stamp
    for name in ("height", "width", "encoding", "is_bigendian", "step"):
        assert getattr(read, name) == getattr(msg, name)
    assert bytes(read.data) == msg.data.tobytes()
    msg.encoding = "rgb8"
    np.testing.assert_array_equal(
        image_from_msg(read_image(serialize_message(msg))), image_from_msg(msg)
    )


JOINTS = st.lists(st.tuples(WORDS, NUMBERS, NUMBERS), max_size=9)


def joint_state(stamp: int, frame: str, joints, efforts: bool, velocities: bool) -> JointState:
    names, positions, others = zip(*joints, strict=True) if joints else ((), (), ())
    msg = JointState(name=list(names), position=list(positions))
    msg.velocity, msg.effort = list(others) if velocities else [], list(others) if efforts else []
    msg.header.stamp, msg.header.frame_id = stamp_from_ns(stamp), frame
    return msg


@settings(deadline=None)
@given(st.lists(st.tuples(STAMPS, WORDS, JOINTS, st.booleans(), st.booleans()), max_size=4))
def test_joint_states_are_read_as_rclpy_reads_them_whatever_came_before(told):
    reader = JointsReader()
    for one in told:
        msg = joint_state(*one)
        for _ in range(2):
            read = reader.read(serialize_message(msg))
            assert isinstance(read, ReadJoints)
            assert stamp_ns(read.header.stamp) == one[0]
            assert list(read.name) == msg.name
            assert list(read.position) == msg.position.tolist()
            assert list(read.effort) == msg.effort.tolist()


def test_what_is_cut_short_is_refused_and_the_next_one_read():
    joints = [("waist", 0.5, 0.1), ("elbow", -0.5, 0.2)]
    whole = serialize_message(joint_state(7, "base", joints, True, True))
    reader = JointsReader()
    for end in range(len(whole)):
        with pytest.raises(MessageError, match="JointState: expected"):
            reader.read(whole[:end])
        assert joints_from_msg(reader.read(whole), ("elbow",)).tolist() == [-0.5]
    whole = serialize_message(image(7, "camera", 2, 2, "rgb8", 0))
    for end in range(len(whole)):
        with pytest.raises(MessageError, match="Image: expected"):
            read_image(whole[:end])
    padded = whole[:2] + b"\0\3" + whole[4:] + b"\0\0\0"  # as Cyclone DDS says how much it added
    assert isinstance(read_image(padded), ReadImage)
    assert bytes(read_image(padded).data) == bytes(read_image(whole).data)


@pytest.mark.parametrize("at", range(4, 52, 4))
@pytest.mark.parametrize("count", [0x7FFFFFFF, 0xFFFFFFFF, 0x10000000])
def test_sizes_from_outside_are_not_believed(at, count):
    """Whichever word of the message says so much: it is refused, or was the size of nothing."""

    def with_it(msg: object) -> bytes:
        serialized = bytearray(serialize_message(msg))
        struct.pack_into("<I", serialized, at, count)
        return bytes(serialized)

    picture = image(7, "camera", 2, 2, "rgb8", 0)
    joints = [("waist", 0.5, 0.1), ("elbow", -0.5, 0.2)]
    refused = 0
    try:
        assert bytes(read_image(with_it(picture)).data) == picture.data.tobytes()
    except MessageError:
        refused += 1
    try:
        read = JointsReader().read(with_it(joint_state(7, "base", joints, True, True)))
        assert (len(read.name), len(read.position)) == (2, 2)
    except MessageError:
        refused += 1
    assert refused == _SIZES_AT.get(at, 0)


# Of frame and encoding, of the picture's data; of frame, names, the two names.
_SIZES_AT = {12: 2, 24: 1, 28: 1, 32: 1, 40: 1, 48: 1}


@pytest.mark.parametrize("name", [b"a\xff", b"\xe4", b"a\0b"])
def test_names_that_are_no_text_are_read_as_rclpy_reads_them(name):
    """Of a joint that is none of ours, say."""
    msg = serialize_message(joint_state(7, "", [("?" * len(name), 0.5, 0.1)] * 2, True, True))
    foreign = msg.replace(b"?" * len(name), name)
    assert list(JointsReader().read(foreign).name) == deserialize_message(foreign, JointState).name


def test_other_representations_are_read_as_rclpy_reads_them():
    """Such as those of a big-endian machine."""
    types = get_typestore(Stores.ROS2_JAZZY)
    little = serialize_message(joint_state(7, "base", [("waist", 0.5, 0.1)], True, True))
    name = "sensor_msgs/msg/JointState"
    big = bytes(types.serialize_cdr(types.deserialize_cdr(little, name), name, little_endian=False))
    assert big != little
    assert JointsReader().read(big) == deserialize_message(little, JointState)
    with pytest.raises(MessageError, match="JointState: expected a message"):
        JointsReader().read(b"\0\0\0\0\1")
