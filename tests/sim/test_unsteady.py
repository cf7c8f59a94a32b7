"""Laws of the human hand: noise of the declared size that depends on settings and id alone."""

import pickle

import gymnasium
import numpy as np
import pytest

from canvas_robot.sim.experts import ReachExpert, expert_for
from canvas_robot.sim.registration import ENV_IDS, REACH_ID, register
from canvas_robot.sim.unsteady import Disturbance, UnsteadyExpert

register()


@pytest.fixture(scope="module")
def env():
    env = gymnasium.make(REACH_ID, obs="state", physics_hz=250)
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


def executed(env: gymnasium.Env, disturb, episode_id: int) -> tuple[np.ndarray, np.ndarray]:
    """What was executed (T, 7) in an episode, and what the expert said (T, 7)."""
    env.reset(options={"episode_id": episode_id})
    expert, labels, done = ReachExpert(), [], []
    terminated = truncated = False
    while not (terminated or truncated):
        labels.append(expert(env))
        done.append(disturb(env, labels[-1]))
        assert done[-1] in env.action_space
        *_, terminated, truncated, _ = env.step(done[-1])
    return np.stack(done), np.stack(labels)


# ---------------------------------------------------------------- an unsteady hand


def test_an_unsteady_hand_still_reaches(env):
    expert = UnsteadyExpert(ReachExpert())
    assert np.mean([commanded(env, expert, k)[2] for k in range(30)]) >= 0.95


@pytest.mark.parametrize("task", ["spoon_on_towel", "stack_cube", "eggplant_in_basket"])
def test_an_unsteady_hand_still_places(task):
    env = gymnasium.make(ENV_IDS[task], obs="state", physics_hz=250, stop="held")
    expert = expert_for(task, wander_m=0.003, rest_chance=0.04)
    for episode_id in (100, 101, 102):
        env.reset(options={"episode_id": episode_id})
        terminated = truncated = False
        while not (terminated or truncated):
            *_, terminated, truncated, info = env.step(expert(env))
        assert info["success_held"]
    env.close()


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


# ---------------------------------------------------------------- a disturbed hand


def test_the_disturbance_has_the_declared_size_and_leaves_the_gripper_alone(env):
    disturb = Disturbance(noise_m=0.003, noise_rad=0.02, push_chance=0.0, share=1.0)
    noise = np.concatenate([np.subtract(*executed(env, disturb, k)) for k in range(40)])
    assert noise[:, :3].std() == pytest.approx(0.003, rel=0.25)
    assert noise[:, 3:6].std() == pytest.approx(0.02, rel=0.25)
    assert not noise[:, 6].any()


def test_pushes_have_their_length_and_come_as_often_as_declared(env):
    disturb = Disturbance(noise_m=0, noise_rad=0, push_m=0.025, push_chance=0.2, share=1.0)
    noise = np.concatenate([np.subtract(*executed(env, disturb, k)) for k in range(40)])
    lengths = np.linalg.norm(noise[:, :3], axis=1)
    assert np.mean(lengths > 0.001) == pytest.approx(0.2, abs=0.06)
    assert np.median(lengths[lengths > 0.001]) == pytest.approx(0.025, abs=1e-3)
    assert not noise[:, 3:].any()


def test_the_declared_share_of_episodes_is_disturbed_and_an_id_repeats_its_own(env):
    disturb = Disturbance(share=0.5)
    runs = [executed(env, disturb, k) for k in range(40)]
    disturbed = [not np.array_equal(*run) for run in runs]
    assert 10 <= sum(disturbed) <= 30
    k = disturbed.index(True)
    again = executed(env, pickle.loads(pickle.dumps(Disturbance(share=0.5))), k)
    assert np.array_equal(again[0], runs[k][0])


@pytest.mark.parametrize(
    "settings",
    [{"noise_m": -1}, {"noise_rad": np.inf}, {"steps": 0}, {"push_m": -1}, {"push_chance": 2},
     {"share": -0.1}],
)  # fmt: skip
def test_disturbances_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"Disturbance: expected"):
        Disturbance(**settings)
