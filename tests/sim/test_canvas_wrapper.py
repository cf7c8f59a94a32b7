"""Laws of CanvasWrapper: a policy sees what it sees on the robot, and a step is a control tick."""

import json
import pickle
import warnings
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import (
    BindingError,
    History,
    SignalError,
    binding_from_yaml,
    load_binding,
    load_statistics,
)
from canvas_robot.sim.canvas_wrapper import CanvasWrapper
from canvas_robot.sim.registration import register

register()
REACH = "canvas_robot/WidowXReach-v0"
WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))
TINY = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For small tensors more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def slower(visual=(2, 2), proprio=(3, 3)) -> CanvasSchema:
    """widowx_tiny with small pictures; (frames, period) of its observed regions."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    data["layout"].update(T=7, H=7, t_current=2)
    data["regions"]["visual"].update(bounds=[3 - visual[0], 3, 0, 4, 0, 4], period=visual[1])
    data["regions"]["proprio"].update(bounds=[3 - proprio[0], 3, 4, 5, 0, 1], period=proprio[1])
    data["regions"]["action"].update(bounds=[2, 6, 4, 5, 1, 3])
    data["regions"]["goal"].update(bounds=[0, 4, 5, 7, 0, 16])
    return CanvasSchema.from_dict(data)


@pytest.fixture(scope="module")
def env():
    wrapped = CanvasWrapper(gymnasium.make(REACH, render_mode="rgb_array"), WIDOWX, slower())
    yield wrapped
    wrapped.close()


def small_actions(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.uniform(-0.02, 0.02, (count, 7)).astype(np.float32)


# ---------------------------------------------------------------- one path


def test_a_policy_acts_as_if_it_kept_the_history_itself(env):
    """Ten steps, periods above 1: equal to the bit to feeding raw observations to the policy."""
    statistics = load_statistics(config_path("statistics", "bridge_v2.json"))
    wrapped, bare = (
        CanvasPolicy.untrained(env.schema, WIDOWX, statistics, loops=2) for _ in range(2)
    )
    raw_env = gymnasium.make(REACH)
    env.reset(seed=3)
    raw, info = raw_env.reset(seed=3)
    assert env.instruction == info["instruction"]
    wrapped.reset(env.instruction)
    bare.reset(info["instruction"])
    for _ in range(10):
        chunk, expected = wrapped.act(env.canvas_observation), bare.act(raw)
        assert np.array_equal(chunk.values, expected.values)
        action = np.clip(chunk.values[0], env.action_space.low, env.action_space.high)
        env.step(action)
        raw, *_ = raw_env.step(action)
    raw_env.close()


def test_observations_are_the_frames_that_a_history_makes_of_what_was_seen(env):
    raw_env = gymnasium.make(REACH)
    history = History(env.schema, WIDOWX)
    seen, _ = env.reset(seed=1)
    raw, _ = raw_env.reset(seed=1)
    for tick, action in enumerate(small_actions(7)):
        stamp = (tick + 1) * WIDOWX.tick_ns
        for signal in history.signals:
            history.push(signal, stamp, raw[signal])
        expected = history.observe(tick, stamp)
        assert env.canvas_observation.tick == tick
        assert seen.keys() == expected.frames.keys() == env.observation_space.spaces.keys()
        for region, frames in expected.frames.items():
            got = env.canvas_observation.frames[region]
            assert np.array_equal(seen[region], frames.values)
            assert np.array_equal(got.values, frames.values)
            assert np.array_equal(got.missing, frames.missing)
            assert np.array_equal(got.stamps_ns, frames.stamps_ns)
        seen, *_ = env.step(action)
        raw, *_ = raw_env.step(action)
    raw_env.close()


def test_spaces_are_those_of_the_regions_and_of_the_action_signal(env):
    assert env.observation_space["visual"].shape == (2, 256, 256, 3)
    assert env.observation_space["proprio"].shape == (3, 7)
    assert env.observation_space["proprio"].dtype == np.float32
    assert env.action_space == env.unwrapped.action_space
    assert env.metadata["render_fps"] == WIDOWX.control_rate_hz


def test_what_is_returned_is_the_callers_own(env):
    seen, _ = env.reset(seed=0)
    seen["proprio"][:] = 0.0
    again, *_ = env.step(small_actions(1)[0])
    assert (again["proprio"][:, 0] > 0.2).all()
    assert (env.canvas_observation.frames["proprio"].values[:, 0] > 0.2).all()


# ---------------------------------------------------------------- Gymnasium's contract


def test_gymnasiums_checker_has_nothing_to_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # That it is a wrapper is meant.
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        check_env(CanvasWrapper(gymnasium.make(REACH, render_mode="rgb_array"), WIDOWX, TINY))


def test_seed_and_options_reach_the_environment(env):
    first, info = env.reset(seed=7)
    assert info["instruction"] == env.instruction == env.unwrapped.instruction
    env.reset(seed=8)
    same, same_info = env.reset(options={"episode_id": info["episode_id"]})
    assert same_info == info
    assert all(np.array_equal(first[region], same[region]) for region in first)
    with pytest.raises(ValueError, match="expected 'episode_id' and 'target' only"):
        env.reset(options={"colour": "red"})


def test_its_spec_survives_json_where_its_files_are_named(env):
    named = CanvasWrapper(gymnasium.make(REACH), "widowx.yaml", "widowx_tiny")
    again = gymnasium.make(EnvSpec.from_json(named.spec.to_json()))
    assert isinstance(again, CanvasWrapper) and again.binding == WIDOWX and again.schema == TINY
    first, other = named.reset(seed=2)[0], again.reset(seed=2)[0]
    assert all(np.array_equal(first[region], other[region]) for region in first)
    remade = gymnasium.make(env.spec)  # objects stay objects
    assert remade.schema == env.schema
    for made in (named, again, remade):
        made.close()


def test_it_is_pickled_as_its_environment_is_to_start_anew(env):
    first, _ = env.reset(seed=5)
    again = pickle.loads(pickle.dumps(env))
    with pytest.raises(ResetNeeded):
        _ = again.canvas_observation
    other, _ = again.reset(seed=5)
    assert all(np.array_equal(first[region], other[region]) for region in first)
    again.close()


@pytest.mark.slow
def test_it_runs_in_other_processes():
    def make() -> gymnasium.Env:
        return CanvasWrapper(gymnasium.make(REACH), "widowx.yaml", "widowx_tiny")

    together = gymnasium.vector.AsyncVectorEnv([make, make], context="spawn")
    alone = make()
    seen, info = together.reset(seed=[4, 9])
    expected, told = alone.reset(seed=9)
    assert info["instruction"][1] == told["instruction"]
    for action in small_actions(3):
        for region in expected:
            assert np.array_equal(seen[region][1], expected[region])
        seen, *_ = together.step(np.stack([action, action]))
        expected, *_ = alone.step(action)
    together.close()
    alone.close()


@pytest.mark.parametrize("name", ["canvas_observation", "instruction"])
def test_before_the_first_reset_there_is_nothing(name):
    fresh = CanvasWrapper(gymnasium.make(REACH), WIDOWX, TINY)
    with pytest.raises(ResetNeeded, match=r"no episode yet; call reset\(\) first"):
        getattr(fresh, name)
    with pytest.raises(ResetNeeded):
        fresh.step(small_actions(1)[0])
    fresh.close()


# ---------------------------------------------------------------- an environment of another kind


class Cart(gymnasium.Env):
    """A cart on a rail at 50 Hz: it goes where it is pushed, and says what it is for when asked.

    It shows the same arrays again and again, written over, as fast simulators do.
    """

    metadata: ClassVar = {"render_modes": [], "render_fps": 50}

    def __init__(self, says: bool = True, length: float = 2.0) -> None:
        self.observation_space = spaces.Dict(
            {"at": spaces.Box(-9, 9, (1,)), "view": spaces.Box(0, 255, (64, 64, 3), np.uint8)}
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.says, self.length = says, length
        self.shown = {"at": np.zeros(1, np.float32), "view": np.zeros((64, 64, 3), np.uint8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shown["at"][:] = 0.0
        self.pushes = []
        return self.shown, {"task": "go right"} if self.says else {}

    def step(self, action):
        self.pushes.append(action.tolist())
        self.shown["at"] += action[:1]
        self.shown["view"][:] = 10 * len(self.pushes)
        there = bool(self.shown["at"][0] >= self.length)
        info = {"arrived": np.float32(there)}
        if len(self.pushes) == 10:
            info["task"] = "go left"
        return self.shown, np.float64(1.0), np.bool_(there), False, info


CART = yaml.safe_load("""
control_rate_hz: 10.0
signals:
  view: {kind: image, sizes: [[64, 64]]}
  at: {kind: vector, names: [at], units: [m], low: [-1.0], high: [2.5], frame: rail}
  task: {kind: text}
  move:
    {kind: vector, names: [dx, dy], units: [m, m], low: [-1.0, -1.0], high: [1.0, 1.0], frame: rail}
