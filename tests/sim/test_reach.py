"""Laws of the reach task: one decision by contact, and cubes that stand apart."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.sim.experts import ReachExpert
from canvas_robot.sim.reach import CUBES_APART_M, CUBES_HIGH, CUBES_LOW, ReachTask
from canvas_robot.sim.registration import REACH_ID, register

register()
STAY = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)


@pytest.fixture(scope="module")
def env():
    env = gymnasium.make(REACH_ID, obs="state")
    yield env
    env.close()


@pytest.mark.parametrize("named", [True, False], ids=["named", "other"])
def test_the_first_touch_decides(env, named):
    _, info = env.reset(seed=5)
    target = env.unwrapped.episode.target
    goal = target if named else next(c for c in ("red", "blue") if c != target)
    assert info["instruction"] == f"touch the {target} cube"
    terminated = truncated = False
    while not (terminated or truncated):
        assert not info["success"] and not info["success_any"]
        action = ReachExpert().touch(env, goal)
        _, reward, terminated, truncated, info = env.step(action)
    assert terminated and not truncated
    assert info["success"] is named is info["success_any"] and reward == float(named)
    with pytest.raises(ResetNeeded, match="the episode has ended"):
        env.unwrapped.step(STAY)


@pytest.mark.parametrize(
    "turn, gripper, counts",
    [(0.0, 0.0, True), (0.0, 0.2, True), (0.0, 0.4, False), (0.2, 0.0, True), (0.4, 0.0, False)],
)
def test_only_a_nearly_closed_hand_that_points_down_touches(env, turn, gripper, counts):
    expert = ReachExpert(turn_rad=0.05)
    env.reset(seed=5)
    terminated = False
    while not terminated:
        action = expert(env)
        rolled = env.unwrapped.sim.target.rotation[2, 1]  # sine of the roll: the fingers' axis
        action[3] = np.clip(turn - rolled, -0.25, 0.25)
        action[6] = gripper
        *_, terminated, _, info = env.step(action)
    assert info["success"] is counts


def test_a_touch_ends_the_step_when_it_happens(env):
    env.reset(seed=5)
    terminated = False
    while not terminated:
        *_, terminated, _, info = env.step(ReachExpert()(env))
    steps = info["elapsed_steps"]
    assert 0.2 * (steps - 1) < env.unwrapped.sim.time < 0.2 * steps


@settings(deadline=None)
@given(st.integers(0, 2**40))
def test_cubes_stand_apart_within_reach(episode_id):
    poses = ReachTask().episode(episode_id).poses
    red, blue = (poses[name].position[:2] for name in ("red", "blue"))
    assert np.linalg.norm(red - blue) >= CUBES_APART_M > 2 * np.sqrt(2) * 0.015
    for place in (red, blue):
        assert (place >= CUBES_LOW).all() and (place <= CUBES_HIGH).all()


def test_both_colours_are_asked_for():
    targets = [ReachTask().episode(k).target for k in range(200)]
    assert 70 < targets.count("red") < 130


def test_more_colours_are_more_cubes():
    env = gymnasium.make(REACH_ID, obs="state", colours=["red", "green", "yellow"])
    env.reset(seed=0)
    assert set(env.unwrapped.episode.poses) == {"red", "green", "yellow"}
    env.close()


def test_the_same_scene_can_be_asked_for_the_other_cube():
    env = gymnasium.make("canvas_robot/WidowXReach-v0", obs="state")
    _, first = env.reset(options={"episode_id": 7})
    one = env.unwrapped.episode
    (other,) = env.unwrapped.task.alternatives(one)
    _, second = env.reset(options={"episode_id": 7, "target": other})
    two = env.unwrapped.episode
    assert second["instruction"] == f"touch the {other} cube" != first["instruction"]
    assert second["episode_id"] == 7
    assert all(np.array_equal(two.poses[n].position, one.poses[n].position) for n in one.poses)
    with pytest.raises(ValueError, match="target: expected one of"):
        env.reset(options={"target": "mauve"})
    env.close()
