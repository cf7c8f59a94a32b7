"""Laws of message conversion: each direction undoes the other, and what cannot be read says why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.ros.messages import (
    MessageError,
    chunk_from_msg,
    chunk_to_msg,
    joints_from_msg,
    joints_to_msg,
    pose_from_msg,
    pose_to_msg,
    stamp_from_ns,
    stamp_ns,
    trajectory_from_msg,
    trajectory_to_msg,
    twist_from_msg,
    twist_to_msg,
)
from canvas_robot.signals.pose import Pose, matrix_from_rpy


@given(st.integers(0, 2**62))
def test_stamps_round_trip(ns):
    ns %= (2**31) * 10**9
    assert stamp_ns(stamp_from_ns(ns)) == ns


def test_joints_are_read_by_name_in_any_order():
    msg = joints_to_msg(("c", "a", "b"), np.array([3.0, 1.0, 2.0]), 7)
    assert joints_from_msg(msg, ("a", "b")).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("names", "positions", "text"),
    [
        (("a",), [1.0], "joints missing: b, got a; name them in the binding"),
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


@given(st.lists(st.floats(-9, 9), min_size=6, max_size=6))
def test_speeds_round_trip(speeds):
    msg = twist_to_msg(np.array(speeds[:3]), np.array(speeds[3:]), 7, "base")
    assert msg.header.frame_id == "base" and stamp_ns(msg.header.stamp) == 7
    assert np.array_equal(np.concatenate(twist_from_msg(msg)), speeds)


def test_speeds_that_are_not_finite_are_refused():
    msg = twist_to_msg(np.array([0.0, np.inf, 0.0]), np.zeros(3), 7, "base")
    with pytest.raises(MessageError, match="TwistStamped: expected finite speeds"):
        twist_from_msg(msg)


def test_joint_trajectories_round_trip():
    msg = trajectory_to_msg(("a", "b"), np.array([0.5, -1.0]), 1_500_000_000, 0.02)
    assert stamp_ns(msg.header.stamp) == 1_500_000_000
    names, positions, seconds = trajectory_from_msg(msg)
    assert (names, positions.tolist(), seconds) == (("a", "b"), [0.5, -1.0], 0.02)
    msg.points = []
    with pytest.raises(MessageError, match="expected a point with a position for each"):
        trajectory_from_msg(msg)


def test_action_chunks_round_trip():
    rows = np.float32([[1, 2, 3], [4, 5, 6]])
    msg = chunk_to_msg(rows)
    assert [dim.label for dim in msg.layout.dim] == ["step", "component"]
    assert np.array_equal(chunk_from_msg(msg), rows)
    msg.layout.dim[0].size = 3
    with pytest.raises(MessageError, match="expected two dimensions of 6 numbers"):
        chunk_from_msg(msg)
