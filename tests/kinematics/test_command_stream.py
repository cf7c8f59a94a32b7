"""Laws of the command stream: smooth from rest, within limits, at its target in the end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.kinematics.command_stream import CommandStream
from canvas_robot.kinematics.limiter import MotionLimits, motion_limits_of
from canvas_robot.kinematics.rule import Command, Limits, compose, limits_of
from canvas_robot.resources import config_path
from canvas_robot.signals import load_binding
from canvas_robot.signals.pose import (
    angle_between,
    coordinates_from_pose,
    pose_from_coordinates,
    rpy_from_matrix,
)

ROBOT = load_binding(config_path("bindings", "widowx.yaml")).robot
LIMITS, PLACE = motion_limits_of(ROBOT), limits_of(ROBOT)
HOME = pose_from_coordinates(np.array([0.3, 0.0, 0.1, 0.0, 0.0, 0.0]))
PERIOD_S, MOVING_S, TICK_S = 0.02, 0.15, 0.2

actions = st.lists(st.lists(st.floats(-0.3, 0.3), min_size=7, max_size=7), min_size=1, max_size=6)


def stream_at(pose=HOME, now_s: float = 10.0) -> CommandStream:
    stream = CommandStream(LIMITS, MOVING_S, PERIOD_S)
    stream.start(pose, now_s)
    return stream


def test_from_rest_it_begins_at_the_measured_pose_and_speeds_up_within_the_limits():
    stream = stream_at()
    stream.follow(compose(HOME, np.array([0.05, 0, 0, 0, 0, 0, 1]), PLACE), 10.0)
    first = stream.at(10.0)
    assert 0 < first.pose.position[0] - 0.3 <= 3.5 * PERIOD_S**2 / 2 + 1e-12
    assert np.linalg.norm(first.linear) <= 3.5 * PERIOD_S + 1e-12


@settings(deadline=None)
@given(actions, st.lists(st.floats(0.0, 0.05), min_size=30, max_size=30))
def test_whatever_the_actions_and_whenever_asked_set_points_are_within_the_limits(actions, waits):
    """Also where it is asked between its periods, twice at once, or late."""
    stream, target, now, last = stream_at(), HOME, 10.0, None
    for count, wait in enumerate(waits):
        if count % 6 == 0:
            target = compose(target, np.array(actions[count // 6 % len(actions)]), PLACE).target
            stream.follow(Command(target, 1.0), now)
        now += wait
        asked = stream.at(now)
        here = coordinates_from_pose(asked.pose)
        assert (here >= LIMITS.low - 1e-9).all() and (here <= LIMITS.high + 1e-9).all()
        assert (np.abs(asked.linear) <= LIMITS.speed[:3] + 1e-9).all()
        if last is not None:
            moved = np.abs(here - coordinates_from_pose(last.pose))
            assert (moved <= LIMITS.speed * wait + 1e-9).all()
            faster = np.abs(asked.linear - last.linear)
            assert (faster <= LIMITS.acceleration[:3] * wait + 1e-9).all()
        last = asked


def test_it_arrives_and_stays():
    stream = stream_at()
    stream.follow(compose(HOME, np.array([0.05, -0.02, 0, 0.1, 0, 0.2, 1]), PLACE), 10.0)
    for step in range(30):
        reached = stream.at(10.0 + step * PERIOD_S)
    want = coordinates_from_pose(
        compose(HOME, np.array([0.05, -0.02, 0, 0.1, 0, 0.2, 1]), PLACE).target
    )
    np.testing.assert_allclose(coordinates_from_pose(reached.pose), want, atol=1e-9)
    assert np.abs(reached.linear).max() < 1e-9 and np.abs(reached.angular).max() < 1e-9


def test_equal_actions_one_after_the_other_flow_without_a_stop():
    """At half of a step's size each, the speed never falls to zero between two of them."""
    stream, target, speeds = stream_at(), HOME, []
    for step in range(60):
        now = 10.0 + step * PERIOD_S
        if step % 10 == 0:
            target = compose(target, np.array([0.0, 0.03, 0, 0, 0, 0, 1]), PLACE).target
            stream.follow(Command(target, 1.0), now)
        speeds.append(stream.at(now).linear[1])
    assert min(speeds[5:]) > 0.01


def test_a_clock_that_goes_back_moves_nothing():
    stream = stream_at()
    stream.follow(compose(HOME, np.array([0.05, 0, 0, 0, 0, 0, 1]), PLACE), 10.0)
    ahead = stream.at(10.2)
    assert np.array_equal(stream.at(10.1).pose.position, ahead.pose.position)
    assert not np.array_equal(stream.at(10.22).pose.position, ahead.pose.position)


def test_after_a_pause_the_motion_goes_on_without_a_jump():
    stream = stream_at()
    stream.follow(compose(HOME, np.array([0.05, 0, 0, 0, 0, 0, 1]), PLACE), 10.0)
    before = stream.at(10.06).pose.position[0]
    after = stream.at(13.0).pose.position[0]
    assert 0 < after - before <= 0.35 * 2 * PERIOD_S + 1e-9
    for step in range(20):
        reached = stream.at(13.0 + step * PERIOD_S)
    assert reached.pose.position[0] == pytest.approx(0.35, abs=1e-6)


