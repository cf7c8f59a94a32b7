"""ControlLoop: at each control tick a decision, or a reason to hold; between ticks, set-points.

Plain Python: no ROS, no clock of its own. On doubt it holds, as `reactions` says of the reason: one
command at the measured pose, then silence until every input is good again.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from canvas_robot.kinematics.guide import GoTo, Guide, Teleoperation
from canvas_robot.kinematics.rule import (
    Command,
    parted,
)
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
    Reaction,
)
from canvas_robot.ros.following import Following
from canvas_robot.ros.intake import Intake
from canvas_robot.ros.measured import Measured
from canvas_robot.ros.reactions import reactions_of
from canvas_robot.signals import ActionChunk, NotReadyError, Observation
from canvas_robot.signals.pose import Pose, bridge_state_from_pose

# An arm that parts from its target so often, each time soon after the last, is blocked: pushing on
# from where it stands would only press harder.
PARTINGS, SOON_TICKS = 3, 15


def _told(error: Exception) -> str:
    """The model's process has told the kind of its errors already."""
    told = isinstance(error, ModelError | ModelRefusedError)
    return str(error) if told else f"{type(error).__name__}: {error}"


_THEN_START = "~/start goes on with the policy"
# Reasons to hold the policy through which the arm may be led otherwise, and what they say.
LED_THROUGH = {
    HoldReason.HOME: f"sent to the binding's home; {_THEN_START}",
    HoldReason.PARK: f"sent to the binding's park; {_THEN_START}",
    HoldReason.TELEOPERATED: "somebody leads the arm; the policy goes on when that ends",
    HoldReason.STOPPED: "",
}


class GuideError(RuntimeError):
    """The arm must not be led now; the text says why."""


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


