"""Reactions: what is done about each reason to hold, by default and as a binding says. No ROS."""

from __future__ import annotations

from collections.abc import Mapping

from canvas_robot.ros.decisions import HoldReason, Reaction
from canvas_robot.signals.binding import BindingError, Robot

LONGEST_STOP_S = 1.0  # a slow stop from the limit of speed takes no longer

# Holding is what ends motion soonest at a place that is known to be free: that of the arm itself.
# Moving on, if only to brake, is for who knows arm and place to ask for, in the binding.
DEFAULTS: Mapping[HoldReason, Reaction] = {
    HoldReason.WAITING_FOR_INPUT: Reaction.HOLD,
    HoldReason.NO_INSTRUCTION: Reaction.HOLD,
    HoldReason.BAD_INPUT: Reaction.HOLD,
    HoldReason.STALE_INPUT: Reaction.HOLD,
    HoldReason.CLOCK_STOPPED: Reaction.HOLD,
    HoldReason.CLOCK_JUMPED: Reaction.HOLD,
    HoldReason.PARTED: Reaction.HOLD,  # what presses against an obstacle lets go
    HoldReason.OUTSIDE_WORKSPACE: Reaction.ZERO_TWIST,  # no pose out there may be commanded
    HoldReason.MODEL_ERROR: Reaction.HOLD,
    HoldReason.BAD_ACTION: Reaction.HOLD,
    HoldReason.OVERRUN: Reaction.HOLD,
    HoldReason.TIMEOUT: Reaction.HOLD,
    HoldReason.UNREACHABLE: Reaction.HOLD,
    HoldReason.EFFORT: Reaction.HOLD,
    HoldReason.HOME: Reaction.HOLD,
    HoldReason.PARK: Reaction.HOLD,
    HoldReason.TELEOPERATED: Reaction.HOLD,
    HoldReason.STOPPED: Reaction.HOLD,
    HoldReason.ESTOP: Reaction.HOLD,
    HoldReason.DEADMAN: Reaction.HOLD,
    HoldReason.SECOND_PUBLISHER: Reaction.HOLD,
    HoldReason.DRIVER: Reaction.HOLD,
    HoldReason.INTERRUPTED: Reaction.HOLD,
    HoldReason.INTERNAL_ERROR: Reaction.DEACTIVATE,  # what would go on is what failed
    HoldReason.DEACTIVATED: Reaction.HOLD,
}

# Parts of what the node does by itself, which goes on from a hold.
_FIXED = (
    HoldReason.HOME,
    HoldReason.PARK,
    HoldReason.TELEOPERATED,
    HoldReason.INTERRUPTED,
    HoldReason.DEACTIVATED,
)
_UNKNOWN = "the measured pose is not known then"
_REFUSED: Mapping[Reaction, Mapping[HoldReason, str]] = {
    Reaction.SLOW_STOP: {
        HoldReason.ESTOP: "an emergency stop stops at once",
        HoldReason.WAITING_FOR_INPUT: _UNKNOWN,
        HoldReason.OUTSIDE_WORKSPACE: "no pose out there may be commanded",
        HoldReason.CLOCK_STOPPED: _UNKNOWN,
        HoldReason.CLOCK_JUMPED: _UNKNOWN,
        HoldReason.PARTED: "an arm that does not follow would be pressed on",
        HoldReason.EFFORT: "an arm that strains would be pressed on",
        HoldReason.UNREACHABLE: "there may be no joints for what comes next",
        HoldReason.SECOND_PUBLISHER: "of two who command one has to be silent at once",
        HoldReason.DRIVER: "what would brake the arm may not be obeyed",
        HoldReason.INTERNAL_ERROR: "what would brake the arm is what failed",
    },
    Reaction.DEACTIVATE: {
        HoldReason.WAITING_FOR_INPUT: "every activation begins with it",
        HoldReason.NO_INSTRUCTION: "an activation may begin with it",
        HoldReason.DRIVER: "an activation may begin with it",
    },
}


def reactions_of(robot: Robot) -> dict[HoldReason, Reaction]:
    """What is done about every reason to hold: the defaults, but for what a binding says.

    Raises BindingError for a reason that is none, and for a reaction that is none to it.
    """
    known = [str(reason) for reason in HoldReason if reason not in _FIXED]
    chosen = {}
    for name, wanted in robot.reactions.items():
        if name not in known:
            raise BindingError(
                f"robot.reactions: expected reasons of {', '.join(known)}; got {name!r}"
            )
        reason, reaction = HoldReason(name), Reaction(wanted)
        if why := _REFUSED.get(reaction, {}).get(reason):
            raise BindingError(
                f"robot.reactions.{name}: {reaction} is none to it: {why}; "
                f"leave it out, for {DEFAULTS[reason]}"
            )
        if reaction is Reaction.SLOW_STOP:
            _check_slow_stop(name, robot)
        chosen[reason] = reaction
    return {**DEFAULTS, **chosen}


def _check_slow_stop(name: str, robot: Robot) -> None:
    """A slow stop needs limits to brake by, and must not take long."""
    if robot.speed_limits is None or robot.acceleration_limits is None:
        raise BindingError(
            f"robot.reactions.{name}: slow_stop needs speed_limits and acceleration_limits; "
            f"declare them in the binding"
        )
    pairs = zip(robot.speed_limits, robot.acceleration_limits, strict=True)
    longest_s = max(speed / acceleration for speed, acceleration in pairs)
    if longest_s > LONGEST_STOP_S:
        raise BindingError(
            f"robot.reactions.{name}: expected a slow_stop of at most {LONGEST_STOP_S:g} s, "
            f"speed_limits / acceleration_limits, got {longest_s:.2f} s; raise the acceleration "
            f"limits, or leave it out"
        )
