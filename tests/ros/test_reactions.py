"""Laws of reactions: every reason has one, a binding may say another, what cannot be is told."""

import re
from pathlib import Path

import msgspec
import pytest

from canvas_robot.resources import config_path
from canvas_robot.ros.decisions import HoldReason, Reaction
from canvas_robot.ros.reactions import DEFAULTS, reactions_of
from canvas_robot.signals import BindingError, load_binding

PAGE = (Path(__file__).parents[2] / "docs" / "robot.md").read_text()
ROBOT = load_binding(config_path("bindings", "widowx.yaml")).robot


def robot(**changes):
    return msgspec.structs.replace(ROBOT, **changes)


def test_every_reason_has_a_reaction_and_none_of_them_moves_the_arm_on():
    assert set(DEFAULTS) == set(HoldReason)
    assert Reaction.SLOW_STOP not in DEFAULTS.values()
    assert reactions_of(ROBOT) == DEFAULTS


def test_the_page_says_the_default_of_every_reason():
    rows = PAGE.split("| reason | default |")[1].split("\n\n")[0].splitlines()[2:]
    told = {}
    for row in rows:
        _, reasons, default, *_ = row.split("|")
        for reason in re.findall(r"`(\w+)`", reasons):
            told[reason] = re.search(r"`(\w+)`", default)[1]
    assert told == {str(reason): str(reaction) for reason, reaction in DEFAULTS.items()}


def test_a_binding_says_what_is_done_about_a_reason_and_leaves_the_others():
    said = reactions_of(robot(reactions={"stale_input": "slow_stop", "estop": "deactivate"}))
    assert said[HoldReason.STALE_INPUT] is Reaction.SLOW_STOP
    assert said[HoldReason.ESTOP] is Reaction.DEACTIVATE
    others = set(HoldReason) - {HoldReason.STALE_INPUT, HoldReason.ESTOP}
    assert all(said[reason] is DEFAULTS[reason] for reason in others)


@pytest.mark.parametrize("name", ["stale", "home", "teleoperated", "interrupted", "deactivated"])
def test_what_is_no_reason_or_goes_on_by_itself_is_refused_with_those_that_there_are(name):
    with pytest.raises(BindingError, match=f"expected reasons of .*stale_input.*; got '{name}'"):
        reactions_of(robot(reactions={name: "hold"}))


@pytest.mark.parametrize(
    "name, reaction, why",
    [
        ("estop", "slow_stop", "an emergency stop stops at once"),
        ("waiting_for_input", "slow_stop", "the measured pose is not known then"),
        ("clock_jumped", "slow_stop", "the measured pose is not known then"),
        ("target_and_measured_pose_parted", "slow_stop", "would be pressed on"),
        ("internal_error", "slow_stop", "is what failed; leave it out, for deactivate"),
        ("no_instruction", "deactivate", "an activation may begin with it"),
    ],
)
def test_a_reaction_that_is_none_to_a_reason_is_refused_with_why(name, reaction, why):
    with pytest.raises(BindingError, match=rf"robot.reactions.{name}: {reaction} .*{why}"):
        reactions_of(robot(reactions={name: reaction}))


@pytest.mark.parametrize("missing", ["speed_limits", "acceleration_limits"])
def test_a_slow_stop_needs_limits_to_brake_by(missing):
    with pytest.raises(BindingError, match="slow_stop needs speed_limits and acceleration_limits"):
        reactions_of(robot(reactions={"stopped": "slow_stop"}, **{missing: None}))


def test_a_slow_stop_that_would_take_long_is_refused():
    slow = tuple(speed / 3.0 for speed in ROBOT.speed_limits)
    with pytest.raises(BindingError, match=r"a slow_stop of at most 1 s, .*got 3.00 s"):
        reactions_of(robot(reactions={"stopped": "slow_stop"}, acceleration_limits=slow))
