"""Laws of the limiter: whatever the targets do, set-points stay within every limit and arrive."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from canvas_robot.kinematics.limiter import (
    MotionLimiter,
    MotionLimits,
    SetPoint,
    catching_up,
    motion_limits_of,
)
from canvas_robot.kinematics.rule import limits_of
from canvas_robot.resources import config_path
from canvas_robot.signals import BindingError, load_binding
from canvas_robot.signals.pose import (
    Pose,
    angle_between,
    coordinates_from_pose,
    matrix_from_rpy,
    pose_from_coordinates,
)

ROBOT = load_binding(config_path("bindings", "widowx.yaml")).robot
LIMITS = motion_limits_of(ROBOT)
HOME = pose_from_coordinates(np.array([0.3, 0.0, 0.1, 0.0, 0.0, 0.0]))
ROUNDING = 1e-9

wild = st.sampled_from([-1e6, -np.pi, 0.0, 0.1, np.pi, 1e6]) | st.floats(-4.0, 4.0)
targets = st.lists(wild, min_size=6, max_size=6).map(np.array)
seconds = st.sampled_from([0.0, 0.001, 0.02, 0.5]) | st.floats(0.0, 0.2)
streams = st.lists(st.tuples(targets, seconds), min_size=1, max_size=40)
places = st.lists(st.floats(0.0, 1.0), min_size=6, max_size=6).map(np.array)


def limiter_at(place, limits=LIMITS) -> MotionLimiter:
    """At rest somewhere within the limits: 0 is low, 1 is high, by coordinate."""
    limiter = MotionLimiter(limits)
    limiter.reset(pose_from_coordinates(limits.low + place * (limits.high - limits.low)))
    return limiter


@settings(deadline=None)
@given(places, streams)
def test_set_points_stay_within_speed_acceleration_and_place_whatever_the_targets(place, stream):
    limiter = limiter_at(place)
    for target, dt in stream:
        position, velocity = limiter.position, limiter.velocity
        limiter.advance(target, dt)
        assert (np.abs(limiter.velocity) <= LIMITS.speed + ROUNDING).all()
        assert (np.abs(limiter.velocity - velocity) <= LIMITS.acceleration * dt + ROUNDING).all()
        assert (np.abs(limiter.position - position) <= LIMITS.speed * dt + ROUNDING).all()
        assert (limiter.position >= LIMITS.low - ROUNDING).all()
        assert (limiter.position <= LIMITS.high + ROUNDING).all()


@settings(deadline=None, max_examples=30)
@given(places, streams, targets)
def test_it_comes_to_rest_at_a_target_that_stays(place, stream, last):
    limiter = limiter_at(place)
    for target, dt in stream:
        limiter.advance(target, dt)
    for _ in range(400):
        limiter.advance(last, 0.02)
    np.testing.assert_allclose(limiter.position, np.clip(last, LIMITS.low, LIMITS.high), atol=1e-6)
    np.testing.assert_allclose(limiter.velocity, 0.0, atol=1e-6)


@settings(deadline=None)
@given(places, targets)
def test_started_outside_it_moves_in_and_never_further_out(place, target):
    outside = LIMITS.low - 0.1 + place * (LIMITS.high - LIMITS.low + 0.2)
    limiter = MotionLimiter(LIMITS)
    limiter.reset(pose_from_coordinates(outside))
    beyond = distance = np.inf
    for _ in range(100):
        limiter.advance(target, 0.02)
        distance = np.abs(limiter.position - np.clip(limiter.position, LIMITS.low, LIMITS.high))
        assert (distance <= beyond + ROUNDING).all()
        beyond = distance
    assert (distance <= ROUNDING).all()


@settings(deadline=None)
@given(places, targets, st.integers(1, 7))
def test_a_course_does_not_depend_on_how_often_it_is_asked_for(place, target, parts):
    once, often = limiter_at(place), limiter_at(place)
    once.advance(target, 0.14)
    for _ in range(parts):
        often.advance(target, 0.14 / parts)
    np.testing.assert_allclose(often.position, once.position, atol=1e-9)
    np.testing.assert_allclose(often.velocity, once.velocity, atol=1e-7)


def test_a_whole_step_takes_as_long_as_the_limits_say():
    """0.1 s to 0.35 m/s, 0.05 m - 2 x 0.0175 m at it, 0.1 s to rest: 0.243 s."""
    limiter = MotionLimiter(LIMITS)
    limiter.reset(HOME)
    target = coordinates_from_pose(HOME) + 0.05 * np.eye(6)[0]
    assert limiter.advance(target, 0.2).pose.position[0] < 0.3498
    assert limiter.advance(target, 0.043).pose.position[0] == pytest.approx(0.35, abs=1e-5)


@settings(deadline=None)
@given(places, targets, st.floats(0.0, 0.3))
def test_linear_and_angular_speed_are_those_of_the_pose(place, target, dt):
    limiter = limiter_at(place)
    limiter.advance(target, dt)
    now = limiter.advance(target, 0.0)
    small = 1e-6
    later = pose_from_coordinates(limiter.position + small * limiter.velocity)
    moved = (later.position - now.pose.position) / small
    np.testing.assert_allclose(now.linear, moved, atol=1e-5)
    turn = later.rotation @ now.pose.rotation.T - np.eye(3)
    turned = np.array([turn[2, 1], turn[0, 2], turn[1, 0]]) / small
    np.testing.assert_allclose(now.angular, turned, atol=1e-4)


def test_an_angle_without_ends_takes_the_short_way():
    free = MotionLimits(
        LIMITS.speed, LIMITS.acceleration, [0, -1, 0, -3.15, -1, -3.15], [1, 1, 1, 3.15, 1, 3.15]
    )
    limiter = MotionLimiter(free)
    limiter.reset(pose_from_coordinates(np.array([0.3, 0.0, 0.1, 0.0, 0.0, 3.0])))
    target = np.array([0.3, 0.0, 0.1, 0.0, 0.0, -3.0])
    turned = 0.0
    for _ in range(30):
        before = limiter.position[5]
        reached = limiter.advance(target, 0.02)
        turned += abs(limiter.position[5] - before)
    assert turned == pytest.approx(2 * np.pi - 6.0, abs=1e-6)
    assert angle_between(reached.pose.rotation, pose_from_coordinates(target).rotation) < 1e-6


@settings(deadline=None)
@given(places, places)
def test_an_arm_that_obeys_speeds_comes_to_the_set_point_within_their_limits(place, other):
    goal = LIMITS.low + place * (LIMITS.high - LIMITS.low)
    still = SetPoint(pose_from_coordinates(goal), np.zeros(3), np.zeros(3))
    arm = pose_from_coordinates(LIMITS.low + other * (LIMITS.high - LIMITS.low))
    for _ in range(300):
        led = catching_up(still, arm, LIMITS)
        assert (np.abs(led.linear) <= LIMITS.speed[:3]).all()
        assert (np.abs(led.angular) <= LIMITS.speed[3:]).all()
        turn = Rotation.from_rotvec(0.02 * led.angular).as_matrix()
        arm = Pose(arm.position + 0.02 * led.linear, turn @ arm.rotation)
    np.testing.assert_allclose(arm.position, still.pose.position, atol=1e-3)
    assert angle_between(arm.rotation, still.pose.rotation) < 1e-3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_not_finite_is_refused_and_changes_nothing(bad):
    limiter = MotionLimiter(LIMITS)
    limiter.reset(HOME)
    with pytest.raises(ValueError, match="target: expected finite numbers"):
        limiter.advance(np.array([bad, 0, 0, 0, 0, 0]), 0.02)
    assert np.array_equal(limiter.position, coordinates_from_pose(HOME))


def test_an_arm_without_limits_of_motion_is_refused_unless_that_is_asked_for():
    without = msgspec.structs.replace(ROBOT, acceleration_limits=None)
    with pytest.raises(BindingError, match=r"robot: expected acceleration_limits.*unsafe"):
        motion_limits_of(without)
    assert (motion_limits_of(without, unsafe=True).acceleration >= 1e3).all()


@settings(deadline=None)
@given(st.floats(0.05, 1.5), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_bounds_of_a_tilt_limit_let_no_pose_tilt_further(limit, roll, pitch):
    robot = msgspec.structs.replace(
        ROBOT, tilt_limit=limit, rpy_low=(-3.1, -1.5, -3.1), rpy_high=(3.1, 1.5, 3.1)
    )
    bounds = limits_of(robot)
    rpy = np.array([roll * bounds.rpy_high[0], pitch * bounds.rpy_high[1], 2.0])
    tilt = np.arccos(np.clip(matrix_from_rpy(rpy)[2, 2], -1.0, 1.0))
    assert tilt <= limit + 1e-6


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("speed", [0.1] * 5, "MotionLimits.speed: expected 6 finite numbers"),
        ("speed", [0.0] * 6, "MotionLimits.speed: expected positive numbers"),
        ("acceleration", [np.nan] * 6, "MotionLimits.acceleration: expected 6 finite"),
        ("low", [9.0] * 6, "MotionLimits.low: expected less than high"),
    ],
)
def test_limits_that_are_none_are_refused(field, value, words):
    values = {n: getattr(LIMITS, n) for n in ("speed", "acceleration", "low", "high")}
    with pytest.raises(ValueError, match=words):
        MotionLimits(**{**values, field: value})
