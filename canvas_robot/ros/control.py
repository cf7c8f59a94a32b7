"""ControlLoop: at each control tick a command, or a reason to hold.

Plain Python: no ROS, no clock of its own. On doubt it holds: one command at the measured pose, then
silence until every input is good again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from canvas_robot.kinematics.rule import (
    Command,
    Limits,
    OutsideError,
    compose,
    limits_of,
    parted,
)
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.signals import ActionChunk, History, NotReadyError, SignalError, StampError
from canvas_robot.signals.binding import RosJoints, RosPose
from canvas_robot.signals.pose import Pose, bridge_state_from_pose, pose_from_bridge_state

FUTURE_TOLERANCE_NS = 100_000_000  # a stamp further ahead of the clock than this is a fault


class HoldReason(StrEnum):
    """Why the arm is held."""

    WAITING_FOR_INPUT = "waiting_for_input"
    NO_INSTRUCTION = "no_instruction"
    BAD_INPUT = "bad_input"
    STALE_INPUT = "stale_input"
    CLOCK_STOPPED = "clock_stopped"
    PARTED = "target_and_measured_pose_parted"
    OUTSIDE_WORKSPACE = "outside_workspace"
    MODEL_ERROR = "model_error"
    BAD_ACTION = "bad_action"
    OVERRUN = "decision_too_late"
    INTERRUPTED = "interrupted"
    INTERNAL_ERROR = "internal_error"
    DEACTIVATED = "deactivated"


@dataclass(frozen=True)
class Instant:
    """One moment on the robot's clock and on the steady clock, nanoseconds."""

    ros_ns: int
    steady_ns: int


@dataclass(frozen=True, eq=False)
class Decision:
    """What one control tick came to.

    index: of the control grid, counted from activation; stamp_ns: nominal time of the tick.
    tick: counted from the last reset, -1 in a hold.
    command: to be published now; None where there is nothing to publish.
    reason, detail: why the arm is held; None and "" while active.
    stamps_ns: of the newest sample used, by region.
    arrivals_ns: when that sample arrived, on the robot's clock.
    timings_ms: milliseconds by stage.
    """

    index: int
    stamp_ns: int
    tick: int = -1
    command: Command | None = None
    reason: HoldReason | None = None
    detail: str = ""
    chunk: ActionChunk | None = None
    stamps_ns: dict[str, int] = field(default_factory=dict)
    arrivals_ns: dict[str, int] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Arrival:
    stamp_ns: int
    at: Instant


