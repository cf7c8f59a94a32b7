"""Laws of the scripted experts: they solve their task within the action space, from anywhere."""

import pickle

import gymnasium
import numpy as np
import pytest

from canvas_robot.sim.experts import ReachExpert, UnsteadyExpert
from canvas_robot.sim.registration import REACH_ID, register

register()


def outcome(env: gymnasium.Env, seed: int, noise_m: float = 0.0) -> bool:
    expert, random = ReachExpert(), np.random.default_rng(seed)
    _, info = env.reset(seed=seed)
    terminated = truncated = False
    while not (terminated or truncated):
        action = expert(env)
        assert action in env.action_space
        action[:3] += random.uniform(-noise_m, noise_m, 3).astype(np.float32)
        *_, terminated, truncated, info = env.step(action)
    return info["success"]


def test_the_reach_expert_solves_fifty_seeds():
    env = gymnasium.make(REACH_ID)
    assert np.mean([outcome(env, seed) for seed in range(50)]) >= 0.95
    env.close()


def test_the_reach_expert_recovers_from_noise_and_knows_every_colour():
    env = gymnasium.make(REACH_ID, colours=("red", "green", "blue", "yellow"))
    assert np.mean([outcome(env, seed, noise_m=0.01) for seed in range(20)]) >= 0.9
    env.close()


# ---------------------------------------------------------------- an unsteady hand


@pytest.fixture(scope="module")
def env():
    env = gymnasium.make(REACH_ID)
    yield env
    env.close()


def commanded(env: gymnasium.Env, expert, episode_id: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """The actions (T, 7) of an episode, what a steady hand would have done instead, and success."""
    _, info = env.reset(options={"episode_id": episode_id})
    steady, actions, instead = ReachExpert(), [], []
    terminated = truncated = False
    while not (terminated or truncated):
        instead.append(steady(env))
        actions.append(expert(env))
        assert actions[-1] in env.action_space
        *_, terminated, truncated, info = env.step(actions[-1])
    return np.stack(actions), np.stack(instead), info["success"]


def test_an_unsteady_hand_still_reaches(env):
    expert = UnsteadyExpert(ReachExpert())
    assert np.mean([commanded(env, expert, k)[2] for k in range(30)]) >= 0.95


def test_an_id_repeats_its_noise_whatever_came_before(env):
    expert = UnsteadyExpert(ReachExpert())
    first = commanded(env, expert, 3)[0]
    other = commanded(env, expert, 4)[0]
    again = commanded(env, pickle.loads(pickle.dumps(expert)), 3)[0]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[:3], other[:3])


def test_the_noise_is_smooth_has_the_declared_size_and_leaves_turns_and_gripper_alone(env):
    expert = UnsteadyExpert(ReachExpert(), wander_m=0.002, wander_steps=3.0, rest_chance=0.0)
    noises = [np.subtract(*commanded(env, expert, k)[:2]) for k in range(40)]
    every = np.concatenate(noises)
    assert every[:, :3].std() == pytest.approx(0.002, rel=0.25) and not every[:, 3:].any()
    now, later = (np.concatenate([n[part, :3].ravel() for n in noises])
                  for part in (slice(None, -1), slice(1, None)))  # fmt: skip
    assert np.corrcoef(now, later)[0, 1] == pytest.approx(np.exp(-1 / 3), abs=0.2)


def test_it_rests_for_as_long_as_declared(env):
    expert = UnsteadyExpert(ReachExpert(), wander_m=0.0, rest_chance=0.2, rest_steps=(2, 2))
    lengths = []
    for k in range(20):
        moving = commanded(env, expert, k)[0][:, :6].any(axis=1)
        # A rest lies between two steps that move; the arm may touch the cube while it rests.
        lengths += [gap - 1 for gap in np.diff(np.flatnonzero(moving)) if gap > 1]
    # One rest may follow another.
    assert 2 in lengths and all(length % 2 == 0 for length in lengths)


def test_without_noise_and_rests_it_is_the_expert_itself(env):
    actions, instead, _ = commanded(
        env, UnsteadyExpert(ReachExpert(), wander_m=0, rest_chance=0), 5
    )
    np.testing.assert_array_equal(actions, instead)


@pytest.mark.parametrize(
    "settings",
    [{"wander_m": -1}, {"wander_m": np.nan}, {"wander_steps": 0}, {"rest_chance": 1},
     {"rest_steps": (0, 2)}, {"rest_steps": (3, 2)}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"UnsteadyExpert: .*expected"):
        UnsteadyExpert(ReachExpert(), **settings)
