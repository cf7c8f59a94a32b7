"""Laws of the arm's kinematics: known poses, inverse undoes forward, limits, errors."""

from pathlib import Path

import mink
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.kinematics import Arm
from canvas_robot.kinematics.arm_model import arm_path
from canvas_robot.signals.pose import (
    Pose,
    angle_between,
    bridge_state_from_pose,
    pose_from_bridge_state,
)

# SimplerEnv's reset joints, and the poses its URDF gives them.
TABLE_RESET = (-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398)
TABLE_STATE = (0.2921, -0.0061, 0.1353, -0.0045, 0.0568, -0.0190, 1.08)
SINK_RESET = (-0.2600599, -0.12875618, 0.04461369, -0.00652761, 1.7033415, -0.26983038)
SINK_STATE = (0.2497, -0.0675, 0.2276, 0.0066, 0.0484, 0.0092, 1.08)
# Percentiles 1 and 99 of Bridge V2's measured states.
BRIDGE_LOW = (0.1702, -0.1697, -0.0548, -0.3656, -0.5435, -1.3501)
BRIDGE_HIGH = (0.4527, 0.2349, 0.1973, 0.3789, 0.2772, 1.8378)

ARM = Arm.load()


@st.composite
def joints_inside(draw, margin=0.0):
    return np.array(
        [
            draw(st.floats(low + margin, high - margin))
            for low, high in zip(ARM.lower, ARM.upper, strict=True)
        ]
    )


@pytest.mark.parametrize(
    "joints, state", [(TABLE_RESET, TABLE_STATE), (SINK_RESET, SINK_STATE)], ids=["table", "sink"]
)
def test_reset_joints_give_the_published_pose(joints, state):
    measured = ARM.measured_state(joints, finger=0.037)
    assert measured.dtype == np.float32 and measured.shape == (7,)
    np.testing.assert_allclose(measured[:3], state[:3], atol=2e-4)
    np.testing.assert_allclose(measured[3:6], state[3:6], atol=2e-4)
    np.testing.assert_allclose(measured[6], state[6], atol=1e-6)


def test_zero_joints_point_forward_at_the_summed_link_lengths():
    pose = ARM.forward(np.zeros(6))
    np.testing.assert_allclose(pose.position, [0.4583, 0.0, 0.3607], atol=1e-4)
    np.testing.assert_allclose(pose.rotation, np.eye(3), atol=1e-12)


def test_measured_state_is_the_bridge_state_of_forward():
    state = ARM.measured_state(TABLE_RESET, finger=0.02)
    expected = bridge_state_from_pose(
        ARM.forward(TABLE_RESET), ARM.bridge_gripper_from_finger(0.02)
    )
    assert np.array_equal(state, expected)


def test_declared_limits_are_the_makers():
    assert ARM.joint_names == (
        "waist",
        "shoulder",
        "elbow",
        "forearm_roll",
        "wrist_angle",
        "wrist_rotate",
    )
    degrees = [[-180, 180], [-108, 114], [-123, 92], [-180, 180], [-100, 123], [-180, 180]]
    np.testing.assert_allclose(np.rad2deg(np.stack([ARM.lower, ARM.upper], 1)), degrees, atol=0.01)
    assert ARM.finger_range == (0.015, 0.037)
    with pytest.raises(ValueError, match="read-only"):
        ARM.lower[0] = 0.0


@settings(max_examples=60, deadline=None)
@given(joints_inside(margin=0.05), st.integers(0, 2**32 - 1))
def test_inverse_undoes_forward_from_a_near_start(joints, seed):
    target = ARM.forward(joints)
    # Near a straight elbow or aligned wrist axes the nearby pose needs joints that are far away.
    if abs(np.sin(joints[4])) < 0.2 or abs(joints[2] - 1.3675) < 0.2:
        return
    start = joints + np.random.default_rng(seed).uniform(-0.1, 0.1, 6)
    solution = ARM.inverse(target, start)
    assert solution.converged
    reached = ARM.forward(solution.joints)
    assert np.linalg.norm(reached.position - target.position) <= 1e-4
    assert angle_between(reached.rotation, target.rotation) <= 1e-3


def test_inverse_reaches_bridges_workspace_from_the_reset_joints():
    states = np.random.default_rng(0).uniform(BRIDGE_LOW, BRIDGE_HIGH, size=(100, 6))
    poses = [pose_from_bridge_state(np.append(state, 1.0))[0] for state in states]
    converged = [ARM.inverse(pose, np.array(TABLE_RESET)).converged for pose in poses]
    assert np.mean(converged) >= 0.95


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(-1.0, 1.0)] * 3), joints_inside())
def test_solutions_stay_within_limits_and_tell_what_is_left(position, start):
    target = Pose(np.array(position), np.eye(3))
    solution = ARM.inverse(target, start)
    assert (solution.joints >= ARM.lower).all() and (solution.joints <= ARM.upper).all()
    left = np.linalg.norm(ARM.forward(solution.joints).position - target.position)
    assert left == pytest.approx(solution.position_error_m)
    assert solution.converged == (left <= 1e-4 and solution.rotation_error_rad <= 1e-3)


def test_a_target_out_of_reach_does_not_converge():
    solution = ARM.inverse(Pose(np.array([2.0, 0.0, 0.2]), np.eye(3)), np.array(TABLE_RESET))
    assert not solution.converged and solution.position_error_m > 1.0