class ControlLoop:
    """Samples in from any thread, `tick` from one thread.

    Args:
        policy: decides; its binding declares signals, limits and ages.
        now: the present moment.
        warn: receives one line for each thing that goes wrong.
    """

    def __init__(
        self, policy: CanvasPolicy, now: Callable[[], Instant], warn: Callable[[str], None]
    ) -> None:
        self._policy, self._now, self._warn = policy, now, warn
        self._binding = policy.binding
        self._robot = policy.binding.robot
        self._limits: Limits = limits_of(self._robot)
        self._state_signal = self._find_state_signal()
        self._lock = threading.Lock()
        self._history = History(policy.schema, policy.binding)
        self._arrivals = {signal: deque[_Arrival](maxlen=256) for signal in self._history.signals}
        self._faults: dict[str, str] = {}
        self._instruction: str | None = None
        self._pending: str | None = None
        self._target: Pose | None = None  # None: the next decision starts from the measured pose
        self._gripper = 1.0  # last commanded; set before any hold can use it
        self._moving = False  # a command has been given that no hold has stopped yet
        self._first_index = 0
        self._generation = 0

    # ---------------------------------------------------------------- inputs, any thread

    def sample(self, signal: str, stamp_ns: int, value: np.ndarray) -> None:
        """Takes one sample; a bad one is refused, reported once, and holds the arm next tick."""
        now = self._now()
        with self._lock:
            if stamp_ns == self._history.newest_stamp_ns(signal):
                return  # the same sample again
            try:
                if stamp_ns > now.ros_ns + FUTURE_TOLERANCE_NS:
                    raise StampError(
                        f"signal {signal!r}: expected a stamp no later than the clock "
                        f"{now.ros_ns} ns, got {stamp_ns} ns; "
                        f"synchronise the clocks or set use_sim_time on both sides"
                    )
                self._history.push(signal, stamp_ns, value)
            except (SignalError, StampError) as error:
                self._note_fault(signal, str(error))
                return
            self._arrivals[signal].append(_Arrival(stamp_ns, now))

    def fault(self, signal: str, detail: str) -> None:
        """Notes that a message of a signal could not be read; the arm is held at the next tick."""
        with self._lock:
            self._note_fault(signal, detail)

    def instruct(self, instruction: str) -> None:
        """Asks for another instruction; from the next tick on. A blank one holds."""
        with self._lock:
            self._pending = instruction

    def reset(self) -> None:
        """Starts over at the next tick: no history, target from the measured pose."""
        with self._lock:
            self._disengage()
            self._history.clear()
            self._faults = {}
            for arrivals in self._arrivals.values():
                arrivals.clear()

    # ---------------------------------------------------------------- the control thread

    def tick(self, index: int, stamp_ns: int) -> Decision:
        """Decides for control tick `index` of the grid at `stamp_ns`."""
        started = time.perf_counter()
        with self._lock:
            self._apply_pending()
            held = self._input_hold(index, stamp_ns) or self._motion_hold(index, stamp_ns)
            if held is not None:
                return held
            try:
                observation = self._observe(index, stamp_ns)
            except NotReadyError as error:
                return self._hold(index, stamp_ns, HoldReason.WAITING_FOR_INPUT, str(error))
            generation = self._generation
        assembled = time.perf_counter()
        try:
            chunk = self._policy.act(observation)
        except Exception as error:  # whatever the model raises, the arm is held
            with self._lock:
                return self._hold(
                    index, stamp_ns, HoldReason.MODEL_ERROR, f"{type(error).__name__}: {error}"
                )
        done = time.perf_counter()
        with self._lock:
            if generation != self._generation:
                return Decision(
                    index, stamp_ns, reason=HoldReason.INTERRUPTED, detail="reset while deciding"
                )
            late = self._stale(self._now())
            if late:
                return self._hold(
                    index,
                    stamp_ns,
                    HoldReason.OVERRUN,
                    f"after {done - started:.3f} s of deciding: {late}",
                )
            try:
                command = compose(self._target, chunk.values[0], self._limits)
            except ValueError as error:
                return self._hold(index, stamp_ns, HoldReason.BAD_ACTION, str(error))
            self._target, self._gripper, self._moving = command.target, command.gripper, True
            stamps = chunk.stamps_ns
            return Decision(
                index,
                stamp_ns,
                tick=observation.tick,
                command=command,
                chunk=chunk,
                stamps_ns=stamps,
                arrivals_ns={
                    region: self._arrival_ns(region, stamp) for region, stamp in stamps.items()
                },
                timings_ms={
                    "assembly": (assembled - started) * 1e3,
                    "model": (done - assembled) * 1e3,
                },
            )

    def work(self) -> None:
        """Between ticks, once the decision is out: the model's work that no tick waits for."""
        self._policy.work()

    def hold(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision:
        """Stops the motion for a reason that only the caller can see.

        The next good tick starts afresh.
        """
        with self._lock:
            return self._hold(index, stamp_ns, reason, detail)

    # ---------------------------------------------------------------- all below with the lock held

    def _apply_pending(self) -> None:
        if self._pending is None:
            return
        wanted, self._pending = self._pending, None
        if not wanted.strip():
            self._instruction = None
            self._disengage()
            return
        try:
            self._policy.reset(wanted)
        except ValueError as error:
            kept = "none" if self._instruction is None else repr(self._instruction)
            self._warn(f"instruction refused, staying with {kept}: {error}")
            return
        self._instruction = wanted
        self._disengage()

    def _input_hold(self, index: int, stamp_ns: int) -> Decision | None:
        faults, self._faults = self._faults, {}
        if faults:
            return self._hold(index, stamp_ns, HoldReason.BAD_INPUT, "; ".join(faults.values()))
        waiting = [signal for signal, arrivals in self._arrivals.items() if not arrivals]
        if waiting:
            return self._hold(
                index,
                stamp_ns,
                HoldReason.WAITING_FOR_INPUT,
                f"no sample yet of {', '.join(map(repr, waiting))}",
            )
        stale = self._stale(self._now())
        if stale:
            return self._hold(index, stamp_ns, HoldReason.STALE_INPUT, stale)
        if self._instruction is None:
            return self._hold(
                index,
                stamp_ns,
                HoldReason.NO_INSTRUCTION,
                "publish one on ~/instruction or set the parameter",
            )
        return None

    def _motion_hold(self, index: int, stamp_ns: int) -> Decision | None:
        measured = self._measured()
        if self._outside(measured):
            return self._hold(
                index,
                stamp_ns,
                HoldReason.OUTSIDE_WORKSPACE,
                f"measured pose {np.round(bridge_state_from_pose(measured, 0.0)[:6], 3).tolist()} "
                f"(m, rad) is further outside box and orientation limits of the binding "
                f"than one step; move the arm inside",
            )
        if self._target is not None and self._robot.anchor == "target":
            if parted(self._target, measured, self._robot.part_m, self._robot.part_rad):
                apart = float(np.linalg.norm(self._target.position - measured.position))
                return self._hold(
                    index,
                    stamp_ns,
                    HoldReason.PARTED,
                    f"target and measured pose are {apart:.3f} m apart "
                    f"(limits {self._robot.part_m} m, {self._robot.part_rad} rad); "
                    f"the arm does not follow",
                )
        return None

    def _observe(self, index: int, stamp_ns: int):
        if self._target is None:
            self._policy.reset(self._instruction)
            self._history.reset(stamp_ns)
            self._first_index = index
        observation = self._history.observe(index - self._first_index, stamp_ns)
        if self._target is None or self._robot.anchor == "measured":
            self._target = self._measured()
        return observation

    def _hold(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision:
        """Disengages.

        The first hold after motion carries one command at the measured pose, if that is known.
        """
        command = None
        if self._moving:
            age = self._age_s(self._state_signal, self._now())
            measured_known = age <= self._binding.signals[self._state_signal].max_age_s
            if measured_known and not self._outside(self._measured()):
                command = compose(
                    self._measured(), np.append(np.zeros(6), self._gripper), self._limits
                )
            self._moving = False
        self._disengage()
        return Decision(index, stamp_ns, command=command, reason=reason, detail=detail)

    def _disengage(self) -> None:
        self._target = None
        self._generation += 1

    def _measured(self) -> Pose:
        return pose_from_bridge_state(self._history.newest(self._state_signal))[0]

    def _outside(self, pose: Pose) -> bool:
        """Whether bringing the pose back within the limits would take more than one step."""
        try:
            compose(pose, np.zeros(7), self._limits)
        except OutsideError:
            return True
        return False

    def _stale(self, now: Instant) -> str:
        """What is too old, in words; empty where nothing is."""
        old = []
        for signal in self._arrivals:
            age, limit = self._age_s(signal, now), self._binding.signals[signal].max_age_s
            if age > limit:
                old.append(
                    f"signal {signal!r}: newest sample is {age:.2f} s old, "
                    f"expected at most {limit} s"
                )
        return "; ".join(old)

    def _age_s(self, signal: str, now: Instant) -> float:
        """Age of the newest sample: by stamp or by arrival on the steady clock, the larger."""
        if not self._arrivals[signal]:
            return float("inf")
        newest = self._arrivals[signal][-1]
        return max(now.ros_ns - newest.stamp_ns, now.steady_ns - newest.at.steady_ns) / 1e9

    def _arrival_ns(self, region: str, stamp_ns: int) -> int:
        arrivals = self._arrivals[self._binding.regions[region].signal]
        return next((a.at.ros_ns for a in reversed(arrivals) if a.stamp_ns == stamp_ns), stamp_ns)

    def _note_fault(self, signal: str, detail: str) -> None:
        if signal not in self._faults:
            self._warn(f"input refused: {detail}")
        self._faults[signal] = detail

    def _find_state_signal(self) -> str:
        """The signal of measured end-effector poses.

        It is the one that a ROS source fills from joints or poses.
        """
        for signal, source in self._binding.sources.ros.items():
            if isinstance(source, RosJoints | RosPose):
                return signal
        raise ValueError(
            "binding: expected a sources.ros entry of type joint_states or pose; "
            "the node needs the pose"
        )
