"""Laws of guided motion: it goes where it is told, within every limit, and stops by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.kinematics.guide import SHARE, TELEOPERATION_TIMEOUT_S, GoTo, Teleoperation
from canvas_robot.kinematics.limiter import MotionLimits, motion_limits_of
from canvas_robot.resources import config_path
from canvas_robot.signals import load_binding
from canvas_robot.signals.pose import (
    angle_between,
    coordinates_from_pose,
    pose_from_coordinates,
    rotation_vector,
)

LIMITS = motion_limits_of(load_binding(config_path("bindings", "widowx.yaml")).robot)
PERIOD_S = 0.02
# Roll and yaw go all the way round.
ROUND = MotionLimits(
    [0.5, 0.5, 0.5, 1.0, 1.0, 1.0],
    [1e3] * 6,
    [0.1, -0.3, 0.0, -np.pi, -1.5, -3.15],
    [0.5, 0.3, 0.3, np.pi, 1.5, 3.15],
)
START = np.array([0.25, 0.0, 0.15, 0.0, 0.0, 0.0])


def within(low, high):
    return st.floats(float(low), float(high))


places = st.tuples(*(within(a, b) for a, b in zip(LIMITS.low, LIMITS.high, strict=True)))
speeds = st.tuples(*[st.floats(-3.0, 3.0)] * 6)


def check(before, velocity, set_point, share=1.0):
    """Position, speed and acceleration of one period are within the limits; what comes next."""
    now = coordinates_from_pose(set_point.pose)
    rate = (now - before) / PERIOD_S
    assert (np.abs(rate) <= share * LIMITS.speed * 1.001 + 1e-6).all()
    change = np.abs(rate - velocity)
    # Mean speeds of two periods differ by no more than the acceleration of one, twice at a turn.
    assert (change <= 2 * share * LIMITS.acceleration * PERIOD_S * 1.001 + 1e-6).all()
    assert (now >= LIMITS.low - 1e-6).all() and (now <= LIMITS.high + 1e-6).all()
    return now, rate


@settings(max_examples=60, deadline=None)
@given(places, places)
def test_going_to_a_pose_ends_there_at_rest_within_a_share_of_the_limits(start, target):
    start, target = np.array(start), np.array(target)
    guide = GoTo(LIMITS, pose_from_coordinates(start), target, 0.3, 0.0, PERIOD_S)
    position, velocity, now_s = start, np.zeros(6), 0.0
    while (set_point := guide.at(now_s)) is not None:
        position, velocity = check(position, velocity, set_point, SHARE)
        now_s += PERIOD_S
        assert now_s < 60
    np.testing.assert_allclose(position, target, atol=2e-3)
    assert guide.gripper == 0.3


anywhere = st.tuples(*[st.floats(-1.0, 1.0)] * 3, *[st.floats(-4.0, 4.0)] * 3).map(np.array)
inside = st.tuples(*(within(a, b) for a, b in zip(ROUND.low, ROUND.high, strict=True)))


@settings(max_examples=30, deadline=None)
@given(inside.map(np.array), anywhere)
def test_going_to_a_pose_ends_at_the_nearest_that_is_allowed_and_the_short_way(start, target):
    reached, now_s = pose_from_coordinates(start), 0.0
    guide = GoTo(ROUND, reached, target, 0.3, now_s, PERIOD_S)
    while (set_point := guide.at(now_s)) is not None:
        reached, now_s = set_point.pose, now_s + PERIOD_S
        assert now_s < (np.pi / SHARE + 1.0), "half a turn is the longest way"
    ends = np.isin(np.arange(6), (3, 5), invert=True)
    allowed = pose_from_coordinates(np.where(ends, np.clip(target, ROUND.low, ROUND.high), target))
    np.testing.assert_allclose(reached.position, allowed.position, atol=2e-3)
    assert angle_between(reached.rotation, allowed.rotation) < 5e-3


@settings(max_examples=60, deadline=None)
@given(places, st.lists(st.tuples(speeds, st.integers(1, 30)), min_size=1, max_size=8))
def test_teleoperation_is_within_the_limits_whatever_is_said_and_stops_when_nothing_is(start, said):
    start = np.array(start)
    guide = Teleoperation(LIMITS, pose_from_coordinates(start), 1.0, 0.0, PERIOD_S)
    position, velocity, now_s = start, np.zeros(6), 0.0
    for speed, periods in said:
        for _ in range(periods):
            guide.say(np.array(speed), now_s)
            position, velocity = check(position, velocity, guide.at(now_s))
            now_s += PERIOD_S
    let_go_s = now_s
    while (set_point := guide.at(now_s)) is not None:
        position, velocity = check(position, velocity, set_point)
        now_s += PERIOD_S
        assert now_s - let_go_s < TELEOPERATION_TIMEOUT_S + 2.0


def test_teleoperation_reaches_the_speed_that_is_said():
    guide = Teleoperation(LIMITS, pose_from_coordinates(START), 1.0, 0.0, PERIOD_S)
    for period in range(40):
        guide.say(np.array([0.1, 0, 0, 0, 0, 0.5]), period * PERIOD_S)
        set_point = guide.at(period * PERIOD_S)
    np.testing.assert_allclose(set_point.linear, [0.1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(set_point.angular, [0, 0, 0.5], atol=1e-2)


tilts = st.tuples(st.floats(-3.1, 3.1), st.floats(-1.2, 1.2), st.floats(-3.1, 3.1))
axes = st.tuples(*[st.floats(-1.0, 1.0)] * 3).map(np.array).filter(lambda axis: axis @ axis > 0.01)


@settings(max_examples=60, deadline=None)
@given(tilts, axes, st.floats(0.1, 3.0))
def test_teleoperation_turns_the_gripper_about_the_bases_axes_wherever_it_points(rpy, axis, speed):
    """Also where the speed is more than the limits allow."""
    start = pose_from_coordinates(np.r_[START[:3], rpy])
    axis = axis / np.sqrt(axis @ axis)
    guide, period_s = Teleoperation(ROUND, start, 1.0, 0.0, 0.002), 0.002
    for period in range(100):
        guide.say(np.r_[np.zeros(3), speed * axis], period * period_s)
        reached = guide.at(period * period_s)
    turn = rotation_vector(reached.pose.rotation @ start.rotation.T)
    angle = np.sqrt(turn @ turn)
    np.testing.assert_allclose(turn / angle, axis, atol=0.02)
    assert angle <= speed * 100 * period_s + 1e-9
    if speed < 0.2:  # within the limits, but for the first period, of any of these pitches
        assert angle == pytest.approx(speed * 100 * period_s, rel=0.02)


@pytest.mark.parametrize("pitch", [0.3, np.pi / 2, -np.pi / 2])
def test_the_fastest_speeds_that_can_be_said_are_cut_wherever_the_gripper_points(pitch):
    start = pose_from_coordinates(np.r_[START[:3], 0.0, pitch, 0.0])
    guide = Teleoperation(ROUND, start, 1.0, 0.0, PERIOD_S)
    guide.say(np.full(6, np.finfo(np.float64).max), 0.0)
    for period in range(10):
        set_point = guide.at(period * PERIOD_S)
        assert set_point.pose.is_finite
        assert (np.abs(set_point.linear) <= ROUND.speed[:3]).all()


def test_speeds_that_are_not_finite_are_refused():
    guide = Teleoperation(LIMITS, pose_from_coordinates(START), 1.0, 0.0, PERIOD_S)
    with pytest.raises(ValueError, match="speed: expected finite numbers"):
        guide.say(np.full(6, np.nan), 0.0)


@pytest.mark.parametrize("kind", ["to a pose", "by hand"])
def test_a_guide_brakes_within_its_limits_to_rest(kind):
    measured = pose_from_coordinates(START)
    if kind == "to a pose":
        guide = GoTo(LIMITS, measured, START + np.array([0.1, 0, 0, 0, 0, 0]), 0.3, 0.0, PERIOD_S)
    else:
        guide = Teleoperation(LIMITS, measured, 0.3, 0.0, PERIOD_S)
        guide.say(np.array([0.3, 0, 0, 0, 0, 0.5]), 0.0)
    assert guide.is_still and guide.brake(0.0) is None
    position, velocity, now_s = START, np.zeros(6), 0.0
    for _ in range(8):
        position, velocity = check(position, velocity, guide.at(now_s))
        now_s += PERIOD_S
    assert not guide.is_still
    speeds = []
    while (set_point := guide.brake(now_s)) is not None:
        position, velocity = check(position, velocity, set_point)
        speeds.append(set_point.linear[0])
        now_s += PERIOD_S
    assert speeds == sorted(speeds, reverse=True) and speeds[-1] == pytest.approx(0.0, abs=1e-9)
    assert len(speeds) * PERIOD_S <= 0.12
