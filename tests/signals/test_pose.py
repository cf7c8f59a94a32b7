"""Laws of the pose conversions: each undoes its inverse; Bridge's angles are 0 pointing down."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.signals.pose import (
    BRIDGE_DEFAULT_ROTATION,
    Pose,
    angle_between,
    angular_velocity,
    bridge_state_from_pose,
    matrix_from_quaternion,
    matrix_from_rpy,
    pose_from_bridge_state,
    quaternion_from_matrix,
    rotation_vector,
    rpy_from_matrix,
    rpy_rates,
)

PITCH = np.pi / 2 - 0.01  # nearer to a right angle roll and yaw are one

angles = st.floats(-np.pi, np.pi)
turns = st.tuples(angles, st.floats(-PITCH, PITCH), angles).map(np.array)
rotations = turns.map(matrix_from_rpy)
positions = st.tuples(*[st.floats(-1.0, 1.0)] * 3).map(np.array)
quaternions = (
    st.tuples(*[st.floats(-1.0, 1.0)] * 4).map(np.array).filter(lambda q: np.linalg.norm(q) > 1e-3)
)


@given(turns)
def test_rpy_makes_proper_rotations_about_fixed_axes(rpy):
    rotation = matrix_from_rpy(rpy)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    (sr, sp, sy), (cr, cp, cy) = np.sin(rpy), np.cos(rpy)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    np.testing.assert_allclose(rotation, about_z @ about_y @ about_x, atol=1e-12)


@given(turns)
def test_rpy_undoes_its_matrix(rpy):
    back = rpy_from_matrix(matrix_from_rpy(rpy))
    around = np.abs(back - rpy)
    assert (np.minimum(around, 2 * np.pi - around) < 1e-9).all()


@given(st.lists(turns, min_size=1, max_size=4))
def test_many_rotations_at_once_are_as_one_by_one(several):
    matrices = matrix_from_rpy(np.array(several))
    one_by_one = [matrix_from_rpy(rpy) for rpy in several]
    np.testing.assert_allclose(matrices, one_by_one, rtol=0, atol=1e-15)
    angles = [rpy_from_matrix(m) for m in matrices]
    np.testing.assert_allclose(rpy_from_matrix(matrices), angles, rtol=0, atol=1e-15)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_at_a_right_angle_yaw_is_0_and_the_matrix_comes_back(pitch):
    locked = np.array([[0.3, pitch, 0.5], [-1.0, pitch, 0.0], [0.2, 0.1, 0.4]])
    rpy = rpy_from_matrix(matrix_from_rpy(locked))
    np.testing.assert_allclose(matrix_from_rpy(rpy), matrix_from_rpy(locked), atol=1e-7)
    np.testing.assert_array_equal(rpy[:2, 2], 0.0)
    np.testing.assert_allclose(rpy[2], locked[2])


@given(rotations)
def test_matrix_undoes_quaternion_and_w_is_not_negative(rotation):
    xyzw = quaternion_from_matrix(rotation)
    np.testing.assert_allclose(matrix_from_quaternion(xyzw), rotation, atol=1e-12)
    assert np.linalg.norm(xyzw) == pytest.approx(1.0)
    assert xyzw[3] >= 0.0


@given(quaternions, st.floats(0.1, 10.0))
def test_a_quaternion_its_negative_and_its_multiples_are_one_rotation(xyzw, factor):
    rotation = matrix_from_quaternion(xyzw)
    np.testing.assert_allclose(matrix_from_quaternion(-xyzw), rotation, atol=1e-12)
    np.testing.assert_allclose(matrix_from_quaternion(factor * xyzw), rotation, atol=1e-12)


def test_quaternions_are_x_y_z_w_as_in_ros():
    half = np.sqrt(0.5)
    quarter_about_z = matrix_from_quaternion([0.0, 0.0, half, half])
    np.testing.assert_allclose(quarter_about_z, matrix_from_rpy([0.0, 0.0, np.pi / 2]), atol=1e-12)


@pytest.mark.parametrize(
    "xyzw", [[0.0, 0.0, 0.0, 0.0], [0.0, np.nan, 0.0, 1.0], [np.inf, 0.0, 0.0, 1.0]]
)
def test_a_quaternion_without_a_direction_is_refused(xyzw):
    with pytest.raises(ValueError) as error:
        matrix_from_quaternion(xyzw)
    assert str(error.value) == (
        f"quaternion: expected a finite unit quaternion (x, y, z, w), got {xyzw}"
    )


@given(positions, turns, st.floats(-0.5, 1.5))
def test_a_bridge_state_survives_the_way_to_a_pose_and_back(position, rpy, gripper):
    state = np.concatenate([position, rpy, [gripper]]).astype(np.float32)
    pose, held = pose_from_bridge_state(state)
    back = bridge_state_from_pose(pose, held)
    assert back.dtype == np.float32 and np.array_equal(back[[0, 1, 2, 6]], state[[0, 1, 2, 6]])
    around = np.abs(back[3:6] - state[3:6])
    assert (np.minimum(around, 2 * np.pi - around) < 1e-5).all()


@given(positions, rotations, st.floats(0.0, 1.0))
def test_a_pose_survives_the_way_to_a_bridge_state_and_back(position, turn, gripper):
    pose = Pose(position, turn @ BRIDGE_DEFAULT_ROTATION)
    back, held = pose_from_bridge_state(bridge_state_from_pose(pose, gripper))
    np.testing.assert_allclose(back.position, pose.position, atol=1e-6)
    assert angle_between(back.rotation, pose.rotation) < 1e-5
    assert held == np.float32(gripper)


def test_bridge_angles_of_0_point_the_gripper_straight_down():
    pose, _ = pose_from_bridge_state([0.3, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(
        pose.rotation @ [1, 0, 0], [0, 0, -1]
    )  # x leads out of the gripper
    np.testing.assert_array_equal(pose.rotation @ [0, 1, 0], [0, 1, 0])
    state = bridge_state_from_pose(Pose(pose.position, matrix_from_rpy([0.0, np.pi / 2, 0.0])), 0.0)
    np.testing.assert_allclose(state[3:6], 0.0, atol=1e-6)


@given(st.floats(-np.pi, np.pi), st.sampled_from([0, 2]))
def test_bridge_roll_and_yaw_turn_about_the_base(angle, axis):
    state = np.array([0.3, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0])
    state[3 + axis] = angle
    turned = pose_from_bridge_state(state)[0].rotation
    rpy = np.zeros(3)
    rpy[axis] = angle
    np.testing.assert_allclose(turned, matrix_from_rpy(rpy) @ BRIDGE_DEFAULT_ROTATION, atol=1e-12)


@given(rotations, rotations)
def test_the_angle_between_is_symmetric_and_within_half_a_turn(first, second):
    angle = angle_between(first, second)
    assert 0.0 <= angle <= np.pi + 1e-9
    assert angle == pytest.approx(angle_between(second, first), abs=1e-7)
    assert angle_between(first, first) < 1e-7


@given(rotations, st.floats(-3.1, 3.1))
def test_the_angle_between_is_the_angle_turned_by(rotation, angle):
    turned = matrix_from_rpy([0.0, 0.0, angle]) @ rotation
    assert angle_between(rotation, turned) == pytest.approx(abs(angle), abs=1e-7)


vectors = st.tuples(*[st.floats(-3.0, 3.0)] * 3).map(np.array)


@given(turns, vectors)
def test_rates_of_the_angles_and_angular_velocity_undo_each_other(rpy, vector):
    back = angular_velocity(rpy, rpy_rates(rpy, vector))
    np.testing.assert_allclose(back, vector, atol=1e-9)
    np.testing.assert_allclose(rpy_rates(rpy, angular_velocity(rpy, vector)), vector, atol=1e-9)


@given(turns, vectors)
def test_an_angular_velocity_is_the_turn_about_the_parents_axes(rpy, angular):
    small = 1e-6
    later = matrix_from_rpy(rpy + small * rpy_rates(rpy, angular))
    turned = later @ matrix_from_rpy(rpy).T
    np.testing.assert_allclose(rotation_vector(turned) / small, angular, atol=0.02)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_rates_at_a_right_angle_are_finite(pitch):
    assert np.isfinite(rpy_rates(np.array([0.3, pitch, 0.5]), np.ones(3))).all()


def test_poses_check_their_shapes_copy_their_arrays_and_know_if_they_are_finite():
    position = np.array([0.3, 0.0, 0.1])
    pose = Pose(position, np.eye(3))
    position[0] = 9.0
    assert pose.position[0] == 0.3 and pose.is_finite
    assert not Pose([np.nan, 0.0, 0.0], np.eye(3)).is_finite
    with pytest.raises(ValueError) as error:
        Pose(np.zeros(2), np.eye(4))
    assert str(error.value) == (
        "Pose: expected position (3,) and rotation (3, 3), got (2,) and (4, 4)"
    )
    with pytest.raises(ValueError, match=r"Bridge state: expected shape \(7,\), got \(6,\)"):
        pose_from_bridge_state(np.zeros(6))