def test_across_half_a_turn_it_takes_the_short_way():
    free = MotionLimits(
        LIMITS.speed, LIMITS.acceleration, [0, -1, 0, -3.15, -1, -3.15], [1, 1, 1, 3.15, 1, 3.15]
    )
    stream = CommandStream(free, MOVING_S, PERIOD_S)
    stream.start(pose_from_coordinates(np.array([0.3, 0, 0.1, 0, 0, 3.1])), 0.0)
    stream.follow(Command(pose_from_coordinates(np.array([0.3, 0, 0.1, 0, 0, -3.1])), 1.0), 0.0)
    yaws = [coordinates_from_pose(stream.at(step * PERIOD_S).pose)[5] for step in range(20)]
    assert all(abs(yaw) > 3.05 for yaw in yaws)
    assert yaws[-1] == pytest.approx(-3.1, abs=1e-6)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_round_and_round_it_goes_on_the_same_way_within_the_limit_of_speed(side):
    """Three whole turns, of which each crosses half a turn, where the angle is counted anew."""
    low, high = [0, -1, 0, -1, -1, -np.pi], [1, 1, 1, 1, 1, np.pi]
    place = Limits([0.05] * 3 + [0.25] * 3, low[:3], high[:3], low[3:], high[3:])
    stream = CommandStream(
        MotionLimits(LIMITS.speed, LIMITS.acceleration, low, high), MOVING_S, PERIOD_S
    )
    stream.start(HOME, 0.0)
    target, last, gone = HOME, HOME, 0.0
    for step in range(750):
        if step % 10 == 0:
            target = compose(target, np.array([0, 0, 0, 0, 0, 0.25 * side, 1]), place).target
            stream.follow(Command(target, 1.0), step * PERIOD_S)
        pose = stream.at(step * PERIOD_S).pose
        turned = rpy_from_matrix(pose.rotation @ last.rotation.T)[2]
        assert 0.0 < turned * side <= LIMITS.speed[5] * PERIOD_S + 1e-9
        assert angle_between(pose.rotation, target.rotation) < 0.3
        last, gone = pose, gone + turned
    assert gone * side > 2.9 * 2 * np.pi


yaws = st.sampled_from([-3.1, -3.0, 3.0, 3.1]) | st.floats(-3.1, 3.1)


@settings(deadline=None, max_examples=50)
@given(yaws, actions)
def test_it_arrives_wherever_the_actions_lead_also_where_the_ends_of_yaw_are_neighbours(
    yaw, actions
):
    low, high = [0, -1, 0, -1, -1, -3.1], [1, 1, 1, 1, 1, 3.1]
    place = Limits([0.05] * 3 + [0.25] * 3, low[:3], high[:3], low[3:], high[3:])
    stream = CommandStream(
        MotionLimits(LIMITS.speed, LIMITS.acceleration, low, high), MOVING_S, PERIOD_S
    )
    target = pose_from_coordinates(np.array([0.3, 0.0, 0.1, 0.0, 0.0, yaw]))
    stream.start(target, 0.0)
    for step in range(10 * len(actions) + 100):
        if step % 10 == 0 and step < 10 * len(actions):
            target = compose(target, np.array(actions[step // 10]), place).target
            stream.follow(Command(target, 1.0), step * PERIOD_S)
        pose = stream.at(step * PERIOD_S).pose
        assert angle_between(pose.rotation, target.rotation) < 1.0
    assert angle_between(pose.rotation, target.rotation) < 1e-6


@pytest.mark.parametrize("name", ["moving_s", "ahead_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_times_that_are_none_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a positive number of seconds"):
        CommandStream(LIMITS, **{"moving_s": 0.15, "ahead_s": 0.02, name: value})


def test_it_must_be_started():
    stream = CommandStream(LIMITS, MOVING_S, PERIOD_S)
    with pytest.raises(RuntimeError, match=r"expected start\(\)"):
        stream.at(0.0)


@settings(deadline=None)
@given(actions, st.integers(0, 12), st.floats(0.001, 0.1))
def test_it_brakes_along_its_motion_within_the_limits_to_rest(actions, periods, late_s):
    """From wherever it is, asked at its rate after a pause; no command moves it any more."""
    stream, now = stream_at(), 10.0
    for action in actions:
        stream.follow(compose(HOME, np.array(action), PLACE), now)
        for _ in range(periods):
            now += PERIOD_S
            last = stream.at(now)
    if not periods:
        assert stream.is_still and stream.brake(now) is None
        return
    now += late_s
    longest = int((LIMITS.speed / LIMITS.acceleration).max() / PERIOD_S) + 2
    for _ in range(longest):
        braked = stream.brake(now)
        if braked is None:
            break
        before, after = last.linear, braked.linear
        assert (np.abs(after) <= np.abs(before) + 1e-9).all()
        assert (after * before >= -1e-12).all(), "it turns round"
        slower = np.abs(after - before)
        assert (slower <= 2 * LIMITS.acceleration[:3] * PERIOD_S + 1e-9).all()
        here = coordinates_from_pose(braked.pose)
        assert (here >= LIMITS.low - 1e-9).all() and (here <= LIMITS.high + 1e-9).all()
        last, now = braked, now + PERIOD_S
    assert stream.is_still and stream.brake(now) is None
