"""Laws of a binding's `environment`: what it takes fits the action signal and the control rate."""

import pytest
import yaml

from canvas_robot.resources import config_path
from canvas_robot.signals import BindingError, binding_from_yaml, load_binding

WIDOWX = yaml.safe_load(config_path("bindings", "widowx.yaml").read_text())
MOVE = {"type": "numbers", "names": ["dx", "dy", "dz"]}
TURN = {"type": "rotation", "names": ["droll", "dpitch", "dyaw"], "wanted": "rotvec"}
GRIP = {"type": "gripper", "name": "gripper", "closed": -1, "open": 1}


def with_environment(**fields) -> str:
    return yaml.safe_dump(WIDOWX | {"environment": fields})


def test_a_binding_without_one_stays_as_it_is_written():
    widowx = load_binding(config_path("bindings", "widowx.yaml"))
    assert widowx.environment is None and "environment" not in widowx.to_yaml()


def test_the_whole_form_round_trips_through_yaml():
    axes = {"rotation": [0.0, 0.0, 1.57], "convention": "rpy"}
    binding = binding_from_yaml(
        with_environment(
            action=[
                MOVE | {"scale": [1.0, 2.0, 3.0], "offset": 0.5, "spread": True, "axes": axes},
                TURN | {"given": "rotvec", "scale": 2.0, "spread": True, "axes": axes},
                GRIP | {"threshold": 0.5},
                {"type": "constant", "values": [0.0, 1.0]},
            ],
            step_rate_hz=20.0,
            clip=False,
            success="is_success",
        )
    )
    assert binding_from_yaml(binding.to_yaml()) == binding
    assert [part.size for part in binding.environment.action] == [3, 3, 1, 2]


@pytest.mark.parametrize("rate, steps", [(None, 1), (5.0, 1), (25.0, 5), (400.0, 80)])
def test_a_control_tick_takes_whole_steps(rate, steps):
    binding = binding_from_yaml(with_environment(step_rate_hz=rate))
    assert binding.environment.steps_per_tick(binding.control_rate_hz) == steps


@pytest.mark.parametrize("rate", [2.5, 12.0, 0.0, -5.0, float("inf"), float("nan")])
def test_a_rate_that_is_no_multiple_of_the_control_rate_is_refused(rate):
    message = (
        f"environment.step_rate_hz: expected a whole multiple of control_rate_hz 5.0, got {rate}"
    )
    with pytest.raises(BindingError) as error:
        binding_from_yaml(with_environment(step_rate_hz=rate))
    assert message in str(error.value)


def test_another_control_rate_is_checked_too():
    binding = binding_from_yaml(with_environment(step_rate_hz=20.0))
    assert binding.with_control_rate(10.0).environment.steps_per_tick(10.0) == 2
    with pytest.raises(BindingError, match=r"control_rate_hz 8\.0, got 20\.0"):
        binding.with_control_rate(8.0)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"action": [MOVE, GRIP]},
            "environment.action: leaves out components ['droll', 'dpitch', 'dyaw'] of signal "
            "'action'; use them, or name them in environment.unused",
        ),
        (
            {"action": [MOVE, TURN, GRIP | {"name": "grip"}]},
            "environment.action: names components ['grip']; signal 'action' has ['dx', 'dy', 'dz', "
            "'droll', 'dpitch', 'dyaw', 'gripper']",
        ),
        (
            {"action": [MOVE, TURN, GRIP], "unused": ["dx"]},
            "environment.unused: names components ['dx'], which action uses",
        ),
        (
            {"unused": ["dx"]},
            "environment.unused: the action signal goes out whole where environment.action is "
            "left out; declare its parts",
        ),
        (
            {"action": [MOVE | {"scale": [1.0, 2.0]}]},
            "numbers ['dx', 'dy', 'dz']: scale: expected one finite number or 3, got [1.0, 2.0]",
        ),
        (
            {"action": [MOVE | {"offset": float("nan")}]},
            "numbers ['dx', 'dy', 'dz']: offset: expected one finite number or 3, got nan",
        ),
        (
            {
                "action": [
                    {
                        "type": "numbers",
                        "names": ["dx"],
                        "axes": {"rotation": [0, 0, 0], "convention": "rpy"},
                    }
                ]
            },
            "numbers ['dx']: axes: expected 3 components of a vector to turn, got 1",
        ),
        (
            {"action": [TURN | {"names": ["droll"]}]},
            "rotation ['droll']: expected 3 components for 'rpy', got 1",
        ),
        (
            {"action": [GRIP | {"open": -1}]},
            "gripper 'gripper': expected finite, different closed and open, got -1.0 and -1.0",
        ),
        (
            {"action": [GRIP | {"threshold": 1.0}]},
            "gripper 'gripper': threshold: expected 0 <= threshold < 1, got 1.0",
        ),
        (
            {"action": [{"type": "constant", "values": [float("inf")]}]},
            "constant: expected finite values, got [inf]",
        ),
        ({"action": [{"type": "constant", "values": []}]}, "Expected `array` of length >= 1"),
        ({"action": [MOVE | {"type": "torque"}]}, "Invalid value 'torque'"),
        ({"frame_skip": 5}, "Object contains unknown field `frame_skip` - at `$.environment`"),
    ],
)
def test_what_does_not_fit_the_action_signal_is_refused(fields, message):
    with pytest.raises(BindingError) as error:
        binding_from_yaml(with_environment(**fields))
    assert message in str(error.value)


def test_components_that_an_environment_has_no_use_for_are_named():
    rest = ["droll", "dpitch", "dyaw"]
    binding = binding_from_yaml(with_environment(action=[MOVE, GRIP], unused=rest))
    assert sum(part.size for part in binding.environment.action) == 4
