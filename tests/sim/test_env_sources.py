"""Laws of reading signals from observations: what is declared is found, converted, or refused."""

import gymnasium
import msgspec
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from canvas_robot.kinematics.arm import Arm
from canvas_robot.resources import config_path
from canvas_robot.signals import (
    BindingError,
    ImageSignal,
    SignalError,
    VectorSignal,
    binding_from_yaml,
    load_binding,
)
from canvas_robot.signals.env_sources import (
    EnvAttribute,
    EnvImage,
    EnvInfo,
    EnvJoints,
    EnvPicture,
    EnvText,
    EnvVector,
)
from canvas_robot.signals.pose import BRIDGE_DEFAULT_ROTATION
from canvas_robot.sim.env_images import image_reader
from canvas_robot.sim.env_lookup import Moment
from canvas_robot.sim.env_sources import EnvSources
from canvas_robot.sim.env_texts import text_reader
from canvas_robot.sim.env_vectors import vector_reader

WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))
S = np.sqrt(0.5)


class Shows(gymnasium.Env):
    """An environment of which only what it shows matters."""

    def __init__(self, space: spaces.Space, render_mode: str | None = None, picture=None) -> None:
        self.observation_space, self.render_mode, self.picture = space, render_mode, picture

    def render(self):
        return self.picture

    def task_text(self) -> list[str]:
        return ["put it there"]

    spoken = "put it here"


def numbers(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float64)


def pixels(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


def vector(count: int) -> VectorSignal:
    names = tuple(f"v{i}" for i in range(count))
    return VectorSignal(
        names=names, units=("1",) * count, low=(-9.0,) * count, high=(9.0,) * count, frame="any"
    )


def vector_of(*parts: dict) -> EnvVector:
    return msgspec.convert({"type": "vector", "parts": parts}, EnvVector)


def read(observation, space, size: int, *parts: dict) -> np.ndarray:
    reader = vector_reader(vector(size), vector_of(*parts), space, None)
    return reader.read(Moment(None, observation, {}))


# ---------------------------------------------------------------- vectors


def test_numbers_are_taken_by_slice_and_index_scaled_and_shifted():
    space = spaces.Dict({"arm": spaces.Dict({"q": numbers(2, 3)}), "all": numbers(2)})
    observation = {"arm": {"q": np.arange(6.0).reshape(2, 3)}, "all": np.array([7.0, 8.0])}
    value = read(
        observation,
        space,
        6,
        {"type": "numbers", "key": "arm.q", "take": "1:3", "scale": 10.0},
        {"type": "numbers", "key": "arm.q", "take": [5, -2], "scale": [1, 2], "offset": 1},
        {"type": "numbers", "key": "all"},
    )
    assert value.dtype == np.float32 and value.tolist() == [10, 20, 6, 9, 7, 8]


def test_a_point_is_the_whole_observation_and_a_key_may_hold_points():
    bare = vector_reader(vector(3), ".", numbers(3), None)
    assert bare.read(Moment(None, np.arange(3.0), {})).tolist() == [0, 1, 2]
    space = spaces.Dict({"observation.state": numbers(1), "observation": spaces.Dict()})
    dotted = vector_reader(vector(1), "observation.state", space, None)
    assert dotted.read(Moment(None, {"observation.state": np.array([4.0])}, {})).tolist() == [4]


SHOWN = spaces.Dict({"p": numbers(3), "q": numbers(4), "base": numbers(7), "m": numbers(3, 3)})
POSE = {
    "type": "pose",
    "position": {"key": "p"},
    "rotation": {"key": "q", "convention": "wxyz"},
}


def test_a_hand_pointing_down_at_the_origin_has_bridges_angles_zero():
    """A quarter about y turns the hand's x axis from forward to down: -z."""
    down = {"p": np.array([0.3, 0.1, 0.2]), "q": np.array([S, 0.0, S, 0.0])}
    np.testing.assert_allclose(read(down, SHOWN, 6, POSE), [0.3, 0.1, 0.2, 0, 0, 0], atol=1e-7)
    plain = read(down, SHOWN, 6, POSE | {"angles": "rpy"})
    np.testing.assert_allclose(plain[4], np.pi / 2, atol=1e-6)


def test_a_base_that_is_turned_half_way_round_is_undone():
    """Worked out by hand: base at (1, 2, 3), yaw 180 degrees; 0.3 before it is x = 1 - 0.3."""
    observation = {
        "p": np.array([0.7, 1.9, 3.2]),
        # A half turn about z after the quarter about y: (0; 0, 0, 1) (S; 0, S, 0) = (0; -S, 0, S).
        "q": np.array([0.0, -S, 0.0, S]),
        "base": np.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0]),
    }
    fixed = {"type": "fixed", "position": [1, 2, 3], "rotation": [0, 0, 0, 1], "convention": "wxyz"}
    shown = {
        "type": "observed",
        "position": {"key": "base", "take": "0:3"},
        "rotation": {"key": "base", "take": "3:7", "convention": "wxyz"},
    }
    for base in (fixed, shown):
        value = read(observation, SHOWN, 6, POSE | {"base": base})
        np.testing.assert_allclose(value, [0.3, 0.1, 0.2, 0, 0, 0], atol=1e-6)


