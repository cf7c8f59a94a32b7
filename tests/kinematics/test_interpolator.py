"""Laws of the interpolator: starts where it is, ends at the command, never jumps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.kinematics import Arm, Command, MotionInterpolator
from canvas_robot.signals.pose import Pose

ARM = Arm.load()
RESET = np.array([-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398])
HOME = ARM.forward(RESET)


def moved(offset, gripper=1.0) -> Command:
    return Command(Pose(HOME.position + np.array(offset), HOME.rotation), gripper)


def started(time_s=0.0) -> MotionInterpolator:
    interpolator = MotionInterpolator(ARM)
    interpolator.reset(RESET, 0.037, time_s)
    return interpolator


def test_after_reset_it_holds():
    interpolator = started(5.0)
    for time_s in (5.0, 5.1, 100.0):
        joints, finger = interpolator.setpoint(time_s)
        assert np.array_equal(joints, RESET) and finger == 0.037
    np.testing.assert_array_equal(interpolator.target.position, HOME.position)


def test_it_moves_for_its_duration_then_holds_the_solution():
    interpolator = started()
    solution = interpolator.command(moved([0.02, 0.0, -0.02], gripper=0.0), 1.0)
    assert solution.converged
    assert np.array_equal(interpolator.setpoint(1.0)[0], RESET)
    half, finger = interpolator.setpoint(1.075)
    np.testing.assert_allclose(half, (RESET + solution.joints) / 2, atol=1e-12)
    assert finger == pytest.approx((0.037 + 0.015) / 2)
    for time_s in (1.1500001, 1.2, 9.0):
        joints, finger = interpolator.setpoint(time_s)
        assert np.array_equal(joints, solution.joints) and finger == 0.015


offsets = st.tuples(*[st.floats(-0.03, 0.03)] * 3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(offsets, st.floats(0.0, 1.0), st.floats(0.0, 0.3)), max_size=6))
def test_set_points_never_jump_even_when_commanded_mid_motion(commands):
    interpolator, time_s = started(), 0.0
    for offset, gripper, wait_s in commands:
        before = np.append(*interpolator.setpoint(time_s))
        interpolator.command(moved(offset, gripper), time_s)
        assert np.array_equal(np.append(*interpolator.setpoint(time_s)), before)
        soon = np.append(*interpolator.setpoint(time_s + 1e-6))
        assert np.abs(soon - before).max() < 1e-4
        time_s += wait_s


def test_a_target_out_of_reach_keeps_the_previous_one_and_moves_the_gripper():
    interpolator = started()
    reachable = interpolator.command(moved([0.02, 0.0, 0.0]), 0.0)
    target = interpolator.target
    refused = interpolator.command(moved([2.0, 0.0, 0.0], gripper=0.0), 0.2)
    assert not refused.converged
    assert interpolator.target is target
    joints, finger = interpolator.setpoint(1.0)
    np.testing.assert_allclose(joints, reachable.joints, atol=1e-12)
    assert finger == pytest.approx(0.015)


def test_two_interpolators_given_the_same_decisions_agree_to_the_bit():
    first, second = started(), started()
    for k in range(5):
        command = moved([0.01 * k, -0.005 * k, 0.0], gripper=k / 5)
        first.command(command, 0.2 * k)
        second.command(command, 0.2 * k)
        for time_s in 0.2 * k + np.linspace(0.0, 0.2, 7):
            assert np.array_equal(first.setpoint(time_s)[0], second.setpoint(time_s)[0])


def test_use_before_reset_and_going_back_in_time_are_refused():
    fresh = MotionInterpolator(ARM)
    with pytest.raises(RuntimeError, match=r"expected reset\(\) before"):
        fresh.setpoint(0.0)
    with pytest.raises(RuntimeError, match=r"expected reset\(\) before"):
        fresh.command(moved([0.0, 0.0, 0.0]), 0.0)
    with pytest.raises(ValueError, match=r"time_s: expected 5\.0 s or later.*got 4.9 s"):
        started(5.0).setpoint(4.9)
    with pytest.raises(ValueError, match="reset: expected finite finger and time_s"):
        fresh.reset(RESET, float("nan"), 0.0)
    with pytest.raises(ValueError, match="duration_s: expected a positive number"):
        MotionInterpolator(ARM, duration_s=0.0)


def test_setpoints_are_the_setpoint_at_each_time_to_the_bit():
    interpolator = started()
    interpolator.command(moved([0.02, -0.01, 0.01], gripper=0.3), 0.4)
    times = 0.4 + np.linspace(0.0, 0.2, 21)
    rows = interpolator.setpoints(times)
    assert rows.shape == (21, 7)
    for time_s, row in zip(times, rows, strict=True):
        joints, finger = interpolator.setpoint(time_s)
        assert np.array_equal(row, [*joints, finger])
    with pytest.raises(ValueError, match=r"time_s: expected 0\.4 s or later.*got 0.3 s"):
        interpolator.setpoints(np.array([0.3, 0.5]))
