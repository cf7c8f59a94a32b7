"""ControlLoop: at each control tick a decision, or a reason to hold; between ticks, set-points.

Plain Python: no ROS, no clock of its own. On doubt it holds, as `reactions` says of the reason: one
command at the measured pose, then silence until every input is good again. `Moving` carries that
out; the lock that guards it, inputs and instructions is here.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from canvas_robot.policy.chunk_execution import ChunkExecution, First
from canvas_robot.policy.model_process import ModelError, ModelRefusedError
from canvas_robot.policy.protocol import Policy
from canvas_robot.ros.course import course_of
from canvas_robot.ros.decisions import (
    Decision,
    HoldReason,
    InputState,
    Instant,
    InstructionState,
    InstructionTurn,
    Motion,
)
from canvas_robot.ros.following import Following
from canvas_robot.ros.instructions import Instructions
from canvas_robot.ros.intake import Intake
from canvas_robot.ros.measured import Measured
from canvas_robot.ros.moving import Moving
from canvas_robot.ros.priority import WAITING_S, switching_after
from canvas_robot.signals import ActionChunk, NotReadyError, Observation
from canvas_robot.signals.pose import Pose


def _told(error: Exception) -> str:
    """The model's process has told the kind of its errors already."""
    told = isinstance(error, ModelError | ModelRefusedError)
    return str(error) if told else f"{type(error).__name__}: {error}"


def check_timeout(
    execution: ChunkExecution, control_rate_hz: float, decision_timeout_s: float
) -> None:
    """Raises ValueError where the timeout ends a chunk before its rows are carried out."""
    alone_s = execution.unattended / control_rate_hz
    if alone_s > decision_timeout_s:
        raise ValueError(
            f"decision_timeout: expected at least {alone_s:g} s, as an execution of "
            f"{execution.unattended} steps decides nothing for so long, got "
            f"{decision_timeout_s:g} s; raise it, or lower execute_steps"
        )


