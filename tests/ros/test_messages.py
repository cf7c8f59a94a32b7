"""Laws of message conversion: each direction undoes the other, and what cannot be read says why."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from canvas_robot.ros.messages import (
    MessageError,
    image_from_compressed_msg,
    image_from_msg,
    image_to_msg,
    joints_from_msg,
    joints_to_msg,
    pose_from_msg,
    pose_to_msg,
    stamp_from_ns,
    stamp_ns,
)
from canvas_robot.signals.pose import Pose, matrix_from_rpy


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(0, 2**62))
def test_stamps_round_trip(ns):
    ns %= (2**31) * 10**9
    assert stamp_ns(stamp_from_ns(ns)) == ns


def test_images_round_trip():
    msg = image_to_msg(picture(), 5, "camera")
    assert np.array_equal(image_from_msg(msg), picture())
    assert (msg.height, msg.width, msg.step, msg.encoding) == (6, 8, 24, "rgb8")


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_every_colour_encoding_reads_as_rgb_with_padded_rows(encoding):
    code = {
        "bgr8": cv2.COLOR_RGB2BGR,
        "rgba8": cv2.COLOR_RGB2RGBA,
        "bgra8": cv2.COLOR_RGB2BGRA,
    }.get(encoding)
    pixels = picture() if code is None else cv2.cvtColor(picture(), code)
    row = pixels.shape[1] * pixels.shape[2]
    padded = np.zeros((6, row + 7), np.uint8)
    padded[:, :row] = pixels.reshape(6, row)
    msg = Image(height=6, width=8, encoding=encoding, step=row + 7, data=padded.tobytes())
    assert np.array_equal(image_from_msg(msg), picture())


def test_grey_images_read_as_rgb():
    msg = Image(height=2, width=3, encoding="mono8", step=3, data=bytes(range(6)))
    assert image_from_msg(msg)[1, 2].tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encoding": "yuv422"}, "expected encoding rgb8"),
        ({"step": 5}, "expected 6 rows of at least 24 bytes"),
        ({"height": 7}, "expected 7 rows"),
        ({"height": 2**31, "width": 2**31}, "expected"),
        ({"height": 0}, "expected 0 rows"),
    ],
)
def test_images_that_contradict_themselves_are_refused(change, text):
    msg = image_to_msg(picture(), 5, "camera")
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(MessageError, match=text):
        image_from_msg(msg)


def test_compressed_images_read_as_rgb():
    png = cv2.imencode(".png", cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR))[1].tobytes()
    assert np.array_equal(
        image_from_compressed_msg(CompressedImage(format="png", data=png)), picture()
    )


@pytest.mark.parametrize("data", [b"", b"not a picture"])
def test_bytes_that_are_no_picture_are_refused(data):
    with pytest.raises(MessageError, match="expected JPEG or PNG"):
        image_from_compressed_msg(CompressedImage(format="jpeg", data=data))


def test_joints_are_read_by_name_in_any_order():
    msg = joints_to_msg(("c", "a", "b"), np.array([3.0, 1.0, 2.0]), 7)
    assert joints_from_msg(msg, ("a", "b")).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("names", "positions", "text"),
    [
        (("a",), [1.0], "joints missing: b; there are a"),
        (("a", "b"), [1.0, float("nan")], "expected finite positions, got b=nan"),
        (("a", "b"), [1.0], "2 names and 1 positions"),
        (("a", "a"), [1.0, 2.0], "distinct"),
    ],
)
def test_joint_states_that_lack_something_are_refused(names, positions, text):
    msg = joints_to_msg(names, np.array(positions), 7)
    with pytest.raises(MessageError, match=text):
        joints_from_msg(msg, ("a", "b"))


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.floats(-1.5, 1.5))
def test_poses_round_trip(rpy, x):
    pose = Pose(np.array([x, 0.1, 0.2]), matrix_from_rpy(np.array(rpy)))
    back = pose_from_msg(pose_to_msg(pose, 3, "base"))
    np.testing.assert_allclose(back.position, pose.position, atol=1e-12)
    np.testing.assert_allclose(back.rotation, pose.rotation, atol=1e-12)


@pytest.mark.parametrize("field", ["position", "orientation"])
def test_poses_that_are_not_finite_are_refused(field):
    msg = pose_to_msg(Pose(np.zeros(3), np.eye(3)), 3, "base")
    getattr(msg.pose, field).x = float("nan")
    with pytest.raises(MessageError, match="expected a finite position and a unit quaternion"):
        pose_from_msg(msg)


def test_quaternions_that_are_no_rotation_are_refused():
    msg = pose_to_msg(Pose(np.zeros(3), np.eye(3)), 3, "base")
    msg.pose.orientation.w = 0.0
    with pytest.raises(MessageError, match="unit quaternion"):
        pose_from_msg(msg)
