"""Laws of the joint stream: it follows the end effector without a jump, or says why it cannot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.kinematics import Arm, compose
from canvas_robot.kinematics.command_stream import CommandStream
from canvas_robot.kinematics.joint_stream import JointStream, UnreachableError
from canvas_robot.kinematics.limiter import motion_limits_of
from canvas_robot.kinematics.rule import limits_of
from canvas_robot.resources import config_path
from canvas_robot.signals import load_binding
from canvas_robot.signals.pose import Pose, angle_between

ARM, STREAM_ARM = Arm.load("wx250s"), Arm.load("wx250s")
ROBOT = load_binding(config_path("bindings", "widowx.yaml")).robot
NEUTRAL = np.array([-0.13, -0.76, 0.44, -0.02, 1.76, -0.16])  # Bridge V2's
PERIOD_S = 0.02

actions = st.lists(st.lists(st.floats(-0.3, 0.3), min_size=7, max_size=7), min_size=1, max_size=6)


@settings(deadline=None, max_examples=20)
@given(actions)
def test_joints_bring_the_end_effector_to_every_set_point_within_joint_limits_and_speed(actions):
    start = ARM.forward(NEUTRAL)
    stream, joints = JointStream(STREAM_ARM, 3.14), NEUTRAL
    led = CommandStream(motion_limits_of(ROBOT), 0.15, PERIOD_S)
    led.start(start, 0.0)
    target = start
    for step in range(10 * len(actions)):
        if step % 10 == 0:
            command = compose(target, np.array(actions[step // 10]), limits_of(ROBOT))
            target = command.target
            led.follow(command, step * PERIOD_S)
        pose = led.at(step * PERIOD_S).pose
        before = joints
        try:
            joints = stream.follow(pose, before, PERIOD_S)
        except UnreachableError:
            return  # said so, and moved nothing
        assert (joints >= ARM.lower).all() and (joints <= ARM.upper).all()
        assert (np.abs(joints - before) <= 3.14 * PERIOD_S + 1e-9).all()
        reached = ARM.forward(joints)
        assert np.linalg.norm(reached.position - pose.position) < 2e-4
        assert angle_between(reached.rotation, pose.rotation) < 2e-3


def test_out_of_reach_it_says_so_and_starts_afresh_from_the_measured_joints():
    stream = JointStream(STREAM_ARM, 3.14)
    far = Pose(np.array([2.0, 0.0, 0.2]), ARM.forward(NEUTRAL).rotation)
    with pytest.raises(UnreachableError, match="no joints within their limits reach"):
        stream.follow(far, NEUTRAL, PERIOD_S)
    np.testing.assert_allclose(
        stream.follow(ARM.forward(NEUTRAL), NEUTRAL, PERIOD_S), NEUTRAL, atol=1e-6
    )


def test_a_set_point_that_is_too_far_for_the_time_is_refused_by_the_joint():
    stream = JointStream(STREAM_ARM, 3.14)
    turned = NEUTRAL + 0.5 * np.eye(6)[0]
    with pytest.raises(UnreachableError, match=r"joint waist would turn at 25.0 rad/s"):
        stream.follow(ARM.forward(turned), NEUTRAL, PERIOD_S)
    assert stream.follow(ARM.forward(turned), NEUTRAL, 1.0)[0] == pytest.approx(0.37, abs=1e-3)


@pytest.mark.parametrize("limit", [0.0, -1.0, np.inf, np.nan])
def test_a_speed_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="speed_limit: expected a positive number"):
        JointStream(STREAM_ARM, limit)