@dataclass(frozen=True, eq=False)
class _SlowStop:
    """What brakes, whose speed it is, and why."""

    moves: Following | Guide
    gripper: float
    reason: HoldReason
    detail: str


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
        self._robot = policy.binding.robot
        self._reactions = reactions_of(self._robot)
        future = policy.binding.future_regions(policy.schema)
        self._cameras = {
            region: policy.binding.regions[region].signal
            for region in policy.binding.regions_by_codec("visual")
            if region not in future
        }
        self._lock = threading.Lock()
        self._intake = Intake(policy.schema, policy.binding, warn)
        self._measured = Measured(policy.binding, self._intake)
        self._instruction: str | None = None
        self._pending: str | None = None
        self._applied: str | None = None  # while the model reads it
        self._asked = 0  # how often an instruction was asked for
        self._turn = InstructionTurn(0, 0)
        self._refusal = ""  # of this tick
        self._instructions = InstructionState(0, "")
        self._model_is_fresh = False  # it was reset, and has decided nothing since
        self._follow = Following(policy.binding, execution or First(), command_rate_hz, unsafe)
        self._timeout_ns = round(decision_timeout_s * 1e9)
        check_timeout(self._follow.execution, self._binding.control_rate_hz, decision_timeout_s)
        self._blocks: dict[HoldReason, str] = {}
        self._guide: Guide | None = None
        self._guided_for: HoldReason | None = None
        self._slow_stop: _SlowStop | None = None
        self._ended: tuple[HoldReason, str] | None = None  # for which the node deactivates itself
        self._partings, self._parted_index = 0, -SOON_TICKS
        self._first_index = 0
        self._generation = 0

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
            self._pending = instruction
            self._asked += 1
            return self._asked

    @property
    def turn(self) -> InstructionTurn:
        """Whose instruction it is, of those that were asked for."""
        with self._lock:
            return self._turn

    def refused(self, why: str) -> None:
        """Notes that an instruction was refused before it came here; the next tick says so."""
        with self._lock:
            self._refusal = why

    def reset(self) -> None:
        """Starts over at the next tick: no history, target from the measured pose.

        What is being followed ends; `hold` first stops the arm where it is.
        """
        with self._lock:
            self._disengage()
            self._follow.course = self._slow_stop = None
            self._end_guide()
            self._intake.clear()
            self._measured.forget()

    def begin(self, instruction: str) -> None:
        """Starts over under an instruction, or under none where it is refused."""
        self.reset()
        with self._lock:
            self._instruction, self._pending = None, instruction
            self._asked += 1

    def block(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision | None:
        """Stops the motion until `unblock`: the hold, or None where this reason stood already."""
        with self._lock:
            standing = reason in self._blocks and self._guide is None
            if not standing:
                self._blocks.pop(reason, None)  # the last that came is told first
            self._blocks[reason] = detail
            return None if standing else self._hold(index, stamp_ns, reason, detail)

    def unblock(self, index: int, stamp_ns: int, reason: HoldReason) -> Decision | None:
        """That reason no longer stands; the next good tick starts afresh.

        The hold that ends the motion, where the arm was led for that reason.
        """
        with self._lock:
            held = None
            if reason == self._guided_for and self._guide is not None:
                detail = "led no further; the policy goes on from the measured pose"
                held = self._hold(index, stamp_ns, HoldReason.INTERRUPTED, detail)
            self._blocks.pop(reason, None)
            return held

    def take_over(self, other: ControlLoop) -> None:
        """What stops the motion of a loop that this one takes the place of stops this one too.

        And the gripper stays as that one left it.
        """
        with other._lock:
            blocks, ended = dict(other._blocks), other._ended
            gripper = other._follow.gripper
        with self._lock:
            self._follow.gripper = gripper
            self._blocks.update(blocks)
            self._blocks.pop(HoldReason.TELEOPERATED, None)
            self._ended = ended

    @property
    def ended(self) -> str:
        """Why the node is to deactivate itself; until `rearm` the arm is held. "": it is not."""
        with self._lock:
            return ": ".join(self._ended) if self._ended is not None else ""

    @property
    def blocked(self) -> str:
        """What stops the motion until it is let go, and why; "" where nothing does."""
        with self._lock:
            standing = self._ended or self._foremost
            return ": ".join(standing) if standing is not None else ""

    def rearm(self) -> None:
        """Somebody activates: what led to a deactivation stands no more."""
        with self._lock:
            self._ended = None

    def go_to(self, reason: HoldReason, coordinates: tuple[float, ...]) -> Decision:
        """Leads the arm to a pose that the binding declares; the hold of the policy meanwhile.

        Raises GuideError where the arm must not be moved now.
        """
        now = self._now()
        with self._lock:
            if why_not := self._not_guidable(now):
                raise GuideError(why_not)
            if reason == self._guided_for and self._guide is not None:
                return self._hold(-1, now.ros_ns, reason, LED_THROUGH[reason])  # on its way
            return self._begin_guide(
                now, reason, functools.partial(GoTo, target=np.asarray(coordinates))
            )

    def teleoperate(self, speed: np.ndarray) -> Decision | None:
        """Somebody's hand: speeds (6,), m/s and rad/s about the base's axes, until others come.

        The hold of the policy, where this is the first. Raises GuideError where the arm must not be
        moved now, ValueError for speeds that are not finite.
        """
        now, held = self._now(), None
        with self._lock:
            why_not = self._not_guidable(now)
            if not why_not and HoldReason.STOPPED in self._blocks:
                why_not = f"{HoldReason.STOPPED}: {self._blocks[HoldReason.STOPPED]}"
            if why_not:
                raise GuideError(why_not)
            if not isinstance(self._guide, Teleoperation):
                held = self._begin_guide(now, HoldReason.TELEOPERATED, Teleoperation)
            self._guide.say(speed, now.steady_ns / 1e9)
        return held

    def teleoperate_gripper(self, share: float) -> None:
        """0 closed to 1 open, while somebody's hand leads the arm."""
        with self._lock:
            if isinstance(self._guide, Teleoperation):
                self._guide.gripper = min(max(share, 0.0), 1.0)

    @property
    def instruction(self) -> str:
        """The one that is asked for or followed; empty where there is none."""
        with self._lock:
            asked = self._pending if self._pending is not None else self._applied
            return (self._instruction or "") if asked is None else asked

    @property
    def instructions(self) -> InstructionState:
        """Which of them were refused."""
        with self._lock:
            return self._instructions

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
            if self._guide is not None:
                return self._guided(now)
            if self._slow_stop is not None:
                return self._slowed(now)
            course = self._follow.course
            if course is None:
                return None
            if now.steady_ns > course.until_ns:
                return self._hold(-1, now.ros_ns, HoldReason.TIMEOUT, course.end)
            try:
                return self._follow.motion(self._measured.pose, now.steady_ns)
            except ValueError as error:
                return self._hold(-1, now.ros_ns, HoldReason.BAD_ACTION, str(error))

    # ---------------------------------------------------------------- the control thread

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
            held = self._input_hold(index, stamp_ns) or self._motion_hold(index, stamp_ns)
            if held is not None:
                return held
            if not self._follow.wants_decision(self._now().steady_ns):
                return Decision(index, stamp_ns, tick=index - self._first_index)
            afresh, instruction = self._follow.target is None, self._instruction
            try:
                observation = self._observe(index, stamp_ns)
            except NotReadyError as error:
                return self._hold(index, stamp_ns, HoldReason.WAITING_FOR_INPUT, str(error))
            if skewed := self._intake.skewed(observation):
                return self._hold(index, stamp_ns, HoldReason.STALE_INPUT, skewed)
            generation = self._generation
            begun = self._follow.begun(self._now().steady_ns)
            going_on = self._follow.execution.going_on(begun)
        assembled = time.perf_counter()
        fresh, self._model_is_fresh = self._model_is_fresh, False
        try:
            if afresh and not fresh:
                self._policy.reset(instruction)
            chunk = self._policy.act(observation, going_on)
        except Exception as error:  # whatever the model raises, the arm is held
            with self._lock:
                if generation != self._generation and self._guide is not None:
                    self._warn(f"the model failed while the arm was led: {_told(error)}")
                    return self._interrupted(index, stamp_ns)
                return self._hold(index, stamp_ns, HoldReason.MODEL_ERROR, _told(error))
        done = time.perf_counter()
        timings_ms = {
            "assembly": (assembled - started) * 1e3,
            "model": (done - assembled) * 1e3,
        }
        with self._lock:
            if generation != self._generation:
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
            if self._guide is not None:  # which no fault of the model's may end
                return None
            wanted, self._pending = self._pending, None
            if wanted is None:
                return None
            number = self._asked
            if not wanted.strip():
                self._instruction = None
                self._turn = dataclasses.replace(self._turn, taken=number)
                self._instructions = dataclasses.replace(self._instructions, fault="")
                self._disengage()
                return None
            self._applied = wanted
        try:
            self._policy.reset(wanted)
        except ValueError as error:
            kept = "none" if self._instruction is None else repr(self._instruction)
            self._refusal = f"instruction refused, staying with {kept}: {error}"
            self._warn(self._refusal)
            with self._lock:
                self._applied = None
                self._turn = dataclasses.replace(self._turn, refused=number)
                self._instructions = InstructionState(self._instructions.refused + 1, self._refusal)
            return None
        except Exception as error:
            self._model_is_fresh = False
            with self._lock:
                self._applied = None
                self._pending = wanted if self._pending is None else self._pending
                return self._hold(index, stamp_ns, HoldReason.MODEL_ERROR, _told(error))
        self._model_is_fresh = True
        with self._lock:
            self._instruction, self._applied = wanted, None
            self._turn = dataclasses.replace(self._turn, taken=number)
            self._instructions = dataclasses.replace(self._instructions, fault="")
            self._disengage()
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
            course = course_of(index, chunk, now, self._binding, self._intake, self._timeout_ns)
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
            instruction=self._instruction or "",
            chunk=chunk,
            stamps_ns=stamps,
            arrivals_ns={
                region: self._intake.arrival_ns(region, stamp) for region, stamp in stamps.items()
            },
            timings_ms={**timings_ms, **chunk.timings_ms},
        )

    def _interrupted(self, index: int, stamp_ns: int) -> Decision:
        """What a decision comes to where the arm was held, or led, while it was made."""
        if stands := self._ended or self._foremost:
            return self._hold(index, stamp_ns, *stands)
        reason = HoldReason.INTERRUPTED
        return Decision(
            index,
            stamp_ns,
            reason=reason,
            detail="held or reset while deciding",
            reaction=self._reactions[reason],
        )

    def _input_hold(self, index: int, stamp_ns: int) -> Decision | None:
        if self._ended is not None:
            return self._hold(index, stamp_ns, *self._ended)
        if self._blocks:
            return self._hold(index, stamp_ns, *self._foremost)
        if trouble := self._intake.trouble(self._now()):
            return self._hold(index, stamp_ns, *trouble)
        if self._instruction is None:
            return self._hold(
                index,
                stamp_ns,
                HoldReason.NO_INSTRUCTION,
                "publish one on ~/instruction or set the parameter",
            )
        return None

    @property
    def _foremost(self) -> tuple[HoldReason, str] | None:
        """What is told of all that stops the motion: who leads the arm, an emergency stop, or the
        last that came.
        """
        if self._guide is not None:
            return self._guided_for, self._blocks[self._guided_for]
        if HoldReason.ESTOP in self._blocks:
            return HoldReason.ESTOP, self._blocks[HoldReason.ESTOP]
        return next(reversed(self._blocks.items()), None)

    def _motion_hold(self, index: int, stamp_ns: int) -> Decision | None:
        measured = self._measured.pose
        if self._measured.is_outside:
            return self._hold(
                index,
                stamp_ns,
                HoldReason.OUTSIDE_WORKSPACE,
                f"measured pose {np.round(bridge_state_from_pose(measured, 0.0)[:6], 3).tolist()} "
                f"(m, rad) is further outside box and orientation limits of the binding "
                f"than one step; move the arm inside",
            )
        target = self._follow.target
        if target is not None and self._robot.anchor == "target":
            if parted(target, measured, self._robot.part_m, self._robot.part_rad):
                return self._part(index, stamp_ns, target, measured)
        if self._slow_stop is not None:  # which comes to its end before anything begins
            return self._hold(index, stamp_ns, self._slow_stop.reason, self._slow_stop.detail)
        return None

    def _part(self, index: int, stamp_ns: int, target: Pose, measured: Pose) -> Decision:
        apart = float(np.linalg.norm(target.position - measured.position))
        detail = (
            f"target and measured pose are {apart:.3f} m apart (limits {self._robot.part_m} m, "
            f"{self._robot.part_rad} rad); the arm does not follow"
        )
        soon = index - self._parted_index <= SOON_TICKS
        self._partings, self._parted_index = self._partings + 1 if soon else 1, index
        if self._partings >= PARTINGS:
            self._partings = 0
            detail = f"{detail}, for the {PARTINGS}rd time; free it, then ~/start goes on"
            self._blocks[HoldReason.PARTED] = detail
        return self._hold(index, stamp_ns, HoldReason.PARTED, detail)

    def _observe(self, index: int, stamp_ns: int) -> Observation:
        if self._follow.target is None:
            self._intake.begin(stamp_ns)
            self._first_index = index
        observation = self._intake.observe(index - self._first_index, stamp_ns)
        self._follow.engage(self._measured.pose)
        self._follow.keep_gripper(self._measured.gripper)
        return observation

    def _hold(self, index: int, stamp_ns: int, reason: HoldReason, detail: str) -> Decision:
        """Disengages, with the reaction that is declared for the reason."""
        reaction = self._reactions[reason]
        goes_on = self._guide is not None and reason == self._guided_for
        if not goes_on and reaction is Reaction.SLOW_STOP:
            goes_on = self._slow_stop is not None or self._begin_slow_stop(reason, detail)
        if goes_on:
            return Decision(index, stamp_ns, reason=reason, detail=detail, reaction=reaction)
        if reaction is Reaction.DEACTIVATE and self._ended is None:
            self._ended = reason, detail
        return self._halt(index, stamp_ns, reason, detail, reaction)

    def _halt(
        self, index: int, stamp_ns: int, reason: HoldReason, detail: str, reaction: Reaction
    ) -> Decision:
        """Ends whatever moves the arm, at once.

        The first hold after motion carries one command at the measured pose, if that is known.
        """
        moves = (self._follow.course, self._guide, self._slow_stop)
        command, moving = None, any(one is not None for one in moves)
        self._end_guide()
        self._follow.course = self._slow_stop = None
        if moving and reaction is not Reaction.ZERO_TWIST:
            command = self._stay(by_stamp=reason is not HoldReason.CLOCK_JUMPED)
            if command is None and reaction is not Reaction.DEACTIVATE:
                reaction = Reaction.ZERO_TWIST
        self._disengage()
        return Decision(
            index,
            stamp_ns,
            command=command,
            halts=moving,
            reason=reason,
            detail=detail,
            reaction=reaction,
        )

    def _begin_slow_stop(self, reason: HoldReason, detail: str) -> bool:
        """Brakes what moves; False where nothing does, or where nobody knows the arm's pose."""
        guide = self._guide
        moves = guide if guide is not None else self._follow if self._follow.course else None
        if moves is None or moves.is_still or self._stay() is None:
            return False
        self._end_guide()
        self._follow.course = None
        self._disengage()
        self._slow_stop = _SlowStop(moves, self._follow.gripper, reason, detail)
        return True

    def _slowed(self, now: Instant) -> Motion | Decision:
        """The next set-point of a slow stop, or the hold at its end."""
        stop, measured = self._slow_stop, self._measured.pose
        set_point = stop.moves.brake(now.steady_ns / 1e9) if self._stay() is not None else None
        if set_point is None:
            return self._halt(-1, now.ros_ns, stop.reason, stop.detail, Reaction.SLOW_STOP)
        if parted(set_point.pose, measured, self._robot.part_m, self._robot.part_rad):
            detail = "the arm does not follow while it brakes"
            return self._hold(-1, now.ros_ns, HoldReason.PARTED, detail)
        return Motion(set_point, stop.gripper, -1, 0, now.ros_ns)

    def _stay(self, by_stamp: bool = True) -> Command | None:
        """The command to stay at the measured pose; None where that is not known, or outside.

        by_stamp: whether stamps tell how old it is, beside the steady clock.
        """
        now = self._now()
        if not by_stamp:  # whatever the robot's clock says
            now = Instant(0, now.steady_ns)
        if self._measured.is_old(now) or self._measured.is_outside:
            return None
        self._follow.keep_gripper(self._measured.gripper)
        return self._follow.stay(self._measured.pose)

    def _not_guidable(self, now: Instant) -> str:
        """Why the arm must not be led now; "" where it may."""
        if self._ended is not None:
            return f"the node deactivates itself: {': '.join(self._ended)}"
        against = [reason for reason in self._blocks if reason not in LED_THROUGH]
        if against:
            return f"{against[0]}: {self._blocks[against[0]]}"
        signal = self._measured.signal
        if self._intake.is_old(signal, now):
            if not self._intake.has_come(signal):
                return f"the measured pose is not known: no sample of signal {signal!r} yet"
            age_s = self._intake.age_s(signal, now)
            return f"the measured pose is not known: signal {signal!r} is {age_s:.2f} s old"
        return self._intake.silence_of(signal)

    def _begin_guide(
        self, now: Instant, reason: HoldReason, make: Callable[..., Guide]
    ) -> Decision:
        held = self._hold(-1, now.ros_ns, reason, LED_THROUGH[reason])
        self._follow.keep_gripper(self._measured.gripper)
        self._guide, self._guided_for = (
            self._follow.guide(make, self._measured.pose, now.steady_ns),
            reason,
        )
        self._blocks.pop(reason, None)
        self._blocks[reason] = LED_THROUGH[reason]
        return held

    def _guided(self, now: Instant) -> Motion | Decision:
        """The guide's next set-point, or the hold at its end."""
        if why_not := self._not_guidable(now):
            self._give_up_guide(why_not)
            return self._hold(-1, now.ros_ns, HoldReason.STALE_INPUT, why_not)
        measured, reason = self._measured.pose, self._guided_for
        motion = self._follow.guided(self._guide, measured, now)
        if motion is None:
            self._end_guide()
            command = self._stay()
            detail = "nobody leads the arm any more"
            if reason in self._blocks:
                detail = self._blocks[reason] = f"is at the binding's {reason}; {_THEN_START}"
            return Decision(
                -1,
                now.ros_ns,
                command=command,
                halts=True,
                reason=reason,
                detail=detail,
                reaction=self._reactions[reason],
            )
        if parted(motion.set_point.pose, measured, self._robot.part_m, self._robot.part_rad):
            detail = "the arm does not follow where it is led"
            self._give_up_guide(detail)
            return self._hold(-1, now.ros_ns, HoldReason.PARTED, detail)
        return motion

    def _give_up_guide(self, why: str) -> None:
        """Whoever asked for a pose is told that it was not reached."""
        if self._guided_for in (HoldReason.HOME, HoldReason.PARK):
            told = f"did not reach the binding's {self._guided_for}: {why}; {_THEN_START}"
            self._blocks[self._guided_for] = told

    def _end_guide(self) -> None:
        """What somebody's hand did leaves nothing behind; a pose that was gone to keeps the arm."""
        if self._guide is not None:
            self._follow.gripper = self._guide.gripper
        if self._guided_for is HoldReason.TELEOPERATED:
            self._blocks.pop(HoldReason.TELEOPERATED, None)
        self._guide = self._guided_for = None

    def _disengage(self) -> None:
        self._follow.disengage()
        self._generation += 1
