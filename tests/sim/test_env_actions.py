"""Laws of environment.action: units, frames and conventions, worked out by hand, or a refusal."""

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from canvas_robot.kinematics.rule import compose, limits_of
from canvas_robot.resources import config_path
from canvas_robot.signals import BindingError, Pose, SignalError, binding_from_yaml
from canvas_robot.signals.rotation_conventions import CONVENTIONS
from canvas_robot.sim.env_actions import EnvActions

WIDOWX = yaml.safe_load(config_path("bindings", "widowx.yaml").read_text())
MOVE = {"type": "numbers", "names": ["dx", "dy", "dz"]}
TURN = {"type": "rotation", "names": ["droll", "dpitch", "dyaw"], "wanted": "rotvec"}
GRIP = {"type": "gripper", "name": "gripper", "closed": -1, "open": 1}
ALL = [MOVE, TURN, GRIP]


class Takes(gymnasium.Env):
    """An environment of which only what it takes matters."""

    def __init__(self, space: spaces.Space, **metadata) -> None:
        self.action_space, self.metadata = space, metadata


def box(size: int, high: float = 1.0) -> spaces.Box:
    return spaces.Box(-high, high, (size,), np.float32)


def actions(space: spaces.Space, **environment) -> EnvActions:
    return EnvActions(
        Takes(space), binding_from_yaml(yaml.safe_dump(WIDOWX | {"environment": environment}))
    )


def act(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_numbers_are_scaled_shifted_and_put_in_the_order_declared():
    parts = [
        GRIP,
        {"type": "constant", "values": [0.25]},
        {"type": "numbers", "names": ["dz", "dx"], "scale": [20.0, 10.0], "offset": [0.0, 0.1]},
    ]
    made = actions(box(4), action=parts, unused=["dy", "droll", "dpitch", "dyaw"])
    value = made.convert(act(0.02, 9, 0.03, 9, 9, 9, 0.75))
    np.testing.assert_allclose(value, [0.5, 0.25, 0.6, 0.3], atol=1e-6)
    assert value.dtype == np.float32


def test_a_change_is_spread_over_the_steps_of_a_tick_and_a_target_is_not():
    """5 steps of 5 cm a unit: 3 cm a tick is 0.12 a step; 0.3 rad a tick is 0.06 a step."""
    parts = [MOVE | {"scale": 20.0, "spread": True}, TURN | {"spread": True}, GRIP]
    made = actions(box(7), action=parts, step_rate_hz=25.0)
    assert made.steps_per_tick == 5
    value = made.convert(act(0.03, 0, -0.03, 0, 0, 0.3, 1))
    np.testing.assert_allclose(value, [0.12, 0, -0.12, 0, 0, 0.06, 1], atol=1e-6)


@pytest.mark.parametrize("wanted", CONVENTIONS)
@settings(max_examples=20, deadline=None)
@given(rpy=st.lists(st.floats(-0.25, 0.25), min_size=3, max_size=3))
def test_a_rotation_means_the_same_in_every_convention(wanted, rpy):
    read = {
        "rpy": lambda n: Rotation.from_euler("xyz", n),
        "moving_xyz": lambda n: Rotation.from_euler("XYZ", n),
        "rotvec": Rotation.from_rotvec,
        "wxyz": lambda n: Rotation.from_quat(np.roll(n, -1)),
        "xyzw": Rotation.from_quat,
        "matrix": lambda n: Rotation.from_matrix(n.reshape(3, 3)),
    }[wanted]
    made = actions(
        box(CONVENTIONS[wanted].size + 4), action=[MOVE, TURN | {"wanted": wanted}, GRIP]
    )
    numbers = made.convert(act(0, 0, 0, *rpy, 0))[3:-1]
    meant = Rotation.from_euler("xyz", rpy)
    assert (read(numbers.astype(float)) * meant.inv()).magnitude() < 1e-6


def test_a_rotation_about_one_axis_is_that_angle_about_it():
    made = actions(box(7), action=ALL)
    for axis in range(3):
        action = act(0, 0, 0, 0, 0, 0, 1)
        action[3 + axis] = 0.2
        np.testing.assert_allclose(made.convert(action)[:6], action[:6], atol=1e-7)


def test_the_axes_of_another_frame_turn_moves_and_rotations():
    """Seen from a world in which the arm faces backwards, forward is back and left is right."""
    axes = {"rotation": [0.0, 0.0, 0.0, 1.0], "convention": "wxyz"}
    made = actions(box(7), action=[MOVE | {"axes": axes}, TURN | {"axes": axes}, GRIP])
    value = made.convert(act(0.01, 0.02, 0.03, 0.1, 0, 0, 1))
    np.testing.assert_allclose(value, [-0.01, -0.02, 0.03, -0.1, 0, 0, 1], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.05, 0.05), min_size=6, max_size=6))
def test_a_rotvec_about_the_hands_point_is_bridges_rule(delta):
    """The target that the rule makes is the previous one, moved and turned as the numbers say."""
    binding = binding_from_yaml(yaml.safe_dump(WIDOWX | {"environment": {"action": ALL}}))
    made = EnvActions(Takes(box(7)), binding)
    previous = Pose([0.3, 0.0, 0.15], Rotation.from_euler("y", np.pi / 2).as_matrix())
    command = compose(previous, np.array([*delta, 1.0]), limits_of(binding.robot))
    numbers = made.convert(act(*delta, 1.0)).astype(float)
    turned = Rotation.from_rotvec(numbers[3:6]).as_matrix() @ previous.rotation
    np.testing.assert_allclose(command.target.position, previous.position + numbers[:3], atol=1e-6)
    np.testing.assert_allclose(command.target.rotation, turned, atol=1e-6)


