"""Laws of every task's environment: Gymnasium's contract, episodes that repeat, honest options."""

import pickle
import warnings

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from canvas_robot.kinematics import Arm
from canvas_robot.kinematics.rule import limits_of
from canvas_robot.resources import config_path
from canvas_robot.signals import load_binding
from canvas_robot.sim.environment import WidowXEnv, all_settings
from canvas_robot.sim.experts import expert_for
from canvas_robot.sim.registration import ENV_IDS, register
from canvas_robot.sim.task import LIMITS
from canvas_robot.sim.tasks import TASK_NAMES

register()
PLACING = [name for name in TASK_NAMES if name != "reach"]
ALWAYS = {"success", "is_success", "success_any", "instruction", "episode_id", "elapsed_steps"}
PLACED = {"success_held", "grasped", "moved_correct", "moved_wrong"}
STAY = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)
VARIED = {
    "action_delay": [0.0, 0.2],
    "camera_jitter": 0.02,
    "lighting": 0.5,
    "table_texture": True,
    "distractors": 3,
}
every_task = pytest.mark.parametrize("task", TASK_NAMES)


def make(task: str, **options) -> gymnasium.Env:
    return gymnasium.make(ENV_IDS[task], **{"obs": "state", "physics_hz": 250, **options})


def assert_equal_observations(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert np.array_equal(first[name], second[name]), name


def play(env, tape, **reset):
    """What `reset` and each `step` returned."""
    observation, info = env.reset(**reset)
    seen = [(observation, 0.0, False, False, info)]
    for action in tape:
        seen.append(env.step(action))
        if seen[-1][2]:
            break
    return seen


def assert_equal_runs(first, second):
    for one, other in zip(first, second, strict=True):
        assert_equal_observations(one[0], other[0])
        assert one[1:] == other[1:]


# ---------------------------------------------------------------- Gymnasium's contract


@every_task
def test_gymnasiums_checker_has_nothing_to_say(task):
    options = {"obs": "image", "image_size": (48, 64), "render_mode": "rgb_array"}
    env = make(task, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
        # A bare instance has no spec to make other render modes from.
        check_env(WidowXEnv(task, obs="state", **VARIED), skip_render_check=True)
    env.close()


@every_task
def test_the_spec_survives_json_and_the_environment_survives_pickle(task):
    made = make(task, obs="image", image_size=(24, 32), **VARIED)
    again = gymnasium.make(EnvSpec.from_json(made.spec.to_json()))
    raw = pickle.loads(pickle.dumps(made.unwrapped))
    first, _ = made.reset(seed=3)
    for other in (again, raw):
        assert_equal_observations(first, other.reset(seed=3)[0])
        other.close()
    made.close()


def test_a_spawned_vector_repeats_each_environment_of_its_own():
    options = {"obs": "state", "physics_hz": 250}
    vector = gymnasium.make_vec(
        ENV_IDS["stack_cube"],
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn"},
        **options,
    )
    observations, infos = vector.reset(seed=[5, 6])
    assert infos["episode_id"][0] != infos["episode_id"][1]
    stepped = vector.step(np.stack([STAY, STAY]))[0]
    vector.close()
    env = make("stack_cube")
    for i, seed in enumerate((5, 6)):
        alone, _ = env.reset(seed=seed)
        assert_equal_observations(alone, {name: observations[name][i] for name in observations})
        alone = env.step(STAY)[0]
        assert_equal_observations(alone, {name: stepped[name][i] for name in stepped})
    env.close()


@every_task
def test_info_has_the_same_keys_and_plain_types_at_every_step(task):
    env = make(task)
    keys = ALWAYS | (set() if task == "reach" else PLACED)
    _, info = env.reset(seed=0)
    for k in range(3):
        assert set(info) == keys
        assert info["is_success"] is info["success"]
        flags = keys - {"instruction", "episode_id", "elapsed_steps"}
        assert all(type(info[name]) is bool for name in flags)
        assert type(info["episode_id"]) is int and info["elapsed_steps"] == k
        assert info["instruction"] == env.unwrapped.instruction
        *_, info = env.step(STAY)
    env.close()


@every_task
def test_observations_stay_in_their_space_under_the_hardest_actions(task):
    env = make(task)
    random = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        directions = np.repeat(random.integers(0, 2, (3, 7)), 4, axis=0)
        for direction in directions:
            assert observation in env.observation_space
            observation, _, terminated, _, _ = env.step(np.where(direction, high, low))
            if terminated:
                break
        assert observation in env.observation_space
    env.close()


def test_doing_nothing_never_succeeds_and_is_cut_off():
    for task, limit in {"reach": 40, "stack_cube": 60, "eggplant_in_basket": 120}.items():
        env = make(task)
        _, info = env.reset(seed=2)
        for k in range(limit):
            assert not info["success_any"]
            _, reward, terminated, truncated, info = env.step(STAY)
            assert reward == 0.0 and not terminated
            assert truncated == (k == limit - 1)
        env.close()


# ---------------------------------------------------------------- episodes that repeat


@pytest.mark.parametrize("task", ["reach", "carrot_on_plate", "eggplant_in_basket"])
def test_a_recorded_tape_of_actions_repeats_to_the_bit(task):
    env, other = make(task, **VARIED), make(task, obs="image", image_size=(24, 32), **VARIED)
    expert, tape = expert_for(task), []
    env.reset(options={"episode_id": 100})
    for _ in range(25):  # to the object, and with it in the hand
        tape.append(expert(env))
        if env.step(tape[-1])[2]:
            break
    first = play(env, tape, options={"episode_id": 100})
    play(env, tape[:9], options={"episode_id": 101})  # leaves nothing behind
    assert_equal_runs(first, play(env, tape, options={"episode_id": 100}))
    seen = play(other, tape, options={"episode_id": 100})
    without = [({k: v for k, v in o.items() if k != "image"}, *rest) for o, *rest in seen]
    assert_equal_runs(first, without)
    env.close()
    other.close()


@every_task
def test_an_episode_id_repeats_the_episode_that_reported_it(task):
    env = make(task, **VARIED)
    first, info = env.reset(seed=123)
    env.reset(seed=9)
    again, info_again = env.reset(options={"episode_id": info["episode_id"]})
    assert_equal_observations(first, again)
    assert info == info_again
    assert info["episode_id"] >= env.unwrapped.task.published
    env.close()


def test_an_episode_id_does_not_disturb_the_random_stream():
    env = make("carrot_on_plate")
    env.reset(seed=4)
    plain = env.reset()[1]["episode_id"]
    env.reset(seed=4, options={"episode_id": 7})
    assert env.reset()[1]["episode_id"] == plain
    env.close()


def test_state_is_recomputed_to_the_bit_from_joint_positions():
    arm, env = Arm.load(), make("stack_cube")
    observation, _ = env.reset(seed=1)
    for _ in range(3):
        joints = observation["joint_positions"]
        assert np.array_equal(observation["state"], arm.measured_state(joints[:6], joints[6]))
        observation, *_ = env.step(np.array([0.02, -0.02, 0.01, 0.1, 0, 0.1, 0.3], np.float32))
    env.close()


@pytest.mark.parametrize(
    "task, state",
    [
        ("reach", [0.2921, -0.0061, 0.1353, -0.0045, 0.0568, -0.0190, 1.08]),
        ("spoon_on_towel", [0.2921, -0.0061, 0.1353, -0.0045, 0.0568, -0.0190, 1.08]),
        ("eggplant_in_basket", [0.2497, -0.0675, 0.2276, 0.0066, 0.0484, 0.0092, 1.08]),
    ],
)
def test_the_reset_state_is_the_published_one(task, state):
    env = make(task)
    np.testing.assert_allclose(env.reset(seed=0)[0]["state"], state, atol=1e-3)
    env.close()


def test_the_environment_allows_what_the_shipped_binding_allows():
    declared = limits_of(load_binding(config_path("bindings", "widowx.yaml")).robot)
    for name in ("step", "box_low", "box_high", "rpy_low", "rpy_high"):
        assert np.array_equal(getattr(LIMITS, name), getattr(declared, name)), name


# ---------------------------------------------------------------- options


def test_the_state_alone_is_observed_without_rendering(monkeypatch):
    def refuse(*_):
        raise AssertionError("rendered")

    monkeypatch.setattr(mujoco, "Renderer", refuse)
    env = make("stack_cube")
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"state", "joint_positions"} == set(env.observation_space)
    assert env.step(STAY)[0] in env.observation_space
    assert env.render() is None
    env.close()


def test_a_picture_of_any_size_is_the_whole_view_squashed():
    whole = make("stack_cube", obs="image", image_size=(480, 640))
    small = make("stack_cube", obs="image", image_size=[96, 96], render_mode="rgb_array")
    large = whole.reset(seed=1)[0]["image"]
    little = small.reset(seed=1)[0]["image"]
    assert large.shape == (480, 640, 3) and little.shape == (96, 96, 3)
    assert np.array_equal(small.render(), large)
    blocks = large[:, :576].reshape(96, 5, 96, 6, 3).mean((1, 3))  # the left nine tenths
    squashed = little[:, np.round(np.arange(96) * 0.9).astype(int)]
    assert np.abs(blocks - squashed).mean() < 10
    whole.close()
    small.close()


def test_half_as_many_physics_steps_take_the_hand_to_the_same_place():
    ends = []
    for physics_hz in (500, 250):
        env = make("stack_cube", physics_hz=physics_hz)
        env.reset(seed=0)
        for _ in range(4):
            observation, *_ = env.step(np.array([0.01, 0.03, -0.01, 0, 0, 0.1, 1], np.float32))
        ends.append(observation["state"])
        assert env.unwrapped.sim.time == pytest.approx(0.8)
        env.close()
    np.testing.assert_allclose(*ends, atol=2e-3)


@pytest.mark.parametrize("stop", ["limit", "held"])
def test_an_episode_ends_at_its_limit_or_when_what_was_placed_has_stayed(stop):
    env, expert = make("stack_cube", stop=stop), expert_for("stack_cube")
    _, info = env.reset(options={"episode_id": 0})
    terminated = truncated = False
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(expert(env))
    assert info["success"] and info["success_any"] and info["success_held"]
    if stop == "limit":
        assert truncated and info["elapsed_steps"] == 60
    else:
        assert terminated and info["elapsed_steps"] < 40
        with pytest.raises(ResetNeeded, match="the episode has ended"):
            env.unwrapped.step(STAY)
    env.close()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"task": "sweep"}, r"task: expected one of \['carrot_on_plate'.*got 'sweep'"),
        ({"render_mode": "human"}, r"render_mode: expected one of \[None, 'rgb_array'\], got 'hum"),
        ({"obs": "pixels"}, "obs: expected one of"),
        ({"stop": "never"}, "stop: expected one of"),
        ({"shadows": "yes"}, "shadows: expected true or false, got 'yes'"),
        ({"distractors": 1.5}, "distractors: expected a whole number, got 1.5"),
        ({"image_size": 96}, r"image_size: expected \(height, width\)"),
        ({"colours": ["red"]}, "colours: expected at least two different"),
        ({"colours": ["red", "mauve"]}, "colours: expected at least two"),
        ({"task": "stack_cube", "colours": ["red", "blue"]}, "expected none for task 'stack_cube'"),
        ({"image_size": (4, 4)}, r"image_size: expected \(height, width\) from \(8, 8\)"),
        ({"image_size": (256,)}, "image_size: expected"),
        ({"physics_hz": 100}, r"physics_hz: expected one of \(500, 250\), got 100"),
        ({"action_delay": 0.3}, "action_delay: expected 0 <= low <= high <= 0.2 s, got 0.3"),
        ({"action_delay": (0.1, 0.0)}, "action_delay: expected 0 <= low"),
        ({"action_delay": (0.1,)}, r"action_delay: expected a number or \(low, high\)"),
        ({"camera_jitter": 1.0}, "camera_jitter: expected 0 to 0.1 m"),
        ({"lighting": -0.1}, "lighting: expected 0 to 1"),
        ({"distractors": 9}, "distractors: expected 0 to 4, got 9"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WidowXEnv(**options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"episode": 3}, r"expected 'episode_id' and 'target' only, got \['epis"),
        ({"episode_id": -1}, "expected an integer >= 0, got -1"),
        ({"episode_id": 1.5}, "expected an integer >= 0, got 1.5"),
        ({"episode_id": True}, "expected an integer >= 0, got True"),
    ],
)
def test_a_reset_that_cannot_be_is_refused(options, message):
    env = make("reach")
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)
    env.close()


def test_an_action_that_is_not_finite_is_refused():
    env = make("stack_cube")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action: expected finite numbers"):
        env.unwrapped.step(np.full(7, np.nan, dtype=np.float32))
    env.close()


def test_before_the_first_reset_there_is_no_instruction():
    bare = WidowXEnv()
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        _ = bare.instruction
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        bare.step(STAY)
    assert bare.render() is None
    bare.close()
    bare.close()


def test_all_settings_are_those_that_make_the_same_environment_again():
    settings = all_settings(task="cube_on_plate", stop="held", shadows=True)
    assert settings["shadows"] is True and settings["multisamples"] == 0
    first, again = WidowXEnv("cube_on_plate", stop="held", shadows=True), WidowXEnv(**settings)
    pictures = [env.reset(options={"episode_id": 5})[0]["image"] for env in (first, again)]
    np.testing.assert_array_equal(*pictures)
    for env in (first, again):
        env.close()
    with pytest.raises(TypeError, match="shadow"):
        all_settings(shadow=True)
