"""A rollout keeps what was seen before each action."""

import gymnasium
import numpy as np
import pytest

from canvas_robot.evaluation.rollouts import record_rollout, record_rollouts
from canvas_robot.sim.experts import ReachExpert
from canvas_robot.sim.registration import REACH_ID, register


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
