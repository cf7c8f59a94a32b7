"""Environments are found and made, or refused with what to do."""

import re

import pytest

from canvas_robot.evaluation.eval_env import (
    EvalEnvError,
    described,
    find_spec,
    open_env,
    other_target,
    reset_options,
    shows_pictures,
    steps_a_second,
)
from canvas_robot.sim.registration import REACH_ID


def test_an_environment_of_another_package_is_found_by_package_and_id(line):
    assert find_spec(line).id == "made_up/Line-v0"


@pytest.mark.parametrize(
    "env_id", ["canvas_robot/WidowXDance-v0", "Dance-v0", "CartPole-v99", "a b"]
)
def test_an_unknown_id_is_answered_with_those_that_there_are(env_id):
    with pytest.raises(EvalEnvError, match=re.escape(f"env {env_id!r}: not registered")) as error:
        find_spec(env_id)
    assert REACH_ID in str(error.value) and "PACKAGE:ID" in str(error.value)


def test_a_package_that_is_not_there_is_named():
    with pytest.raises(EvalEnvError, match="no package 'not_there' is installed"):
        find_spec("not_there:Reach-v0")


def test_pictures_are_asked_for_where_the_environment_has_them(line, seeded):
    assert shows_pictures(open_env(line, {}))
    assert not shows_pictures(open_env(line, {"render_mode": None}))
    assert not shows_pictures(open_env(seeded, {}))


def test_keywords_reach_the_environment_and_wrong_ones_are_named(line):
    env = open_env(line, {"limit": 2})
    env.reset(seed=0)
    assert not env.step([0.1])[3] and env.step([0.1])[3]
    with pytest.raises(
        EvalEnvError, match=r"cannot be made with {'speed': 3, .*: TypeError: .*'speed'"
    ):
        open_env(line, {"speed": 3})


def test_steps_can_be_limited(made_up_envs):
    env = open_env("made_up/Endless-v0", {}, max_steps=3)
    env.reset(seed=0)
    assert [env.step([0, 0])[3] for _ in range(3)] == [False, False, True]


def test_a_description_holds_all_keywords_and_the_limit():
    found = described(REACH_ID, {"shadows": True}, 0)
    assert found["kwargs"] == {"task": "reach", "shadows": True}
    assert found["max_episode_steps"] == 40 and found["id"] == REACH_ID
    assert described(REACH_ID, {}, 7)["max_episode_steps"] == 7


@pytest.mark.parametrize(
    "option, target, options",
    [
        ("", "", None),
        ("episode_id", "", {"episode_id": 7}),
        ("obj_init_options.episode_id", "", {"obj_init_options": {"episode_id": 7}}),
        ("episode_id", "red", {"episode_id": 7, "target": "red"}),
        ("", "red", {"target": "red"}),
    ],
)
def test_the_number_goes_where_the_environment_takes_it(option, target, options):
    assert reset_options(option, 7, target) == options


def test_another_goal_of_the_scene_is_found(line):
    env = open_env(line, {})
    env.reset(options={"episode_id": 4})
    assert {env.unwrapped.episode.target, other_target(env, 4)} == {"left", "right"}


def test_an_environment_with_one_goal_is_refused(seeded):
    env = open_env(seeded, {})
    env.reset()
    with pytest.raises(EvalEnvError, match=r"--compare-instructions: .* made_up/Seeded-v0 cannot"):
        other_target(env, 4)


def test_an_environments_own_pace_is_taken(line, seeded):
    assert steps_a_second(open_env(line, {})) == 4
    assert steps_a_second(open_env(seeded, {})) == 20
