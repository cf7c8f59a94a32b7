"""Laws of the action rule: Bridge's axes, limits always hold, what is not finite is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.kinematics import Command, Limits, compose, parted
from canvas_robot.signals.pose import (
    Pose,
    bridge_state_from_pose,
    coordinates_from_pose,
    matrix_from_rpy,
    pose_from_bridge_state,
    pose_from_coordinates,
    rpy_from_matrix,
)

LIMITS = Limits(step=[0.05] * 3 + [0.25] * 3, box_low=[0.1, -0.15, 0.0], box_high=[0.45, 0.25, 0.3])

angles = st.floats(-np.pi, np.pi)
rotations = st.tuples(angles, angles, angles).map(lambda rpy: matrix_from_rpy(np.array(rpy)))
positions = st.tuples(st.floats(0.1, 0.45), st.floats(-0.15, 0.25), st.floats(0.0, 0.3))
poses = st.builds(Pose, positions.map(np.array), rotations)
actions = st.lists(st.floats(-1e6, 1e6), min_size=7, max_size=7).map(np.array)


@given(poses, actions)
def test_commands_stay_in_the_box_and_within_a_step(previous, action):
    command = compose(previous, action, LIMITS)
    position = command.target.position
    assert (position >= LIMITS.box_low).all() and (position <= LIMITS.box_high).all()
    assert (np.abs(position - previous.position) <= LIMITS.step[:3] + 1e-12).all()
    turn = rpy_from_matrix(command.target.rotation @ previous.rotation.T)
    assert (np.abs(turn) <= LIMITS.step[3:] + 1e-9).all()
    assert 0.0 <= command.gripper <= 1.0


@given(poses, st.floats(-0.25, 0.25), st.sampled_from([0, 1, 2]))
def test_one_angle_turns_about_that_axis_of_the_base(previous, angle, axis):
    action = np.zeros(7)
    action[3 + axis] = angle
    target = compose(previous, action, LIMITS).target
    unit = np.eye(3)[axis]
    turn = target.rotation @ previous.rotation.T
    np.testing.assert_allclose(turn @ unit, unit, atol=1e-12)
    expected = np.zeros(3)
    expected[axis] = angle
    np.testing.assert_allclose(rpy_from_matrix(turn), expected, atol=1e-9)
    assert np.array_equal(target.position, previous.position)


def test_pure_yaw_turns_a_forward_gripper_to_the_left():
    forward = Pose(np.array([0.3, 0.0, 0.1]), np.eye(3))
    target = compose(forward, [0, 0, 0, 0, 0, 0.2, 0], LIMITS).target
    np.testing.assert_allclose(target.rotation[:, 0], [np.cos(0.2), np.sin(0.2), 0.0], atol=1e-12)


def test_pure_roll_tips_a_downward_gripper_sideways():
    down = Pose(np.array([0.3, 0.0, 0.1]), matrix_from_rpy(np.array([0.0, np.pi / 2, 0.0])))
    target = compose(down, [0, 0, 0, 0.2, 0, 0, 0], LIMITS).target
    np.testing.assert_allclose(target.rotation[:, 0], [0.0, np.sin(0.2), -np.cos(0.2)], atol=1e-12)


@given(poses, st.floats(-3.0, 3.0))
def test_a_zero_action_keeps_the_target_and_the_gripper_is_absolute(previous, gripper):
    command = compose(previous, [0, 0, 0, 0, 0, 0, gripper], LIMITS)
    assert np.array_equal(command.target.position, previous.position)
    np.testing.assert_allclose(command.target.rotation, previous.rotation, atol=1e-12)
    assert command.gripper == np.clip(gripper, 0.0, 1.0)


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused(index, value):
    action = np.zeros(7)
    action[index] = value
    with pytest.raises(ValueError, match="action: expected finite numbers"):
        compose(Pose([0.3, 0.0, 0.1], np.eye(3)), action, LIMITS)


def test_an_action_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"action: expected shape \(7,\), got \(6,\)"):
        compose(Pose([0.3, 0.0, 0.1], np.eye(3)), np.zeros(6), LIMITS)


def test_compose_writes_into_no_argument():
    previous = Pose(np.array([0.3, 0.0, 0.1]), np.eye(3))
    action = np.full(7, 9.0)
    compose(previous, action, LIMITS)
    assert (action == 9.0).all()
    assert np.array_equal(previous.position, [0.3, 0.0, 0.1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"step": [0.05] * 5}, "Limits.step: expected 6 finite numbers"),
        ({"step": [0.05] * 5 + [0.0]}, "Limits.step: expected positive"),
        ({"box_low": [0.1, np.nan, 0.0]}, "Limits.box_low: expected 3 finite numbers"),
        ({"box_low": [0.5, -0.15, 0.0]}, "Limits.box_low: expected less than box_high"),
        ({"rpy_low": [4.0, 0.0, 0.0]}, "Limits.rpy_low: expected less than rpy_high"),
    ],
)
def test_limits_check_themselves(change, message):
    good = {"step": LIMITS.step, "box_low": LIMITS.box_low, "box_high": LIMITS.box_high}
    with pytest.raises(ValueError, match=message):
        Limits(**{**good, **change})


BOUNDED = Limits(
    LIMITS.step, LIMITS.box_low, LIMITS.box_high, [-0.8, -0.8, -1.57], [0.8, 0.8, 1.57]
)
inside = st.tuples(st.floats(-0.79, 0.79), st.floats(-0.79, 0.79), st.floats(-1.56, 1.56))


def bridge_pose(rpy) -> Pose:
    return pose_from_bridge_state([0.3, 0.0, 0.1, *rpy, 1.0])[0]


@given(inside, actions)
def test_bounded_angles_stay_within_their_bounds(rpy, action):
    target = compose(bridge_pose(rpy), action, BOUNDED).target
    angles = bridge_state_from_pose(target, 0.0)[3:6]
    assert (angles >= BOUNDED.rpy_low - 1e-6).all() and (angles <= BOUNDED.rpy_high + 1e-6).all()


@given(st.tuples(*[st.floats(-0.2, 0.2)] * 3), st.tuples(*[st.floats(-0.2, 0.2)] * 3))
def test_angle_bounds_change_nothing_inside(rpy, turn):
    action = [0, 0, 0, *turn, 0]
    bounded = compose(bridge_pose(rpy), action, BOUNDED).target
    free = compose(bridge_pose(rpy), action, LIMITS).target
    assert np.array_equal(bounded.rotation, free.rotation)


@pytest.mark.parametrize("end", [3.0, 3.1, 3.14])
@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("axis", [0, 2])
def test_an_angle_that_leaves_its_bounds_stays_at_the_end_by_which_it_left(end, side, axis):
    """Half a turn ends beside the other end: the arm cannot follow there."""
    bounds = np.array([end, 1.0, end])
    limits = Limits([0.05] * 3 + [0.25] * 3, [-1.0] * 3, [1.0] * 3, -bounds, bounds)
    coordinates, action = np.zeros(6), np.zeros(7)
    coordinates[3 + axis] = side * (end - 0.1)
    action[3 + axis] = side * 0.25
    target = pose_from_coordinates(coordinates)
    for _ in range(3):
        target = compose(target, action, limits).target
        assert coordinates_from_pose(target)[3 + axis] == pytest.approx(side * end)
    assert coordinates_from_pose(compose(target, -action, limits).target)[3 + axis] == (
        pytest.approx(side * (end - 0.25))
    )


def test_from_between_the_ends_of_an_angle_it_comes_in_by_either():
    bounds = np.array([1.0, 1.0, 3.1])
    limits = Limits([0.05] * 3 + [0.25] * 3, [-1.0] * 3, [1.0] * 3, -bounds, bounds)
    between = pose_from_coordinates(np.array([0, 0, 0, 0, 0, np.pi]))
    for side in (1.0, -1.0):
        target = compose(between, [0, 0, 0, 0, 0, 0.2 * side, 0], limits).target
        assert coordinates_from_pose(target)[5] == pytest.approx(side * (0.2 - np.pi))


@given(angles, angles, st.floats(1.3, 1.5), actions)
def test_no_turn_leads_past_a_pitch_of_a_quarter_turn(roll, yaw, pitch, action):
    """There roll and yaw swing by half a turn each, which a motion of coordinates would make."""
    limits = Limits(
        [0.05] * 3 + [0.25] * 3, [-9.0] * 3, [9.0] * 3, [-np.pi, -1.5, -np.pi], [np.pi, 1.5, np.pi]
    )
    before = np.array([0.0, 0.0, 0.0, roll, pitch, yaw])
    target = compose(pose_from_coordinates(before), action, limits).target
    swung = coordinates_from_pose(target)[3:] - before[3:]
    assert (np.abs((swung + np.pi) % (2 * np.pi) - np.pi) <= np.pi / 2 + 1e-9).all()


def test_commands_check_themselves():
    pose = Pose([0.3, 0.0, 0.1], np.eye(3))
    with pytest.raises(ValueError, match=r"Command.gripper: expected a number in \[0, 1\]"):
        Command(pose, float("nan"))
    with pytest.raises(ValueError, match=r"Command\.target: expected finite"):
        Command(Pose([np.nan, 0.0, 0.1], np.eye(3)), 0.5)


@given(poses)
def test_a_pose_is_never_parted_from_itself(pose):
    assert not parted(pose, pose)


def test_parted_by_distance_by_angle_and_by_a_missing_measurement():
    here = Pose([0.3, 0.0, 0.1], np.eye(3))
    assert not parted(here, Pose([0.3, 0.0, 0.179], np.eye(3)))
    assert parted(here, Pose([0.3, 0.0, 0.181], np.eye(3)))
    assert not parted(here, Pose(here.position, matrix_from_rpy([0.0, 0.0, 0.39])))
    assert parted(here, Pose(here.position, matrix_from_rpy([0.0, 0.0, 0.41])))
    assert parted(here, Pose([np.nan, 0.0, 0.1], np.eye(3)))
    assert parted(here, Pose([0.3, 0.0, 0.1], np.full((3, 3), np.nan)))
