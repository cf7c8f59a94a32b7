"""Laws of the reach task: Gymnasium's contract, one decision by contact, episodes that repeat."""

import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.kinematics import Arm
from canvas_robot.kinematics.rule import limits_of
from canvas_robot.resources import config_path
from canvas_robot.signals import load_binding
from canvas_robot.sim.experts import ReachExpert
from canvas_robot.sim.reach import (
    CUBES_APART_M,
    CUBES_HIGH,
    CUBES_LOW,
    LIMITS,
    WidowXReachEnv,
    draw_episode,
)
from canvas_robot.sim.registration import REACH_ID, register
from canvas_robot.sim.scene import COLOURS, Cube

register()
CUBES = tuple(Cube(name, COLOURS[name]) for name in ("red", "blue"))
INFO_KEYS = {"success", "is_success", "instruction", "episode_id", "elapsed_steps"}
STAY = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)


@pytest.fixture(scope="module")
def env():
    env = gymnasium.make(REACH_ID, render_mode="rgb_array")
    yield env
    env.close()


def assert_equal_observations(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert np.array_equal(first[name], second[name]), name


def test_gymnasiums_checker_has_nothing_to_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(REACH_ID, render_mode="rgb_array").unwrapped)
        # A bare instance has no spec to make other render modes from.
        check_env(WidowXReachEnv(), skip_render_check=True)


def test_the_spec_survives_json_and_the_environment_survives_pickle(env):
    made = gymnasium.make(REACH_ID, colours=["green", "yellow"])
    again = gymnasium.make(EnvSpec.from_json(made.spec.to_json()))
    raw = pickle.loads(pickle.dumps(made.unwrapped))
    first, _ = made.reset(seed=3)
    for other in (again, raw):
        assert_equal_observations(first, other.reset(seed=3)[0])
        other.close()
    made.close()


def test_a_recorded_tape_of_actions_repeats_to_the_bit(env):
    env.action_space.seed(0)
    tape = [env.action_space.sample() for _ in range(8)]

    def play(player):
        observation, info = player.reset(seed=11)
        steps = [(observation, 0.0, False, False, info)]
        for action in tape:
            steps.append(player.step(action))
            if steps[-1][2]:
                break
        return steps

    other = gymnasium.make(REACH_ID)
    for first, second in zip(play(env), play(other), strict=True):
        assert_equal_observations(first[0], second[0])
        assert first[1:] == second[1:]
    other.close()


def test_state_is_recomputed_to_the_bit_from_joint_positions(env):
    arm = Arm.load()
    observation, _ = env.reset(seed=1)
    for _ in range(3):
        joints = observation["joint_positions"]
        assert np.array_equal(observation["state"], arm.measured_state(joints[:6], joints[6]))
        observation, *_ = env.step(np.array([0.02, -0.02, 0.01, 0.1, 0, 0.1, 0.3], np.float32))


def test_the_reset_state_is_the_published_one(env):
    observation, _ = env.reset(seed=0)
    expected = [0.2921, -0.0061, 0.1353, -0.0045, 0.0568, -0.0190, 1.08]
    np.testing.assert_allclose(observation["state"], expected, atol=1e-3)


def test_the_environment_allows_what_the_shipped_binding_allows():
    declared = limits_of(load_binding(config_path("bindings", "widowx.yaml")).robot)
    for name in ("step", "box_low", "box_high", "rpy_low", "rpy_high"):
        assert np.array_equal(getattr(LIMITS, name), getattr(declared, name)), name


def test_observations_stay_in_their_space_under_the_hardest_actions(env):
    random = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        direction = random.integers(0, 2, 7)
        for k in range(12):
            assert observation in env.observation_space
            if k % 4 == 0:
                direction = random.integers(0, 2, 7)
            observation, _, terminated, _, _ = env.step(np.where(direction, high, low))
            if terminated:
                break
        assert observation in env.observation_space


