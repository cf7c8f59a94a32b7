"""What the policy node says about itself: messages of ~/status and /diagnostics, made of values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from canvas_robot.ros.decisions import (
    COMMAND_STATUS,
    DECISION_STATUS,
    Decision,
    InputState,
    InstructionState,
    Motion,
)
from canvas_robot.ros.messages import values_to_msg
from canvas_robot.signals import GoingOn


@dataclass(frozen=True)
class Identity:
    """What does not change while the node is configured.

    node: its name, with its namespace, such as left/policy.
    camera: the region whose picture latency is measured from, None where none is seen.
    """

    node: str
    arm: str
    ee_frame: str
    control_rate_hz: float
    trained: bool
    threads: int
    camera: str | None


def decision_status(
    identity: Identity, decision: Decision, command_ns: int, publish_ms: float, missed_ticks: int
) -> DiagnosticStatus:
    """A tick or hold. command_ns: stamp of the command that went out with it, 0 where none did."""
    active = decision.reason is None
    values = {
        "index": decision.index,
        "tick": decision.tick,
        "state": "active" if active else "hold",
        "reason": "" if active else str(decision.reason),
        "reaction": "" if active else str(decision.reaction),
        "instruction": decision.instruction,
        "refusal": decision.refusal,
        "stamp_ns": decision.stamp_ns,
        "command_stamp_ns": command_ns,
        "trained": identity.trained,
        "threads": identity.threads,
        "ee_frame": identity.ee_frame,
        "control_rate_hz": identity.control_rate_hz,
        "publish_ms": publish_ms,
        "missed_ticks": missed_ticks,
    }
    values |= {f"{stage}_ms": ms for stage, ms in decision.timings_ms.items()}
    values |= {f"stamp_ns.{region}": stamp for region, stamp in decision.stamps_ns.items()}
    values |= {f"arrival_ns.{region}": stamp for region, stamp in decision.arrivals_ns.items()}
    if identity.camera in decision.stamps_ns:
        values["image_stamp_ns"] = decision.stamps_ns[identity.camera]
        values["image_arrival_ns"] = decision.arrivals_ns[identity.camera]
    if decision.command is not None:
        values["target"] = decision.command.target.position.tolist()
        values["gripper"] = decision.command.gripper
    if decision.chunk is not None:
        values |= {f"age_ticks.{r}": age for r, age in decision.chunk.ages.items()}
        values["action_chunk"] = np.asarray(decision.chunk.values, np.float64).tolist()
        values |= _going_on(decision.chunk.continues)
    level = DiagnosticStatus.OK if active else DiagnosticStatus.WARN
    return _status(identity, DECISION_STATUS, level, decision.detail, values)


def _going_on(continues: GoingOn | None) -> dict[str, object]:
    """What a decision was drawn to go on with, if it was; without it, it cannot be made again."""
    if continues is None:
        return {}
    rows = np.asarray(continues.rows, np.float64).tolist()
    return {"going_on": rows, "going_on_frozen": continues.frozen}


def going_on_from(values: dict[str, object]) -> GoingOn | None:
    """What a status says that its decision was drawn to go on with: the inverse of `_going_on`."""
    if "going_on" not in values:
        return None
    return GoingOn(np.float32(values["going_on"]), int(values["going_on_frozen"]))


def command_status(
    identity: Identity, motion: Motion, command_ns: int, late_ms: float | None
) -> DiagnosticStatus:
    """A command: whose it is, and how old what it rests on.

    late_ms: how late the command clock was; None for one that went out with its decision.
    """
    values = {
        "decision": motion.decision,
        "state": "active",
        "reason": "",
        "command_stamp_ns": command_ns,
        "image_stamp_ns": motion.image_stamp_ns,
        "computed_ns": motion.computed_ns,
        "late_ms": late_ms,
    }
    if motion.image_stamp_ns:
        values["image_age_ms"] = (command_ns - motion.image_stamp_ns) / 1e6
    return _status(identity, COMMAND_STATUS, DiagnosticStatus.OK, "", values)


def loop_status(
    identity: Identity,
    decision: Decision | None,
    instructions: InstructionState,
    counts: dict[str, object],
    rate_hz: float,
    late: int,
) -> DiagnosticStatus:
    """How the control loop goes, for /diagnostics. decision: the last one.

    rate_hz: of the decisions that were followed since the last time; late: ticks that were missed
    meanwhile, where none should be.
    """
    if decision is None:
        level, message = DiagnosticStatus.WARN, "waiting for the first tick"
    elif decision.reason is not None:
        level, message = DiagnosticStatus.WARN, f"holding: {decision.reason}: {decision.detail}"
    elif instructions.fault:
        level, message = DiagnosticStatus.WARN, instructions.fault
    elif late:
        level, message = DiagnosticStatus.WARN, _late(identity, late)
    else:
        level, message = DiagnosticStatus.OK, "following the instruction"
    held = decision is not None and decision.reason is not None
    values = {
        "reason": str(decision.reason) if held else "",
        "reaction": str(decision.reaction) if held else "",
        "Actual frequency (Hz)": rate_hz,
        "Target frequency (Hz)": identity.control_rate_hz,
        "instructions_refused": instructions.refused,
        "refusal": instructions.fault,
        **counts,
        "trained": identity.trained,
    }
    return _status(identity, f"{identity.node}: control loop", level, message, values)


def _late(identity: Identity, ticks: int) -> str:
    return (
        f"{ticks} control ticks of {1 / identity.control_rate_hz:g} s were missed; where that goes "
        f"on, decisions take longer: use a faster device, lower control_rate, or execution: "
        f"temporal_ensemble or rtc"
    )


def input_status(
    identity: Identity, signal: str, state: InputState, rate_hz: float, max_age_s: float
) -> DiagnosticStatus:
    """One signal, for /diagnostics. rate_hz: of what was published since the last one."""
    values = {
        "Actual frequency (Hz)": rate_hz,
        "age_s": state.age_s if np.isfinite(state.age_s) else None,
        "max_age_s": max_age_s,
        "samples": state.samples,
        "drops": state.refused + state.superseded + state.skipped,
        "refused": state.refused,
        "superseded": state.superseded,
        "skipped": state.skipped,
    }
    if state.fault:
        level, message = DiagnosticStatus.ERROR, state.fault
    elif state.age_s > max_age_s:
        level, message = DiagnosticStatus.STALE, "no sample is young enough"
    else:
        level, message = DiagnosticStatus.OK, ""
    return _status(identity, f"{identity.node}: input {signal}", level, message, values)


def _status(
    identity: Identity, name: str, level: bytes, message: str, values: dict[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        hardware_id=identity.arm,
        message=message,
        values=values_to_msg(values),
    )