def test_a_tool_stands_before_the_hand_that_carries_it():
    """The hand points down; 0.1 along its x axis is 0.1 below it."""
    down = {"p": np.array([0.3, 0.1, 0.2]), "q": np.array([S, 0.0, S, 0.0])}
    tool = {"type": "fixed", "position": [0.1, 0, 0], "rotation": [0, 0, 0], "convention": "rpy"}
    value = read(down, SHOWN, 6, POSE | {"tool": tool})
    np.testing.assert_allclose(value, [0.3, 0.1, 0.1, 0, 0, 0], atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-0.5, 0.5), min_size=12, max_size=12).map(np.array))
def test_where_the_world_stands_does_not_matter(numbers12):
    """Moving arm and base together changes nothing that is seen from the base."""
    position, rotvec, moved, turned = numbers12.reshape(4, 3)
    down = Rotation.from_matrix(BRIDGE_DEFAULT_ROTATION)
    hand, world = Rotation.from_rotvec(rotvec) * down, Rotation.from_rotvec(turned)
    at_home = {"p": position, "m": hand.as_matrix()}
    elsewhere = {
        "p": moved + world.apply(position),
        "m": (world * hand).as_matrix(),
        "base": np.concatenate([moved, world.as_quat()]),
    }
    part = {
        "type": "pose",
        "position": {"key": "p"},
        "rotation": {"key": "m", "convention": "matrix"},
    }
    base = {
        "type": "observed",
        "position": {"key": "base", "take": ":3"},
        "rotation": {"key": "base", "take": "3:", "convention": "xyzw"},
    }
    np.testing.assert_allclose(
        read(elsewhere, SHOWN, 6, part | {"base": base}),
        read(at_home, SHOWN, 6, part),
        atol=1e-5,
    )


def test_a_gripper_is_the_mean_of_its_fingers_on_the_scale_from_closed_to_open():
    part = {"type": "gripper", "key": "f", "closed": 0.010, "open": 0.035}
    space = spaces.Dict({"f": numbers(2)})
    for fingers, expected in (([0.010] * 2, 0), ([0.035] * 2, 1), ([0.037] * 2, 1.08)):
        assert read({"f": np.array(fingers)}, space, 1, part) == pytest.approx(expected)
    assert read({"f": np.array([0.0, 0.045])}, space, 1, part) == pytest.approx(0.5)


def test_joints_give_the_state_that_the_robots_driver_gives():
    arm = Arm.load(WIDOWX.robot.arm)
    qpos = np.array([-0.018, 0.04, 0.222, -0.005, 1.365, 0.002, 0.037, 0.037])
    source = msgspec.convert(
        {
            "type": "joints",
            "joints": {"key": "q", "take": ":6"},
            "finger": {"key": "q", "take": [6]},
        },
        EnvJoints,
    )
    space = spaces.Dict({"q": numbers(8)})
    reader = vector_reader(WIDOWX.signals["state"], source, space, WIDOWX.robot)
    state = reader.read(Moment(None, {"q": qpos}, {}))
    assert np.array_equal(state, arm.measured_state(qpos[:6], qpos[6]))


