"""Laws of sources.env: forms round trip, fit their signals, and mistakes are refused by name."""

import msgspec
import numpy as np
import pytest
import yaml

from canvas_robot.resources import config_path
from canvas_robot.signals import BindingError, SignalError, binding_from_yaml
from canvas_robot.signals.env_sources import EnvPicture, GripperNumber, Pick

WIDOWX = yaml.safe_load(config_path("bindings", "widowx.yaml").read_text())
BASE = {"type": "fixed", "position": [0, 0, 1], "rotation": [1, 0, 0, 0], "convention": "wxyz"}


def with_env(**sources) -> str:
    """The shipped binding's YAML, with other sources in environments."""
    env = WIDOWX["sources"]["env"] | sources
    return yaml.safe_dump(WIDOWX | {"sources": WIDOWX["sources"] | {"env": env}})


def test_every_form_round_trips_through_yaml():
    binding = binding_from_yaml(
        with_env(
            image={"type": "render", "size": [480, 640], "flip": ["vertical"]},
            state={
                "type": "vector",
                "parts": [
                    {
                        "type": "pose",
                        "position": {"key": "arm.tcp", "take": "0:3"},
                        "rotation": {"key": "arm.tcp", "take": [3, 4, 5, 6], "convention": "xyzw"},
                        "base": BASE,
                        "tool": BASE,
                        "angles": "rpy",
                    },
                    {"type": "gripper", "key": "arm.width", "closed": 0.0, "open": 0.08},
                    {"type": "numbers", "key": ".", "scale": [1.0, 2.0], "offset": 0.5},
                ],
            },
            instruction={"type": "info", "key": "task.text"},
        )
    )
    assert binding.sources.env["image"] == EnvPicture(size=(480, 640), flip=("vertical",))
    assert binding_from_yaml(binding.to_yaml()) == binding


@pytest.mark.parametrize(
    "take, size, taken",
    [
        (None, 3, [0, 1, 2]),
        ("1:3", 4, [1, 2]),
        (":2", 4, [0, 1]),
        ("-2:", 4, [2, 3]),
        ((3, 0), 4, [3, 0]),
        ((-1,), 4, [3]),
    ],
)
def test_a_pick_takes_what_python_would(take, size, taken):
    assert Pick(key="a", take=take).indices(size).tolist() == taken


@pytest.mark.parametrize("take", ["2:5", "4:", "-5:", (4,), (-5,), ()])
def test_a_pick_of_what_is_not_there_is_refused(take):
    with pytest.raises(SignalError) as error:
        Pick(key="a", take=take).indices(4)
    assert str(error.value) == (
        f"key 'a': take: expected some of its 4 numbers, 0 to 3, got {take!r}"
    )


@pytest.mark.parametrize(
    "sources, message",
    [
        ({"image": {"type": "file", "key": "a"}}, "Invalid value 'file'"),
        (
            {"image": {"type": "joints", "joints": {"key": "q"}, "finger": {"key": "q"}}},
            "sources.env.image: expected for a ImageSignal an observation key or a source of type "
            "image or render, got type 'joints'",
        ),
        (
            {"state": {"type": "text", "text": "go"}},
            "sources.env.state: expected for a VectorSignal an observation key or a source of "
            "type vector or joints, got type 'text'",
        ),
        (
            {"instruction": {"type": "render", "size": [8, 8]}},
            "sources.env.instruction: expected for a TextSignal an observation key or a source of "
            "type info or attribute or text, got type 'render'",
        ),
        (
            {"state": {"type": "vector", "parts": [{"type": "numbers", "key": "a", "take": "3"}]}},
            "key 'a': take: expected a list of indices or a slice like \"3:7\", got '3'",
        ),
        (
            {
                "state": {
                    "type": "vector",
                    "parts": [{"type": "gripper", "key": "w", "closed": 0.1, "open": 0.1}],
                }
            },
            "key 'w': gripper: expected finite, different closed and open, got 0.1 and 0.1",
        ),
        (
            {"instruction": {"type": "attribute", "name": "__class__"}},
            "attribute: expected the name of a public attribute, got '__class__'",
        ),
        ({"image": {"type": "render", "size": [0, 8]}}, "Expected `int` >= 1"),
    ],
)
def test_a_source_that_gives_something_else_is_refused(sources, message):
    with pytest.raises(BindingError) as error:
        binding_from_yaml(with_env(**sources))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rotation": [1, 0, 0]}, "rotation: expected 4 finite numbers for 'wxyz', got [1.0, 0"),
        ({"rotation": [0, 0, 0, 0]}, "quaternion: expected a finite unit quaternion"),
        ({"position": [0, 0, np.inf]}, "position: expected finite metres, got [0.0, 0.0, inf]"),
        ({"convention": "euler"}, "Invalid enum value 'euler'"),
    ],
)
def test_a_fixed_pose_that_is_none_is_refused(changes, message):
    pose = {
        "type": "pose",
        "position": {"key": "p"},
        "rotation": {"key": "q", "convention": "wxyz"},
        "base": BASE | changes,
    }
    with pytest.raises(BindingError) as error:
        binding_from_yaml(with_env(state={"type": "vector", "parts": [pose]}))
    assert message in str(error.value)


def test_joints_need_the_arm_that_a_robot_names():
    joints = {"type": "joints", "joints": {"key": "q"}, "finger": {"key": "f"}}
    data = yaml.safe_load(with_env(state=joints))
    assert binding_from_yaml(yaml.safe_dump(data)).robot.arm == "wx250s"
    del data["robot"]
    with pytest.raises(BindingError) as error:
        binding_from_yaml(yaml.safe_dump(data))
    assert str(error.value) == (
        "binding: sources.env.state: joints need the arm that robot.arm names; "
        "this binding declares no robot"
    )


def test_declarations_are_values():
    one = msgspec.convert({"type": "gripper", "key": "w", "closed": 0, "open": 1}, GripperNumber)
    assert one == GripperNumber(key="w", closed=0.0, open=1.0)
    with pytest.raises(AttributeError):
        one.closed = 0.5
