"""Laws of the node's parameters: the shipped file and the page say what the node declares."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.parameter import Parameter

from canvas_robot.resources import config_path
from canvas_robot.ros.decisions import HoldReason
from canvas_robot.ros.parameters import (
    AT_START,
    ParameterError,
    Settings,
    declare_parameters,
    read_settings,
)

PAGE = (Path(__file__).parents[2] / "docs" / "robot.md").read_text()


def declared(domain_id: int) -> dict[str, tuple[object, str]]:
    """Default and description by name, of a node that has just declared them."""
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    try:
        node = rclpy.create_node("policy", context=context)
        before = set(node.get_parameters_by_prefix(""))
        declare_parameters(node)
        names = sorted(set(node.get_parameters_by_prefix("")) - before)
        found = {n: (node.get_parameter(n).value, node.describe_parameter(n)) for n in names}
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
    return found


def test_the_shipped_parameters_file_lists_all_of_them_at_their_defaults(domain_id):
    file = yaml.safe_load(config_path("ros", "policy.yaml").read_text())
    listed = file["/**/policy"]["ros__parameters"]
    defaults = {name: value for name, (value, _) in declared(domain_id).items()}
    for name in ("autostart", "autoconfigure"):  # the launch file's own arguments
        defaults.pop(name)
    assert listed == defaults


def test_every_parameter_says_what_it_means_and_stands_on_the_page(domain_id):
    for name, (_, descriptor) in declared(domain_id).items():
        assert len(descriptor.description) > 15, name
        assert descriptor.read_only == (name in AT_START), name
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        assert descriptor.description in row, name
        for allowed in (*descriptor.floating_point_range, *descriptor.integer_range):
            assert row.endswith(f"; {allowed.from_value:g} to {allowed.to_value:g} |"), name
        assert row.endswith("; read-only |") == descriptor.read_only, name


def test_every_reason_to_hold_stands_on_the_page():
    assert not [reason for reason in HoldReason if f"`{reason}`" not in PAGE]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("execution", "firts", "expected one of first, receding"),
        ("image_transport", "theora", "expected one of raw, compressed"),
        ("servo", "jog", "expected one of twist, pose, nothing"),
        ("dtype", "float8", "expected one of float32, bfloat16"),
        ("refresh", "lazy", "expected one of inline, sliced"),
        ("stand_in", "dog", "expected one of constant"),
        ("estop_topic", "e stop", "got 'e stop': topic name must not contain characters other"),
        ("deadman_topic", "dead//man", "must not contain repeated '/'"),
        ("teleop_topic", "/hand/", "must not end with a forward slash"),
        ("gripper_action", "{robot}/gripper_cmd", "unknown substitution: {robot}"),
        ("interbotix", "250s", "must not start with a number"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_loads(domain_id, name, value, words):
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    try:
        given = [Parameter(name, value=value)]
        node = rclpy.create_node("policy", context=context, parameter_overrides=given)
        declare_parameters(node)
        with pytest.raises(ParameterError, match=f"^{name}: expected") as refused:
            read_settings(node)
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("control_rate", 5, "a number with a decimal point from 0.0 to 1000.0, got 5"),
        ("control_rate", -5.0, "a number with a decimal point from 0.0 to 1000.0, got -5.0"),
        ("command_rate", math.nan, "a number with a decimal point from 10.0 to 500.0, got nan"),
        ("threads", -1, "a whole number from 0 to 1024, got -1"),
        ("execute_steps", 2.0, "a whole number from 0 to 1000, got 2.0"),
        ("dry_run", "yes", "true or false, got 'yes'"),
        ("checkpoint", 5, "text, in quotes where it reads as a number or a truth, got 5"),
    ],
)
def test_a_value_of_another_kind_or_out_of_range_says_what_is_taken(domain_id, name, value, words):
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    try:
        given = [Parameter(name, value=value)]
        node = rclpy.create_node("policy", context=context, parameter_overrides=given)
        with pytest.raises(ParameterError) as refused:
            declare_parameters(node)
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
    assert str(refused.value) == f"{name}: expected {words}"


def test_what_is_set_is_in_the_settings(domain_id):
    given = {"threads": 3, "unsafe": True, "servo": "pose", "interbotix": "/wx250s"}
    of_policy = {"device": "cuda:0", "int8": True, "stand_in": "nan", "stand_in_ms": 7.0}
    renamed = {"control_rate": 6.0, "command_rate": 60.0, "decision_timeout": 0.7}
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    try:
        overrides = [Parameter(n, value=v) for n, v in (given | of_policy | renamed).items()]
        node = rclpy.create_node("policy", context=context, parameter_overrides=overrides)
        declare_parameters(node)
        settings = read_settings(node)
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
    assert {name: getattr(settings, name) for name in given} == given
    assert {name: getattr(settings.policy, name) for name in of_policy} == of_policy
    assert settings.policy.control_rate_hz == renamed["control_rate"]
    assert settings.command_rate_hz == renamed["command_rate"]
    assert settings.decision_timeout_s == renamed["decision_timeout"]


def test_the_settings_hold_nothing_that_is_read_elsewhere_and_at_other_times():
    assert not {"instruction", "autostart", "autoconfigure"} & {f.name for f in fields(Settings)}
