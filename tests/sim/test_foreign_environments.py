"""The shipped bindings in the real packages: a policy runs in each, and each obeys as declared.

Gymnasium-Robotics comes with the extra `envs`. Meta-World and gym-aloha do not run on MuJoCo 4;
requirements-envs.txt makes the environment in which they are tested (docs/environments.md).
"""

import importlib
import warnings
from pathlib import Path
from types import ModuleType

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.signals import Binding, Statistics, VectorSignal
from canvas_robot.sim.canvas_wrapper import CanvasWrapper

# gymnasium_robotics tells of other environments when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*AdroitHand.*Dense-v1")

PICTURES = {"render_mode": "rgb_array", "width": 256, "height": 256}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For small tensors more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fetch(task: str, **options) -> gymnasium.Env:
    pytest.importorskip("gymnasium_robotics")
    _drop_assertions(importlib.import_module("gymnasium_robotics.utils.mujoco_utils"))
    return gymnasium.make(task, **PICTURES, **options)


def _drop_assertions(module: ModuleType) -> None:
    """As `python -O` does: on MuJoCo 3.12 to 4.0 those of 1.4.2 on joint types fail, no more."""
    source = Path(module.__file__).read_text()
    exec(compile(source, module.__file__, "exec", optimize=1), vars(module))


def metaworld() -> gymnasium.Env:
    pytest.importorskip("metaworld")
    # Its observations leave its own observation space, which Gymnasium's checker says at each step.
    return gymnasium.make(
        "Meta-World/MT1",
        env_name="reach-v3",
        camera_name="corner2",
        disable_env_checker=True,
        **PICTURES,
    )


def aloha() -> gymnasium.Env:
    pytest.importorskip("gym_aloha")
    return gymnasium.make(
        "gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos", disable_env_checker=True
    )


MADE = {
    "fetch_reach": lambda: fetch("FetchReach-v4"),
    "fetch_pick_and_place": lambda: fetch("FetchPickAndPlace-v4", max_episode_steps=200),
    "metaworld_reach": metaworld,
    "aloha_transfer_cube": aloha,
}


def wrapped(name: str) -> CanvasWrapper:
    schema = "bimanual_tiny" if name.startswith("aloha") else "position_arm_tiny"
    return CanvasWrapper(MADE[name](), f"{name}.yaml", schema)


def statistics_of_ranges(binding: Binding) -> dict[str, Statistics]:
    """As if every component were spread over its declared range."""
    made = {}
    for name, signal in binding.signals.items():
        if isinstance(signal, VectorSignal):
            low, high = np.array(signal.low), np.array(signal.high)
            mean, std = (low + high) / 2, (high - low) / 4
            made[name] = Statistics(mean=(*mean,), std=(*std,), q01=signal.low, q99=signal.high)
    return made


@pytest.mark.parametrize("name", MADE)
def test_an_untrained_policy_runs_ten_steps(name):
    env = wrapped(name)
    policy = CanvasPolicy.untrained(env.schema, env.binding, statistics_of_ranges(env.binding))
    seen, info = env.reset(seed=1)
    policy.reset(env.instruction)
    for step in range(10):
        assert seen in env.observation_space and seen["visual"].std() > 10  # something is drawn
        assert info["success"] is False and info["instruction"] == env.instruction
        assert env.canvas_observation.tick == step
        action = policy.act(env.canvas_observation).values[0]
        seen, reward, terminated, truncated, info = env.step(action)
        assert np.isfinite(reward) and not (terminated or truncated)
    env.close()


def test_gymnasiums_checker_has_nothing_to_say_of_fetch_wrapped():
    env = wrapped("fetch_reach")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # That it is a wrapper is meant.
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        check_env(env, skip_render_check=True)  # one of its render modes needs a display
    env.close()


def go(env: CanvasWrapper, towards: np.ndarray, *gripper: float) -> dict[str, np.ndarray]:
    """One tick towards a point, as fast as the action signal may say."""
    at = env.canvas_observation.frames["proprio"].values[-1, :3]
    move = np.clip(towards - at, env.action_space.low[:3], env.action_space.high[:3])
    return env.step(np.array([*move, *gripper]))


def test_fetch_reaches_its_goal_by_declared_metres():
    """A hand that is told the way to the goal is there in a few ticks of at most 10 cm."""
    env = wrapped("fetch_reach")
    for seed in range(3):
        seen, info = env.reset(seed=seed)
        for _ in range(8):
            seen, _, _, _, info = go(env, seen["proprio"][-1, 3:6])
        assert info["success"] is True
        assert np.linalg.norm(seen["proprio"][-1, :3] - seen["proprio"][-1, 3:6]) < 0.03
    env.close()


def test_a_move_of_fetch_goes_where_it_says_and_about_as_far():
    """A change acts on the measured hand, which follows late: two thirds of 12 cm are reached."""
    env = wrapped("fetch_pick_and_place")
    seen, _ = env.reset(seed=0)
    start = seen["proprio"][-1, :3].copy()
    for _ in range(6):
        seen, *_ = env.step(np.array([0.0, -0.02, 0.0, 1.0]))
    x, y, z = seen["proprio"][-1, :3] - start
    assert -0.12 < y < -0.06 and abs(x) < 0.01 and abs(z) < 0.01
    env.close()


def test_fetch_picks_and_places_by_the_declared_gripper():
    env = wrapped("fetch_pick_and_place")
    seen, info = env.reset(seed=3)
    cube = env.unwrapped._get_obs()["observation"][3:6]
    goal = seen["proprio"][-1, 4:7]
    above = cube + np.array([0.0, 0.0, 0.1])
    for towards, gripper, ticks in (
        (above, 1.0, 8),
        (cube, 1.0, 8),
        (cube, 0.0, 4),
        (goal, 0.0, 20),
    ):
        for _ in range(ticks):
            seen, _, _, _, info = go(env, towards, gripper)
        opening = seen["proprio"][-1, 3]
        assert opening > 0.9 if gripper else 0.2 < opening < 0.6  # open, or at the cube
    assert info["success"] is True
    env.close()


def test_metaworld_reaches_by_declared_metres_and_closes_its_gripper():
    env = wrapped("metaworld_reach")
    seen, info = env.reset(seed=0)
    goal = env.unwrapped._target_pos.copy()
    opened = seen["proprio"][-1, 3]
    for _ in range(12):
        seen, _, _, _, info = go(env, goal, 0.0)
    assert info["success"] is True
    assert np.linalg.norm(seen["proprio"][-1, :3] - goal) < 0.05
    assert seen["proprio"][-1, 3] < opened - 0.2
    env.close()


def test_aloha_goes_where_its_joints_are_sent_beyond_the_bounds_it_names():
    env = wrapped("aloha_transfer_cube")
    seen, _ = env.reset(seed=0)
    start = seen["proprio"][-1].copy()
    assert start[2] > 1.1  # the elbow; the action space says at most 1
    target = start.copy()
    target[0] += 0.1
    target[6] = 0.9
    for _ in range(12):
        seen, *_ = env.step(target)
    np.testing.assert_allclose(seen["proprio"][-1, 0], target[0], atol=0.03)
    assert seen["proprio"][-1, 6] > start[6] + 0.2
    np.testing.assert_allclose(seen["proprio"][-1, 1:3], start[1:3], atol=0.1)
    env.close()