# ---------------------------------------------------------------- pictures

PICTURE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
CAMERA = ImageSignal(sizes=((4, 6),))


@pytest.mark.parametrize(
    "source, shown, expected",
    [
        ("rgb", PICTURE, PICTURE),
        (EnvImage(key="rgb", flip=("vertical",)), PICTURE, PICTURE[::-1]),
        (EnvImage(key="rgb", flip=("vertical", "horizontal")), PICTURE, PICTURE[::-1, ::-1]),
        (EnvImage(key="rgb", channels="first"), np.moveaxis(PICTURE, -1, 0), PICTURE),
    ],
    ids=["as it is", "upside down", "turned", "colours first"],
)
def test_a_picture_of_the_observation_is_a_copy_of_it_the_right_way_round(source, shown, expected):
    env = Shows(spaces.Dict({"rgb": pixels(*shown.shape)}))
    reader = image_reader(CAMERA, source, env)
    picture = reader.read(Moment(env, {"rgb": shown}, {}))
    assert np.array_equal(picture, expected) and picture.dtype == np.uint8
    assert not np.shares_memory(picture, shown) and reader.shape == picture.shape


def test_a_picture_may_be_what_the_environment_renders():
    env = Shows(spaces.Dict({}), "rgb_array", PICTURE)
    reader = image_reader(CAMERA, EnvPicture(size=(4, 6), flip=("horizontal",)), env)
    assert np.array_equal(reader.read(Moment(env, {}, {})), PICTURE[:, ::-1])
    env.picture = PICTURE[:2]
    with pytest.raises(SignalError) as error:
        reader.read(Moment(env, {}, {}))
    assert str(error.value) == (
        "expected env.render() to give (4, 6, 3) uint8, got (2, 6, 3) uint8; "
        "make the environment with that size, or change size"
    )


# ---------------------------------------------------------------- text


def test_the_instruction_is_in_info_in_an_attribute_in_the_observation_or_fixed():
    env = Shows(spaces.Dict({"goal": spaces.Text(20)}))
    moment = Moment(env, {"goal": "there"}, {"task": {"text": "push"}, "task.text": "pull"})
    for source, text in (
        (EnvInfo(key="task.text"), "pull"),  # a key that holds the point itself comes first
        (EnvInfo(key="task.colour"), None),
        (EnvInfo(key="task.text.more"), None),
        (EnvAttribute(name="spoken"), "put it here"),
        (EnvAttribute(name="task_text"), "put it there"),
        (EnvAttribute(name="nothing"), None),
        (EnvText(text="go"), "go"),
        ("goal", "there"),
    ):
        assert text_reader(source, env.observation_space).read(moment) == text
    nested = Moment(env, {}, {"task": {"text": "push"}})
    assert text_reader(EnvInfo(key="task.text"), env.observation_space).read(nested) == "push"


# ---------------------------------------------------------------- refusals

SEEN = spaces.Dict(
    {
        "image": pixels(256, 256, 3),
        "state": numbers(7),
        "chw": pixels(3, 64, 64),
        "float": numbers(64, 64, 3),
        "small": pixels(32, 32, 3),
        "arm": spaces.Dict({"q": numbers(8)}),
    }
)


def sources(space=SEEN, sampled=("image", "state"), **env) -> EnvSources:
    """The sources of the shipped binding, some declared otherwise."""
    data = yaml.safe_load(WIDOWX.to_yaml())
    data["sources"]["env"] |= env
    return EnvSources(Shows(space), binding_from_yaml(yaml.safe_dump(data)), sampled)


def part(**fields) -> dict:
    return {"type": "vector", "parts": [fields]}