def test_info_has_the_same_keys_and_plain_types_at_every_step(env):
    _, info = env.reset(seed=0)
    for k in range(3):
        assert set(info) == INFO_KEYS
        assert type(info["success"]) is bool and info["is_success"] is info["success"]
        assert type(info["episode_id"]) is int and info["elapsed_steps"] == k
        assert info["instruction"] == env.unwrapped.instruction
        *_, info = env.step(STAY)


@pytest.mark.parametrize("named", [True, False], ids=["named", "other"])
def test_the_first_touch_decides(env, named):
    _, info = env.reset(seed=5)
    target = env.unwrapped.episode.target
    goal = target if named else next(c.name for c in CUBES if c.name != target)
    assert info["instruction"] == f"touch the {target} cube"
    terminated = truncated = False
    while not (terminated or truncated):
        assert not info["success"]
        action = ReachExpert().touch(env, goal)
        _, reward, terminated, truncated, info = env.step(action)
    assert terminated and not truncated
    assert info["success"] is named and reward == float(named)
    with pytest.raises(ResetNeeded, match="the episode has ended"):
        env.unwrapped.step(STAY)


def test_doing_nothing_never_succeeds_and_is_cut_off(env):
    env.reset(seed=2)
    for k in range(40):
        _, reward, terminated, truncated, info = env.step(STAY)
        assert reward == 0.0 and not terminated and not info["success"]
        assert truncated == (k == 39)


def test_an_episode_id_repeats_the_episode_that_reported_it(env):
    first, info = env.reset(seed=123)
    env.reset(seed=9)
    again, info_again = env.reset(options={"episode_id": info["episode_id"]})
    assert_equal_observations(first, again)
    assert info == info_again


def test_an_episode_id_does_not_disturb_the_random_stream(env):
    env.reset(seed=4)
    plain = env.reset()[1]["episode_id"]
    env.reset(seed=4, options={"episode_id": 7})
    assert env.reset()[1]["episode_id"] == plain


@given(st.integers(0, 2**40))
def test_cubes_stand_apart_within_reach_and_are_drawn_by_id_alone(episode_id):
    episode = draw_episode(CUBES, episode_id)
    red, blue = (episode.cubes[cube.name].position[:2] for cube in CUBES)
    assert np.linalg.norm(red - blue) >= CUBES_APART_M > 2 * np.sqrt(2) * 0.015
    for place in (red, blue):
        assert (place >= CUBES_LOW).all() and (place <= CUBES_HIGH).all()
    again = draw_episode(CUBES, episode_id)
    assert again.target == episode.target
    assert np.array_equal(again.cubes["red"].rotation, episode.cubes["red"].rotation)


def test_both_colours_are_asked_for():
    targets = [draw_episode(CUBES, k).target for k in range(200)]
    assert 70 < targets.count("red") < 130


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda env: env.reset(options={"episode": 3}), r"expected only 'episode_id', got \['epis"),
        (lambda env: env.reset(options={"episode_id": -1}), "expected an integer >= 0, got -1"),
        (lambda env: env.reset(options={"episode_id": 1.5}), "expected an integer >= 0, got 1.5"),
        (lambda env: WidowXReachEnv(render_mode="human"), "render_mode: expected None or one of"),
        (lambda env: WidowXReachEnv(colours=["red"]), "colours: expected at least two different"),
        (lambda env: WidowXReachEnv(colours=["red", "mauve"]), "colours: expected at least two"),
    ],
)
def test_errors_name_what_is_wrong(env, call, message):
    with pytest.raises(ValueError, match=message):
        call(env)


def test_an_action_that_is_not_finite_is_refused(env):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action: expected finite numbers"):
        env.unwrapped.step(np.full(7, np.nan, dtype=np.float32))


def test_before_the_first_reset_there_is_no_instruction():
    bare = WidowXReachEnv()
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        _ = bare.instruction
    assert bare.render() is None
    bare.close()
    bare.close()