def test_a_step_that_the_solver_does_not_find_is_no_solution_and_no_error(monkeypatch):
    def finds_none(*args, **kwargs):
        raise mink.NoSolutionFound("daqp")

    monkeypatch.setattr(mink, "solve_ik", finds_none)
    solution = ARM.inverse(Pose(np.array([2.0, 0.0, 0.2]), np.eye(3)), np.array(TABLE_RESET))
    assert not solution.converged and np.isfinite(solution.joints).all()


def test_inverse_gives_equal_bits_whatever_came_before():
    target = Pose(np.array([0.3, 0.05, 0.1]), ARM.forward(TABLE_RESET).rotation)
    first = ARM.inverse(target, np.array(TABLE_RESET))
    ARM.inverse(Pose(np.array([0.2, -0.1, 0.2]), np.eye(3)), np.zeros(6))
    second = ARM.inverse(target, np.array(TABLE_RESET))
    fresh = Arm.load().inverse(target, np.array(TABLE_RESET))
    assert np.array_equal(first.joints, second.joints)
    assert np.array_equal(first.joints, fresh.joints)


@given(st.floats(0.0, 1.0))
def test_finger_conversions_undo_each_other(gripper):
    finger = ARM.finger_from_gripper(gripper)
    assert 0.015 <= finger <= 0.037
    assert ARM.gripper_from_finger(finger) == pytest.approx(gripper, abs=1e-12)
    bridge = ARM.bridge_gripper_from_finger(finger)
    assert ARM.finger_from_bridge_gripper(bridge) == pytest.approx(finger, abs=1e-12)


def test_gripper_scales_at_the_ends():
    assert ARM.finger_from_gripper(0.0) == 0.015
    assert ARM.finger_from_gripper(1.0) == pytest.approx(0.037)
    assert ARM.bridge_gripper_from_finger(0.010) == 0.0
    assert ARM.bridge_gripper_from_finger(0.035) == pytest.approx(1.0)
    assert ARM.bridge_gripper_from_finger(0.037) == pytest.approx(1.08)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ARM.forward(np.zeros(7)), r"joints: expected shape \(6,\), got \(7,\)"),
        (lambda: ARM.forward([np.nan] + [0.0] * 5), "joints: expected finite numbers"),
        (
            lambda: ARM.inverse(Pose(np.full(3, np.inf), np.eye(3)), np.zeros(6)),
            "target: expected finite numbers",
        ),
        (lambda: ARM.inverse(Pose(np.zeros(3), np.eye(3)), np.zeros(8)), "start: expected shape"),
        (lambda: ARM.measured_state(np.zeros(6), np.nan), "finger: expected finite numbers"),
        (lambda: ARM.finger_from_gripper(1.1), r"gripper: expected a command in \[0, 1\]"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_model_names_the_known_ones():
    with pytest.raises(
        FileNotFoundError,
        match=r"'ur5': expected an .xml \(MJCF\) or .urdf file or one of \['wx250s",
    ):
        Arm.load("ur5")


def test_a_model_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "pendulum.xml"
    path.write_text(
        "<mujoco><worldbody><body>"
        "<joint name='swing'/><geom size='.1'/>"
        "</body></worldbody></mujoco>"
    )
    with pytest.raises(ValueError, match=r"expected base_frame 'base_link' among its frames"):
        Arm.load(path)


# What may stand in a model beside the arm, or under it.
BESIDE = {
    "a cube": '<body pos="1 1 1"><freejoint/><geom size=".02"/></body>',
    "a lamp": '<body pos="1 1 1"><joint type="ball" range="0 1"/><geom size=".02"/></body>',
    "a drawer": '<body pos="1 1 1"><joint type="slide" range="1 2"/><geom size=".02"/></body>',
}
UNDER = {
    "a cart": "<freejoint/>",
    "a gimbal": '<joint type="ball"/>',
    "a rail": '<joint type="slide" axis="0 1 0" range="-1 2"/>',
    "a turntable": '<joint axis="0 0 1" range="-1 2"/>',
}
BASE = '<body name="base_link" childclass="arm">'


def arm_in(folder: Path, where: str, text: str) -> Arm:
    """The WidowX in a model with more in it, right after `where`."""
    alone = arm_path("wx250s").read_text()
    assert alone.count(where) == 1
    path = folder / "arm.xml"
    path.write_text(alone.replace(where, where + text))
    return Arm.load(path)


@pytest.mark.parametrize(
    "where, text",
    [
        *(("<worldbody>", text) for text in BESIDE.values()),
        *((BASE, text) for text in UNDER.values()),
    ],
    ids=[*BESIDE, *UNDER],
)
def test_an_arm_is_the_same_whatever_stands_beside_it_and_carries_it(tmp_path, where, text):
    arm, numbers = arm_in(tmp_path, where, text), np.random.default_rng(0)
    assert arm.joint_names == ARM.joint_names
    for _ in range(20):
        joints, start = numbers.uniform(ARM.lower, ARM.upper, size=(2, 6))
        target = ARM.forward(joints)
        pose = arm.forward(joints)
        np.testing.assert_allclose(pose.position, target.position, atol=1e-9)
        np.testing.assert_allclose(pose.rotation, target.rotation, atol=1e-9)
        alone, found = ARM.inverse(target, start), arm.inverse(target, start)
        assert found.converged == alone.converged
        if alone.converged:
            np.testing.assert_allclose(found.joints, alone.joints, atol=1e-6)
