"""Laws of the controller's frame: what an action does to the hand is Bridge V2's rule, measured."""

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.signals.pose import (
    BRIDGE_DEFAULT_ROTATION,
    angle_between,
    matrix_from_rpy,
    pose_from_bridge_state,
)
from canvas_robot.sim.registration import ENV_IDS, register

register()
TRACKING_M, TRACKING_RAD = 0.004, 0.03


@pytest.fixture(scope="module")
def env():
    env = gymnasium.make(ENV_IDS["reach"], obs="state", physics_hz=250)
    yield env
    env.close()


def level(env: gymnasium.Env) -> np.ndarray:
    """The state (7,) after a step that turns the hand from its reset to straight down."""
    observation, _ = env.reset(options={"episode_id": 0})
    start, _ = pose_from_bridge_state(observation["state"])
    turn = BRIDGE_DEFAULT_ROTATION @ start.rotation.T
    roll, pitch, yaw = turn[2, 1], -turn[2, 0], turn[1, 0]  # small: under 0.06 rad
    return env.step(np.array([0, 0, 0.05, roll, pitch, yaw, 1], np.float32))[0]["state"]


def repeated(env: gymnasium.Env, action: list[float], steps: int) -> np.ndarray:
    for _ in range(steps):
        observation, *_ = env.step(np.array(action, np.float32))
    return observation["state"]


@pytest.mark.parametrize("axis", range(3), ids="xyz")
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_pure_translation_moves_along_its_axis_of_the_base_and_turns_nothing(env, axis, sign):
    before = level(env)
    action = np.zeros(7)
    action[axis] = sign * 0.02
    moved = repeated(env, action, 3) - before
    np.testing.assert_allclose(moved[:3], 3 * action[:3], atol=TRACKING_M)
    np.testing.assert_allclose(moved[3:6], 0.0, atol=TRACKING_RAD)


@pytest.mark.parametrize("axis", range(3), ids=["roll", "pitch", "yaw"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_pure_turn_of_the_level_hand_changes_its_own_angle_alone_and_not_the_place(
    env, axis, sign
):
    before = level(env)
    action = np.zeros(7)
    action[3 + axis] = sign * 0.15
    turned = repeated(env, action, 3) - before
    np.testing.assert_allclose(turned[3:6], 3 * action[3:6], atol=TRACKING_RAD)
    np.testing.assert_allclose(turned[:3], 0.0, atol=TRACKING_M)


def test_turns_are_about_the_bases_axes_not_the_hands(env):
    """After a quarter turn of yaw, roll is still about the base's x, the hand's own pitch."""
    level(env)
    repeated(env, [0, 0, 0, 0, 0, 0.25, 1], 6)
    state = repeated(env, [0, 0, 0, 0.2, 0, 0, 1], 2)
    pose, _ = pose_from_bridge_state(state)
    expected = matrix_from_rpy([0.4, 0, 0]) @ matrix_from_rpy([0, 0, 1.5])
    assert angle_between(pose.rotation, expected @ BRIDGE_DEFAULT_ROTATION) < TRACKING_RAD


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-0.015, 0.015)] * 3, *[st.floats(-0.08, 0.08)] * 3),
        min_size=1,
        max_size=6,
    )
)
def test_any_sequence_arrives_where_the_rule_composes_it(env, deltas):
    start, _ = pose_from_bridge_state(level(env))
    position, rotation = start.position, BRIDGE_DEFAULT_ROTATION
    for delta in deltas:
        position = position + delta[:3]
        rotation = matrix_from_rpy(delta[3:]) @ rotation
        observation, *_ = env.step(np.array([*delta, 1.0], np.float32))
    hand, _ = pose_from_bridge_state(observation["state"])
    assert np.linalg.norm(hand.position - position) < 2 * TRACKING_M
    assert angle_between(hand.rotation, rotation) < 2 * TRACKING_RAD


@pytest.mark.parametrize("gripper, state", [(0.0, 0.2), (0.5, 0.64), (1.0, 1.08)])
def test_the_gripper_is_absolute(env, gripper, state):
    level(env)
    measured = repeated(env, [0, 0, 0, 0, 0, 0, gripper], 3)[6]
    assert measured == pytest.approx(state, abs=0.02)