regions:
  visual: {signal: view, codec: visual}
  goal: {signal: task, codec: text}
  proprio: {signal: at, codec: vector}
  action: {signal: move, codec: action}
sources:
  env: {view: view, at: at, task: {type: info, key: task}}
environment:
  step_rate_hz: 50.0
  action: [{type: numbers, names: [dx, dy], spread: true}]
  success: arrived
""")


def cart(says: bool = True, length: float = 2.0, **fields) -> CanvasWrapper:
    binding = binding_from_yaml(yaml.safe_dump(CART | fields))
    return CanvasWrapper(Cart(says, length), binding, slower(visual=(1, 1), proprio=(3, 1)))


def test_a_control_tick_is_several_steps_whose_rewards_add_up():
    env = cart()
    _, info = env.reset(seed=0)
    assert info == {"task": "go right", "instruction": "go right", "success": False}
    assert env.steps_per_tick == 5
    seen, reward, terminated, truncated, info = env.step(np.array([0.5, 0.0]))
    assert env.unwrapped.pushes == [[pytest.approx(0.1), 0.0]] * 5
    assert (reward, terminated, truncated) == (5.0, False, False)
    assert type(terminated) is bool and type(reward) is float and type(info["success"]) is bool
    assert seen["proprio"][:, 0] == pytest.approx([0.0, 0.0, 0.5])


def test_the_end_of_an_episode_ends_the_tick():
    env = cart()
    env.reset()
    env.step(np.array([1.0, 0.0]))
    env.step(np.array([0.9, 0.0]))
    _, reward, terminated, _, info = env.step(np.array([1.0, 0.0]))  # there after the first step
    assert terminated is True and info["success"] is True and reward == 1.0
    assert len(env.unwrapped.pushes) == 11


def test_an_instruction_lasts_until_another_is_given():
    env = cart()
    env.reset()
    said = [env.step(np.array([0.1, 0.0]))[-1]["instruction"] for _ in range(3)]
    assert said == ["go right", "go left", "go left"]
    assert env.reset()[1]["instruction"] == "go right"


def test_what_an_environment_writes_over_is_kept_as_it_was():
    env = cart()
    env.reset()
    first = env.step(np.array([0.25, 0.0]))[0]
    second = env.step(np.array([0.25, 0.0]))[0]
    assert second["proprio"][:, 0] == pytest.approx([0.0, 0.25, 0.5])
    assert first["proprio"][:, 0] == pytest.approx([0.0, 0.0, 0.25])
    assert first["visual"].max() == 50 and second["visual"].max() == 100


def test_an_episode_without_an_instruction_is_refused_with_what_info_holds():
    with pytest.raises(BindingError) as error:
        cart(says=False).reset()
    assert str(error.value) == (
        "sources.env.task: expected an instruction at the reset, got none; info has keys []; "
        "declare one of type info, attribute or text"
    )


def test_an_observation_out_of_its_signals_range_is_refused_and_ends_the_episode():
    env = cart(length=9.0)
    env.reset()
    with pytest.raises(SignalError) as error:
        for _ in range(3):
            env.step(np.array([1.25, 0.0]))
    assert str(error.value) == (
        "signal 'at': expected component 'at' in [-1.0, 2.5] m, got 3.75; "
        "check the source's unit, frame and sign"
    )
    with pytest.raises(ResetNeeded):
        env.step(np.array([0.0, 0.0]))


def test_a_schema_of_other_regions_is_refused():
    with pytest.raises(BindingError, match="binding and schema name different regions"):
        CanvasWrapper(
            gymnasium.make(REACH),
            WIDOWX,
            "widowx_tiny_video",
        )


def test_a_binding_of_another_environment_is_refused():
    with pytest.raises(BindingError, match=r"sources\.env\.at: key 'at': in the observation"):
        CanvasWrapper(gymnasium.make(REACH), binding_from_yaml(yaml.safe_dump(CART)), slower())
