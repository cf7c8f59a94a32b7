"""A rollout keeps what was seen before each action."""

import gymnasium
import numpy as np
import pytest

from canvas_robot.evaluation.rollouts import record_rollout, record_rollouts
from canvas_robot.sim.experts import ReachExpert, expert_for
from canvas_robot.sim.registration import ENV_IDS, REACH_ID, register


@pytest.fixture(scope="module")
def env():
    register()
    env = gymnasium.make(REACH_ID)
    yield env
    env.close()


def test_step_k_holds_the_observation_before_action_k(env):
    episode = record_rollout(env, ReachExpert(), episode_id=3).episode
    first, info = env.reset(options={"episode_id": 3})
    np.testing.assert_array_equal(episode.images[0], first["image"])
    np.testing.assert_array_equal(episode.states[0], first["state"])
    second = env.step(episode.actions[0])[0]
    np.testing.assert_array_equal(episode.states[1], second["state"])
    assert episode.instruction == info["instruction"]


def test_steps_are_a_control_period_apart(env):
    episode = record_rollout(env, ReachExpert(), episode_id=3).episode
    np.testing.assert_array_equal(np.diff(episode.stamps_ns), 200_000_000)


def test_failure_is_recorded_as_failure(env):
    still = record_rollout(env, lambda env: np.zeros(7, np.float32), episode_id=3)
    assert not still.success and len(still.episode) == env.spec.max_episode_steps


def test_an_id_repeats_its_episode(env):
    first = record_rollout(env, ReachExpert(), episode_id=5)
    (again,) = record_rollouts(REACH_ID, ReachExpert(), [5])
    np.testing.assert_array_equal(again.episode.images, first.episode.images)
    np.testing.assert_array_equal(again.episode.actions, first.episode.actions)


def test_a_disturbed_run_keeps_what_was_decided_and_tells_what_was_done(env):
    push = np.float32([0.01, 0, 0, 0, 0, 0, 0])
    rollout = record_rollout(env, ReachExpert(), 3, disturb=lambda _, action: action + push)
    np.testing.assert_array_equal(rollout.executed, rollout.episode.actions + push)
    env.reset(options={"episode_id": 3})
    states = [env.step(action)[0]["state"] for action in rollout.executed[:-1]]
    np.testing.assert_array_equal(rollout.episode.states[1:], states)
    steady = record_rollout(env, ReachExpert(), 3)
    np.testing.assert_array_equal(steady.executed, steady.episode.actions)


def test_an_environments_options_are_passed_on():
    options = {"image_size": (24, 32), "stop": "held", "physics_hz": 250}
    act = expert_for("stack_cube")
    (rollout,) = record_rollouts(ENV_IDS["stack_cube"], act, [30], env_options=options)
    assert rollout.success and len(rollout.episode) < 40
    assert rollout.episode.images.shape[1:] == (24, 32, 3)