@pytest.mark.parametrize(
    "env, message",
    [
        (
            {"image": "camera"},
            "sources.env.image: key 'camera': in the observation there are keys ['arm', 'chw', "
            "'float', 'image', 'small', 'state'], got 'camera'",
        ),
        (
            {"state": "arm.x"},
            "sources.env.state: key 'arm.x': under 'arm' there are keys ['q'], got 'x'",
        ),
        (
            {"state": "arm.q.0"},
            "sources.env.state: key 'arm.q.0': under 'arm.q' there are no keys but a Box of (8,) "
            "float64, got '0'",
        ),
        (
            {"image": "chw"},
            "sources.env.image: key 'chw': expected a Box of (H, W, 3) uint8, got Box of "
            "(3, 64, 64) uint8; declare channels: first where colours come first",
        ),
        (
            {"image": {"type": "image", "key": "image", "channels": "first"}},
            "sources.env.image: key 'image': expected a Box of (3, H, W) uint8, got Box of "
            "(256, 256, 3) uint8; declare channels: last where colours come last",
        ),
        (
            {"image": "float"},
            "sources.env.image: key 'float': expected a Box of (H, W, 3) uint8, got Box of "
            "(64, 64, 3) float64; declare channels: first where colours come first",
        ),
        (
            {"image": "small"},
            "sources.env.image: expected a picture of (H, W) (480, 640) or (256, 256) or (64, 64), "
            "which the signal accepts, got (32, 32); make the environment with one of these, or "
            "add it to sizes",
        ),
        (
            {"image": {"type": "render", "size": [256, 256]}},
            "sources.env.image: type render: expected an environment whose render_mode is "
            "'rgb_array', got None; use gymnasium.make(..., render_mode=\"rgb_array\")",
        ),
        (
            {"state": "arm"},
            "sources.env.state: key 'arm': expected a Box of numbers, got Dict",
        ),
        (
            {"state": "arm.q"},
            "sources.env.state: expected 7 numbers, x, y, z, roll, pitch, yaw, gripper; "
            "got 8: numbers 8",
        ),
        (
            {"state": part(type="numbers", key="state", take="5:9")},
            "sources.env.state: key 'state': take: expected some of its 7 numbers, 0 to 6, "
            "got '5:9'",
        ),
        (
            {"state": part(type="numbers", key="state", scale=[1.0, 2.0])},
            "sources.env.state: key 'state': scale: expected one finite number or 7, got "
            "[1.0, 2.0]",
        ),
        (
            {
                "state": part(
                    type="pose",
                    position={"key": "state"},
                    rotation={"key": "state", "take": "3:7", "convention": "xyzw"},
                )
            },
            "sources.env.state: key 'state': expected 3 numbers, got 7 of Box of (7,) float64; "
            "choose them with take",
        ),
        (
            {
                "state": {
                    "type": "joints",
                    "joints": {"key": "arm.q"},
                    "finger": {"key": "arm.q", "take": [6]},
                }
            },
            "sources.env.state: key 'arm.q': expected 6 numbers, got 8 of Box of (8,) float64; "
            "choose them with take",
        ),
        (
            {"instruction": "state"},
            "sources.env.instruction: key 'state': expected Text, got Box of (7,) float64",
        ),
    ],
)
def test_what_the_environment_does_not_show_is_refused_by_signal_and_key(env, message):
    with pytest.raises(BindingError) as error:
        sources(**env)
    assert str(error.value) == message


def test_a_bare_observation_is_named_by_a_point():
    with pytest.raises(BindingError) as error:
        sources(numbers(7), sampled=("state",))
    assert str(error.value) == (
        "sources.env: expected the signals that observed regions sample, ['state'], "
        "got ['image', 'state']"
    )
    with pytest.raises(SignalError) as error:
        vector_reader(vector(7), "state", numbers(7), None)
    assert str(error.value) == (
        "key 'state': in the observation there are no keys but a Box of (7,) float64, "
        "got 'state'; \".\" is the whole observation"
    )


def test_a_rotation_that_is_none_is_refused_by_signal():
    quaternion = {"key": "state", "take": "3:7", "convention": "wxyz"}
    pose = {"type": "pose", "position": {"key": "state", "take": ":3"}, "rotation": quaternion}
    grip = {"type": "numbers", "key": "state", "take": [6]}
    reading = sources(state={"type": "vector", "parts": [pose, grip]})
    observation = {"image": np.zeros((256, 256, 3), np.uint8), "state": np.zeros(7)}
    with pytest.raises(SignalError, match=r"sources\.env\.state: quaternion: expected a finite"):
        reading.read(Moment(None, observation, {}))