@pytest.mark.parametrize(
    "grip, gripper, expected",
    [
        ({}, 0.0, -1.0),
        ({}, 0.25, -0.5),
        ({}, 1.3, 1.0),
        ({"threshold": 0.5}, 0.5, -1.0),
        ({"threshold": 0.5}, 0.51, 1.0),
        ({"closed": 1.0, "open": -1.0}, 0.0, 1.0),
        ({"closed": 0.0, "open": 0.04}, 0.5, 0.02),
    ],
)
def test_a_gripper_goes_from_closed_to_open_and_no_further(grip, gripper, expected):
    made = actions(box(7), action=[MOVE, TURN, GRIP | grip], clip=False)
    assert made.convert(act(0, 0, 0, 0, 0, 0, gripper))[-1] == pytest.approx(expected)


def test_what_goes_out_is_clipped_to_the_environments_bounds_unless_declared_otherwise():
    action = act(0.05, 0, 0, 0, 0, 0, 1)
    clipped = actions(box(7, 0.03), action=[MOVE, TURN, GRIP]).convert(action)
    assert clipped[0] == np.float32(0.03) and clipped[-1] == np.float32(0.03)
    loose = actions(box(7, 0.03), action=[MOVE, TURN, GRIP], clip=False).convert(action)
    assert loose[0] == np.float32(0.05) and loose[-1] == 1.0


def test_an_undeclared_action_goes_out_as_it_is():
    signal = WIDOWX["signals"]["action"]
    space = spaces.Box(act(*signal["low"]), act(*signal["high"]))
    made = EnvActions(Takes(space, render_fps=5), binding_from_yaml(yaml.safe_dump(WIDOWX)))
    action = act(0.9, 0, 0, 0, 0, 0, 7)
    assert made.convert(action) is action and made.steps_per_tick == 1


def test_a_declared_environment_without_parts_takes_the_signal_in_its_own_units():
    made = actions(box(7, 2.0), step_rate_hz=10.0, clip=False)
    action = act(0.9, 0, 0, 0, 0, 0, 7)
    assert made.convert(action) is action and made.steps_per_tick == 2
    assert actions(box(7, 2.0)).convert(action)[-1] == 2.0


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "action, message",
    [
        (
            act(0, 0, 0),
            "action: expected 7 numbers of signal 'action', dx, dy, dz, droll, dpitch, dyaw, "
            "gripper; got (3,) float32",
        ),
        (np.array(["0"] * 7), "gripper; got (7,) <U1"),
        (act(0, 0, np.nan, 0, 0, 0, 0), "action: expected finite numbers, got [0.0, 0.0, nan,"),
    ],
)
def test_an_action_that_is_none_is_refused(action, message):
    with pytest.raises(SignalError) as error:
        actions(box(7), action=ALL).convert(action)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "space, environment, message",
    [
        (
            box(4),
            {"action": ALL},
            "environment.action: expected 4 numbers for the environment's action space "
            "Box(-1.0, 1.0, (4,), float32), got 7: numbers 3, rotation 3, gripper 1",
        ),
        (
            box(4),
            {},
            "environment.action: expected 4 numbers for the environment's action space "
            "Box(-1.0, 1.0, (4,), float32), got 7: signal 'action' as it is; declare "
            "environment.action",
        ),
        (
            spaces.Discrete(4),
            {"action": ALL},
            "environment.action: expected an action space Box of (n,) floats, got Discrete(4)",
        ),
        (
            spaces.Box(-1, 1, (1, 7), np.float32),
            {"action": ALL},
            "environment.action: expected an action space Box of (n,) floats, got "
            "Box(-1.0, 1.0, (1, 7), float32)",
        ),
    ],
)
def test_a_declaration_that_does_not_fit_the_action_space_is_refused(space, environment, message):
    with pytest.raises(BindingError) as error:
        actions(space, **environment)
    assert str(error.value) == message


def test_an_undeclared_action_in_other_units_is_refused():
    with pytest.raises(BindingError) as error:
        EnvActions(Takes(box(7)), binding_from_yaml(yaml.safe_dump(WIDOWX)))
    assert str(error.value) == (
        "environment: the action signal 'action' would go out as it is; expected an action space "
        "of its range [-0.05, -0.05, -0.05, -0.25, -0.25, -0.25, 0.0] to "
        "[0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0], got "
        "[-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0] to [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]; "
        "declare environment.action with the environment's units"
    )


def test_an_undeclared_rate_that_differs_is_refused():
    signal = WIDOWX["signals"]["action"]
    env = Takes(spaces.Box(act(*signal["low"]), act(*signal["high"])), render_fps=30)
    with pytest.raises(BindingError) as error:
        EnvActions(env, binding_from_yaml(yaml.safe_dump(WIDOWX)))
    assert str(error.value) == (
        "environment: expected 5.0 steps a second, the binding's control_rate_hz, got "
        "metadata['render_fps'] = 30; declare environment.step_rate_hz"
    )