class ControlLoop:
    """Samples in from any thread, `tick` from one thread, `motion` from any.

    Args:
        policy: decides; its binding declares signals, limits and ages.
        now: the present moment.
        warn: receives one line for each thing that goes wrong.
        decision_timeout_s: how long a decision is followed, from the stamp of the picture that it
            saw, if no other comes; a picture that the schema refreshes less often than every tick
            may be older by as much.
        command_rate_hz: how often `motion` is asked for.
        unsafe: follow without limits of motion where the binding declares none.
        execution: which rows of the action chunks are carried out when.
    Raises:
        BindingError: the binding declares no limits of motion, or reactions that cannot be.
        ValueError: decision_timeout_s ends a chunk before its rows are carried out.
    """

    def __init__(
        self,
        policy: Policy,
        now: Callable[[], Instant],
        warn: Callable[[str], None],
        decision_timeout_s: float = 0.4,
        command_rate_hz: float = 50.0,
        unsafe: bool = False,
        execution: ChunkExecution | None = None,
    ) -> None:
        self._policy, self._now, self._warn = policy, now, warn
        self._binding = policy.binding
        future = policy.binding.future_regions(policy.schema)
        self._cameras = {
            region: policy.binding.regions[region].signal
            for region in policy.binding.regions_by_codec("visual")
            if region not in future
        }
        self._lock = threading.Lock()
        self._intake = Intake(policy.schema, policy.binding, warn)
        self._measured = Measured(policy.binding, self._intake)
        self._instructions = Instructions()
        self._refusal = ""  # of this tick
        self._model_is_fresh = False  # it was reset, and has decided nothing since
        self._follow = Following(policy.binding, execution or First(), command_rate_hz, unsafe)
        self._moving = Moving(policy.binding.robot, self._follow, self._measured, self._intake, now)
        self._tick_ns = policy.binding.tick_ns
        self._timeout_ns = round(decision_timeout_s * 1e9)
        check_timeout(self._follow.execution, self._binding.control_rate_hz, decision_timeout_s)
        self._first_index = 0

    # ---------------------------------------------------------------- inputs, any thread

    def sample(self, signal: str, stamp_ns: int, value: np.ndarray, waited_ns: int = 0) -> bool:
        """Takes one sample; a bad one is refused, reported once, and holds the arm next tick.

        waited_ns: how long ago it came. Whether it is a new one that was taken.
        """
        now = self._now()
        with self._lock:
            return self._intake.take(signal, stamp_ns, value, now, waited_ns)

    def fault(self, signal: str, detail: str) -> None:
        """Notes that a message of a signal could not be read; the arm is held at the next tick."""
        with self._lock:
            self._intake.fault(signal, detail)

    def silent(self, signal: str, event: str, detail: str) -> None:
        """Notes that a topic of a signal says less than was asked of it; the arm is held at the
        next tick, and until `heard` of the same event.
        """
        with self._lock:
            self._intake.silent(signal, event, detail)

    def heard(self, event: str) -> None:
        """What `silent` noted is over."""
        with self._lock:
            self._intake.heard(event)

    def skipped(self, signal: str, messages: int) -> None:
        """Notes messages of a signal that were published and not taken."""
        with self._lock:
            self._intake.skipped(signal, messages)

    def unheard(self, signal: str, detail: str) -> None:
        """Notes that a publisher of a signal does not reach us. It holds nothing: others may."""
        with self._lock:
            self._intake.unheard(signal, detail)

    def inputs(self) -> dict[str, InputState]:
        """How each signal comes in."""
        now = self._now()
        with self._lock:
            return self._intake.states(now)

    def pictures(self) -> dict[str, np.ndarray]:
        """The newest picture of each region that a camera fills, (H, W, 3) uint8 RGB.

        Regions without a picture yet are left out.
        """
        with self._lock:
            return {
                region: self._intake.newest(signal)
                for region, signal in self._cameras.items()
                if self._intake.has_come(signal)
            }

    def instruct(self, instruction: str) -> int:
        """Asks for another instruction; from the next tick on. A blank one holds.

        Returns the number by which `turn` speaks of it.
        """
        with self._lock:
            return self._instructions.ask(instruction)

    @property
    def turn(self) -> InstructionTurn:
        """Whose instruction it is, of those that were asked for."""
        with self._lock:
            return self._instructions.turn

    def refused(self, why: str) -> None:
        """Notes that an instruction was refused before it came here; the next tick says so."""
        with self._lock:
            self._refusal = why

    def reset(self) -> None:
        """Starts over at the next tick: no history, target from the measured pose.

        What is being followed ends; `hold` first stops the arm where it is.
        """
        with self._lock:
            self._moving.reset()
            self._intake.clear()
            self._measured.forget()

    def begin(self, instruction: str) -> None:
        """Starts over under an instruction, or under none where it is refused."""
        self.reset()
        with self._lock:
            self._instructions.followed = None
            self._instructions.ask(instruction)

    def block(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision | None:
        """Stops the motion until `unblock`: the hold, or None where this reason stood already."""
        with self._lock:
            return self._moving.block(index, stamp_ns, reason, detail)

    def unblock(self, index: int, stamp_ns: int, reason: HoldReason) -> Decision | None:
        """That reason no longer stands; the next good tick starts afresh.

        The hold that ends the motion, where the arm was led for that reason.
        """
        with self._lock:
            return self._moving.unblock(index, stamp_ns, reason)

    def take_over(self, other: ControlLoop) -> None:
        """What stops the motion of a loop that this one takes the place of stops this one too.

        And the gripper stays as that one left it.
        """
        with other._lock:
            blocks, gripper = other._moving.blocks.copy(), other._follow.gripper
        with self._lock:
            self._follow.gripper = gripper
            self._moving.blocks.take_over(blocks)

    @property
    def ended(self) -> str:
        """Why the node is to deactivate itself; until `rearm` the arm is held. "": it is not."""
        with self._lock:
            return ": ".join(self._moving.blocks.ended or ())

    @property
    def blocked(self) -> str:
        """What stops the motion until it is let go, and why; "" where nothing does."""
        with self._lock:
            return ": ".join(self._moving.standing or ())

    def rearm(self) -> None:
        """Somebody activates: what led to a deactivation stands no more."""
        with self._lock:
            self._moving.blocks.ended = None

    def go_to(self, reason: HoldReason, coordinates: tuple[float, ...]) -> Decision:
        """Leads the arm to a pose that the binding declares; the hold of the policy meanwhile.

        Raises GuideError where the arm must not be moved now.
        """
        now = self._now()
        with self._lock:
            return self._moving.go_to(now, reason, coordinates)

    def teleoperate(self, speed: np.ndarray) -> Decision | None:
        """Somebody's hand: speeds (6,), m/s and rad/s about the base's axes, until others come.

        The hold of the policy, where this is the first. Raises GuideError where the arm must not be
        moved now, ValueError for speeds that are not finite.
        """
        now = self._now()
        with self._lock:
            return self._moving.teleoperate(now, speed)

    def teleoperate_gripper(self, share: float) -> None:
        """0 closed to 1 open, while somebody's hand leads the arm."""
        with self._lock:
            self._moving.teleoperate_gripper(share)

    @property
    def instruction(self) -> str:
        """The one that is asked for or followed; empty where there is none."""
        with self._lock:
            return self._instructions.newest

    @property
    def instructions(self) -> InstructionState:
        """Which of them were refused."""
        with self._lock:
            return self._instructions.state

    @property
    def steps(self) -> int:
        """Actions begun since the last hold."""
        with self._lock:
            return self._follow.execution.begun

    def motion(self) -> Motion | Decision | None:
        """What to publish now, at the command rate: a set-point, the hold that ends the motion, or
        nothing while the arm is held.
        """
        now = self._now()
        with self._lock:
            return self._moving.motion(now)

    # ---------------------------------------------------------------- the control thread

    def foreseen(self, index: int, stamp_ns: int) -> Observation | None:
        """What a control tick to come would decide on if nothing else came; None where on nothing.

        It changes nothing that is decided; the tick has the less to do.
        """
        with self._lock:
            if self._follow.target is None or not self._follow.wants_decision(
                self._now().steady_ns
            ):
                return None
            try:
                if self._measured.is_outside:
                    return None
                return self._intake.foreseen(index - self._first_index, stamp_ns)
            except NotReadyError:
                return None

    def make_ready(self) -> None:
        """Lets the model start over before a control tick to come, where that will start afresh.

        It changes nothing that is decided: a fault comes again at the tick, which then holds.
        """
        with self._lock:
            instruction = self._instructions.followed
            if self._model_is_fresh or self._follow.target is not None or instruction is None:
                return
        if self.present() is None:
            return
        with suppress(Exception):
            self._policy.reset(instruction)
            self._model_is_fresh = True

    def present(self) -> tuple[Pose, Instant] | None:
        """The measured pose and the moment.

        None where the policy is stopped, an input silent or stale, or the arm outside.
        """
        with self._lock:
            now = self._now()
            if self._moving.standing or self._intake.silence or self._intake.stale(now):
                return None
            return None if self._measured.is_outside else (self._measured.pose, now)

    def tick(self, index: int, stamp_ns: int) -> Decision:
        """Decides for control tick `index` of the grid at `stamp_ns`."""
        decision = self._decide(index, stamp_ns)
        with self._lock:
            refusal, self._refusal = self._refusal, ""
        return dataclasses.replace(decision, refusal=refusal) if refusal else decision

    def _decide(self, index: int, stamp_ns: int) -> Decision:
        started = time.perf_counter()
        held = self._apply_pending(index, stamp_ns)
        if held is not None:
            return held
        with self._lock:
            now = self._now()
            held = self._input_hold(index, stamp_ns, now) or self._moving.hindered(index, stamp_ns)
            if held is not None:
                return held
            if not self._follow.wants_decision(now.steady_ns):
                return Decision(index, stamp_ns, tick=index - self._first_index)
            afresh, instruction = self._follow.target is None, self._instructions.followed
            try:
                observation = self._observe(index, stamp_ns)
            except NotReadyError as error:
                return self._hold(index, stamp_ns, HoldReason.WAITING_FOR_INPUT, str(error))
            if skewed := self._intake.skewed(observation):
                return self._hold(index, stamp_ns, HoldReason.STALE_INPUT, skewed)
            generation = self._moving.generation
            begun = self._follow.begun(now.steady_ns)
            going_on = self._follow.execution.going_on(begun)
        assembled = time.perf_counter()
        fresh, self._model_is_fresh = self._model_is_fresh, False
        try:
            if afresh and not fresh:
                self._policy.reset(instruction)
            with switching_after(WAITING_S):
                chunk = self._policy.act(observation, going_on)
        except Exception as error:  # whatever the model raises, the arm is held
            with self._lock:
                if generation != self._moving.generation and self._moving.is_led:
                    self._warn(f"the model failed while the arm was led: {_told(error)}")
                    return self._interrupted(index, stamp_ns)
                return self._hold(index, stamp_ns, HoldReason.MODEL_ERROR, _told(error))
        done = time.perf_counter()
        timings_ms = {
            "assembly": (assembled - started) * 1e3,
            "model": (done - assembled) * 1e3,
        }
        with self._lock:
            if generation != self._moving.generation:
                return self._interrupted(index, stamp_ns)
            decision = self._taken(index, stamp_ns, chunk, begun, timings_ms)
        decision.timings_ms["follow"] = (time.perf_counter() - done) * 1e3
        return decision

    def work(self) -> None:
        """Between ticks, once the decision is out: the model's work that no tick waits for."""
        self._policy.work()

    def hold(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision:
        """Stops the motion for a reason that only the caller can see.

        The next good tick starts afresh.
        """
        with self._lock:
            return self._hold(index, stamp_ns, reason, detail)

    def _apply_pending(self, index: int, stamp_ns: int) -> Decision | None:
        """Takes over an instruction that was asked for; the hold where the model cannot.

        The model reads it without the lock: a text encoder may take long.
        """
        with self._lock:
            if self._moving.is_led:  # which no fault of the model's may end
                return None
            asked = self._instructions.read()
            if asked is None:
                return None
            if not asked.text.strip():
                self._instructions.take(asked)
                self._moving.disengage()
                return None
        try:
            self._policy.reset(asked.text)
        except ValueError as error:
            followed = self._instructions.followed
            kept = "none" if followed is None else repr(followed)
            self._refusal = f"instruction refused, staying with {kept}: {error}"
            self._warn(self._refusal)
            with self._lock:
                self._instructions.refuse(asked, self._refusal)
            return None
        except Exception as error:
            self._model_is_fresh = False
            with self._lock:
                self._instructions.put_back(asked)
                return self._hold(index, stamp_ns, HoldReason.MODEL_ERROR, _told(error))
        self._model_is_fresh = True
        with self._lock:
            self._instructions.take(asked)
            self._moving.disengage()
        return None

    # ---------------------------------------------------------------- all below with the lock held

    def _taken(
        self,
        index: int,
        stamp_ns: int,
        chunk: ActionChunk,
        begun: int,
        timings_ms: dict[str, float],
    ) -> Decision:
        """What a chunk that has just been decided leads to: it is followed, or the arm is held."""
        if silence := self._intake.silence:
            return self._hold(index, stamp_ns, HoldReason.STALE_INPUT, silence)
        now = self._now()
        late = self._intake.stale(now)
        if not late:
            course = course_of(
                index, chunk, now, self._cameras, self._tick_ns, self._intake, self._timeout_ns
            )
            late = course.end if now.steady_ns > course.until_ns else ""
        if late:
            detail = f"after {timings_ms['model'] / 1e3:.3f} s of deciding: {late}"
            return self._hold(index, stamp_ns, HoldReason.OVERRUN, detail)
        try:
            command = self._follow.take(chunk, begun, course, self._measured.pose, now.steady_ns)
        except ValueError as error:
            return self._hold(index, stamp_ns, HoldReason.BAD_ACTION, str(error))
        stamps = chunk.stamps_ns
        return Decision(
            index,
            stamp_ns,
            tick=chunk.tick,
            command=command,
            instruction=self._instructions.followed or "",
            chunk=chunk,
            stamps_ns=stamps,
            arrivals_ns={
                region: self._intake.arrival_ns(region, stamp) for region, stamp in stamps.items()
            },
            timings_ms={**timings_ms, **chunk.timings_ms},
        )

    def _interrupted(self, index: int, stamp_ns: int) -> Decision:
        """What a decision comes to where the arm was held, or led, while it was made."""
        if stands := self._moving.standing:
            return self._hold(index, stamp_ns, *stands)
        reason, detail = HoldReason.INTERRUPTED, "held or reset while deciding"
        return self._moving.told(index, stamp_ns, reason, detail)

    def _input_hold(self, index: int, stamp_ns: int, now: Instant) -> Decision | None:
        if stands := self._moving.standing:
            return self._hold(index, stamp_ns, *stands)
        if trouble := self._intake.trouble(now):
            return self._hold(index, stamp_ns, *trouble)
        if self._instructions.followed is None:
            return self._hold(
                index,
                stamp_ns,
                HoldReason.NO_INSTRUCTION,
                "publish one on ~/instruction or set the parameter",
            )
        return None

    def _observe(self, index: int, stamp_ns: int) -> Observation:
        if self._follow.target is None:
            self._intake.begin(stamp_ns)
            self._first_index = index
        observation = self._intake.observe(index - self._first_index, stamp_ns)
        self._follow.engage(self._measured.pose)
        self._follow.keep_gripper(self._measured.gripper)
        return observation

    def _hold(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision:
        return self._moving.hold(index, stamp_ns, reason, detail)
