"""What the control loop and the node say to each other: decisions, motions, reasons to hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from canvas_robot.kinematics.limiter import SetPoint
from canvas_robot.kinematics.rule import Command
from canvas_robot.signals import ActionChunk

# Names of the two kinds of messages on ~/status: one a tick or hold, one a command.
DECISION_STATUS, COMMAND_STATUS = "policy: decision", "policy: command"


class HoldReason(StrEnum):
    """Why the arm is held."""

    WAITING_FOR_INPUT = "waiting_for_input"
    NO_INSTRUCTION = "no_instruction"
    BAD_INPUT = "bad_input"
    STALE_INPUT = "stale_input"
    CLOCK_STOPPED = "clock_stopped"
    CLOCK_JUMPED = "clock_jumped"
    PARTED = "target_and_measured_pose_parted"
    OUTSIDE_WORKSPACE = "outside_workspace"
    MODEL_ERROR = "model_error"
    BAD_ACTION = "bad_action"
    OVERRUN = "decision_too_late"
    TIMEOUT = "decision_timeout"
    UNREACHABLE = "unreachable"
    EFFORT = "effort_above_limit"
    HOME = "home"
    PARK = "park"
    TELEOPERATED = "teleoperated"
    STOPPED = "stopped"
    ESTOP = "estop"
    DEADMAN = "deadman_released"
    SECOND_PUBLISHER = "second_publisher"
    DRIVER = "driver_not_ready"
    INTERRUPTED = "interrupted"
    INTERNAL_ERROR = "internal_error"
    DEACTIVATED = "deactivated"


class Reaction(StrEnum):
    """What is done about a reason to hold, where the arm moves.

    HOLD: one command at the measured pose, and no speed. SLOW_STOP: the arm brakes along its
    present motion within the limits of acceleration, then HOLD. ZERO_TWIST: no speed is commanded,
    and no pose; so it is with each of them where the measured pose is not known or outside.
    DEACTIVATE: HOLD, and the node deactivates itself.
    """

    HOLD = "hold"
    SLOW_STOP = "slow_stop"
    ZERO_TWIST = "zero_twist"
    DEACTIVATE = "deactivate"


class Instant(NamedTuple):
    """One moment on the robot's clock and on the steady clock, nanoseconds."""

    ros_ns: int
    steady_ns: int


@dataclass(frozen=True, eq=False)
class Decision:
    """What one control tick came to.

    index: of the control grid, counted from activation; stamp_ns: nominal time of the tick.
    tick: counted from the last reset, -1 in a hold.
    command: the target of this tick; of a hold, the measured pose, to be published once; None where
        there is nothing to publish.
    halts: there is a motion to end: where no command says where to stay, at least no speed stands.
    reaction: what is done about the reason. refusal: why an instruction was refused in this tick.
    reason, detail: why the arm is held; None and "" while active.
    instruction: that was followed; "" in a hold.
    stamps_ns: of the newest sample used, by region.
    arrivals_ns: when that sample arrived, on the robot's clock.
    timings_ms: milliseconds by stage.
    """

    index: int
    stamp_ns: int
    tick: int = -1
    command: Command | None = None
    halts: bool = False
    reason: HoldReason | None = None
    detail: str = ""
    reaction: Reaction | None = None
    refusal: str = ""
    instruction: str = ""
    chunk: ActionChunk | None = None
    stamps_ns: dict[str, int] = field(default_factory=dict)
    arrivals_ns: dict[str, int] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Motion:
    """What to publish between decisions, now.

    set_point: where the end effector is to be one command period from now; its speed leads there
        from where it is measured, too.
    gripper: 0 closed, 1 open. decision: its index; image_stamp_ns: of the picture that it saw, 0
    where it saw none; computed_ns: when it was made, on the robot's clock.
    """

    set_point: SetPoint
    gripper: float
    decision: int
    image_stamp_ns: int
    computed_ns: int


@dataclass(frozen=True)
class InputState:
    """How one signal comes in.

    samples: taken since the node was configured; refused: messages and samples that were not.
    superseded: of the samples, those that no decision saw: a newer one came first, or the arm was
    held; the newest, which may still be seen, is none of them. skipped: messages that were not
    taken at all, as a newer one had come or they were lost on the way, by their numbers.
    age_s: of the newest, infinite where there is none. fault: the last refusal since the last good
    sample, "" where there was none.
    """

    samples: int
    refused: int
    superseded: int
    skipped: int
    age_s: float
    fault: str


@dataclass(frozen=True)
class InstructionState:
    """How instructions come in.

    refused: since the node was configured. fault: why the last one was; "" once one was taken.
    """

    refused: int
    fault: str


@dataclass(frozen=True)
class InstructionTurn:
    """Numbers of instructions, in the order in which they were asked for.

    taken: of the last that was taken over, 0 before the first; refused: of the last that the model
    refused.
    """

    taken: int
    refused: int
