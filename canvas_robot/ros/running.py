"""Running: a session with its topics; it acts on decisions, and says what was decided."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode

from canvas_robot.kinematics.joint_stream import UnreachableError
from canvas_robot.kinematics.rule import Command
from canvas_robot.ros.canvas_picture import CanvasPicture
from canvas_robot.ros.command_clock import CommandClock
from canvas_robot.ros.decisions import Decision, HoldReason, Motion, Reaction
from canvas_robot.ros.drivers import Drivers
from canvas_robot.ros.hands import Hands
from canvas_robot.ros.inputs import Inputs
from canvas_robot.ros.messages import stamp_from_ns
from canvas_robot.ros.outputs import Outputs
from canvas_robot.ros.rehearsal import Rehearsal
from canvas_robot.ros.session import Session
from canvas_robot.ros.status import (
    command_status,
    decision_status,
    input_status,
    loop_status,
)
from canvas_robot.ros.tally import Tally
from canvas_robot.ros.ticker import Ticker

if TYPE_CHECKING:
    from canvas_robot.ros.run_policy import Goals

HOLD_TIME_S = 0.1  # in which joints come to rest where they are


@dataclass(eq=False)
class Period:
    """What goes on while the node is active. ends: it is being deactivated."""

    inputs: Inputs
    ticker: Ticker
    commands: CommandClock
    ends: bool = False


@final
class Running:
    """From configure to cleanup, or to the next reload. `close` ends it, and the model with it.

    period: while the node is active, else None. drivers, outputs, goals: of this session; goals are
    None where their package is not installed.

    Args:
        node: owns the topics.
        session: what runs.
        speaking: held while anything is commanded: commands leave in the order in which they are
            made, whichever thread makes them.
        deactivate: asks for the node's deactivation, from any thread.
        warn: receives one line for each thing that goes wrong.
    Raises whatever a topic cannot be made for; what was made before it is undone.
    """

    def __init__(
        self,
        node: LifecycleNode,
        session: Session,
        speaking: threading.RLock,
        deactivate: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        self.session, self.period = session, None
        self._node, self._speaking = node, speaking
        self._deactivate, self._warn = deactivate, warn
        binding, settings = session.binding, session.settings
        self._tally = Tally(binding.control_rate_hz, settings.command_rate_hz)
        self._reported: Counter[str] = Counter()
        self._reported_s = time.monotonic()
        self._last_decision: Decision | None = None
        self._canvas_picture = CanvasPicture(binding)
        self._shown: HoldReason | None = None  # of the hold that is drawn
        self.goals: Goals | None = None
        with ExitStack() as made:
            made.callback(session.model.close)
            self.drivers = Drivers(node, settings, binding, session.arm, warn)
            made.callback(self.drivers.close)
            self.outputs = Outputs(
                node,
                session.base_frame,
                settings.dry_run,
                session.joints.names if settings.joint_output else None,
                settings.joint_positions,
                self.drivers,
            )
            made.callback(self.outputs.close)
            self._rehearsal = Rehearsal(
                binding, settings.command_rate_hz, settings.unsafe, session.base_frame
            )
            session.model.about_to_decide = self._rehearse
            hands = Hands(
                node,
                session.loop,
                binding.robot,
                self.publish,
                lambda: self.is_active,
                warn,
                settings.teleop_topic,
            )
            made.callback(hands.close)
            self.goals = self._offer_goals()
            if self.goals is not None:
                made.callback(self.goals.close)
            timer = node.create_timer(settings.diagnostic_period_s, self._diagnose)
            made.callback(node.destroy_timer, timer)
            self._made = made.pop_all()

    def close(self) -> None:
        self._made.close()

    @property
    def is_active(self) -> bool:
        """Whether commands are published at present."""
        period = self.period
        return period is not None and not period.ends

    def publish(self, decision: Decision) -> None:
        """Acts on a decision at once, and then says what was decided."""
        with self._speaking:
            started, now = time.perf_counter(), self._now()
            if decision.reaction is Reaction.DEACTIVATE:
                self._deactivate()
            motion = None
            if decision.reason is None:
                motion = self._command(now)
            elif decision.command is not None:
                self._hold_at(decision.command, now)
            elif decision.halts:
                self._halt(now)
            publish_ms = (time.perf_counter() - started) * 1e3
            self._tally.decided(decision, publish_ms)
            self._last_decision = decision
            if self.goals is not None:
                self.goals.told(decision)
            if decision.reason is not None:
                self._warn(f"holding: {decision.reason}: {decision.detail}")
            self._tell(decision, motion, now, publish_ms)
            if isinstance(motion, Decision):  # what was decided could not be commanded
                self.publish(motion)

    def move(self, late_ms: float) -> None:
        """Commands the next set-point, or the hold that ends the motion; nothing in a hold.

        late_ms: how late this is.
        """
        self.outputs.beat()
        with self._speaking:
            now = self._now()
            motion = self._command(now)
            if isinstance(motion, Decision):
                self.publish(motion)
            elif motion is not None:
                self.outputs.status(command_status(self.session.identity, motion, now, late_ms))

    def _rehearse(self) -> None:
        """It is no part of acting: a fault here is told and no more."""
        try:
            if present := self.session.loop.present():
                model = self.session.model
                self._rehearsal.run(*present, lambda: model.has_answered)
        except Exception as error:
            self._warn(f"no rehearsal of a decision: {type(error).__name__}: {error}")

    def show(self, decision: Decision) -> None:
        """Draws a decision for who subscribes; of holds for one reason, the first.

        It is no part of acting: a fault here is told and no more.
        """
        try:
            foresight = self.session.foresight
            if decision.reason is not None or not self.outputs.canvas_watched:
                foresight.forget()
            if not self.outputs.canvas_watched:
                self._shown = None
                return
            if decision.chunk is None and decision.reason in (None, self._shown):
                return
            self._shown = decision.reason
            pictures = self.session.loop.pictures()
            image = self._canvas_picture.draw(decision, pictures, foresight.shown)
            self.outputs.canvas_image(image, decision.stamp_ns)
        except Exception as error:
            self._warn(f"no picture of the decision: {type(error).__name__}: {error}")

    def foresee(self, decision: Decision) -> None:
        """Lets the model predict pictures for who subscribes, in what is left of the tick.

        It is no part of acting: a fault here is told and no more.
        """
        try:
            if self.is_active and self.outputs.canvas_watched:
                passed_ns = self._now() - decision.stamp_ns
                left_s = (self.session.binding.tick_ns - passed_ns) / 1e9
                self.session.foresight.go_on(decision, left_s)
        except Exception as error:
            self._warn(f"no predicted pictures: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------ all below while speaking

    def _command(self, now: int) -> Motion | Decision | None:
        """The set-point that has been commanded, or the hold to publish; None while one stands."""
        session, period = self.session, self.period
        motion = session.loop.motion()
        if motion is None or isinstance(motion, Decision):
            return motion
        if session.joints is not None and period is not None:
            steady_ns = time.monotonic_ns()
            try:
                joints = session.joints.follow(motion, period.inputs.joints, steady_ns)
            except UnreachableError as error:
                return session.loop.hold(-1, now, HoldReason.UNREACHABLE, str(error))
            self.outputs.move_joints(joints, now, 1.0 / session.settings.command_rate_hz)
        self.outputs.move(motion.set_point, motion.gripper, now)
        image_ns = motion.image_stamp_ns
        self._tally.commanded((now - image_ns) / 1e6 if image_ns else None)
        return motion

    def _hold_at(self, command: Command, now: int) -> None:
        self.outputs.hold(command, now)
        joints, period = self.session.joints, self.period
        measured = period.inputs.joints if period is not None else None
        if joints is not None and measured is not None:
            stay = joints.stay(measured, command.gripper)
            self.outputs.move_joints(stay, now, HOLD_TIME_S)
        self._tally.commanded(None)

    def _halt(self, now: int) -> None:
        """Nobody knows where the arm is: no speed, and the next motion begins where it then is."""
        self.outputs.halt(now)
        if self.session.joints is not None:
            self.session.joints.stop()

    def _tell(
        self, decision: Decision, motion: Motion | Decision | None, now: int, publish_ms: float
    ) -> None:
        """What was decided, and what was commanded with it."""
        identity, period = self.session.identity, self.period
        moves = isinstance(motion, Motion)
        stamp_ns = now if moves or decision.command is not None else 0
        missed = period.ticker.missed if period is not None else 0
        self.outputs.status(decision_status(identity, decision, stamp_ns, publish_ms, missed))
        if moves:
            self.outputs.status(command_status(identity, motion, now, None))
        if decision.chunk is not None:
            self.outputs.chunk(decision.chunk.values)

    # ------------------------------------------------------------------ in the executor

    def _diagnose(self) -> None:
        """Now and then: how the loop goes, and how each signal comes in."""
        session, period = self.session, self.period
        if period is None:
            return
        now_s, signals = time.monotonic(), session.binding.signals
        seconds, self._reported_s = now_s - self._reported_s, now_s
        counts = {
            **self._tally.values(),
            "missed_ticks": period.ticker.missed,
            "skipped_commands": period.commands.skipped,
            "command_late_p99_ms": period.commands.late_p99_ms,
            "model_memory_mb": session.model.memory_bytes >> 20,
            "model_restarts": session.model.restarts,
        }
        decided, missed = (self._since(name, counts[name]) for name in ("ticks", "missed_ticks"))
        statuses = [
            loop_status(
                session.identity,
                self._last_decision,
                session.loop.instructions,
                counts,
                decided / seconds,
                missed if session.settings.execution == "first" else 0,
            )
        ]
        for signal, state in session.loop.inputs().items():
            published = state.samples + state.skipped
            rate_hz = self._since(f"input {signal}", published) / seconds
            limit_s = signals[signal].max_age_s
            statuses.append(input_status(session.identity, signal, state, rate_hz, limit_s))
        array = DiagnosticArray(status=statuses)
        array.header.stamp = stamp_from_ns(self._now())
        self.outputs.diagnostics(array)

    def _since(self, name: str, count: int) -> int:
        """What a count has grown by since it was last told; one that is smaller began anew."""
        before, self._reported[name] = self._reported[name], count
        return count - before if count >= before else count

    def _offer_goals(self) -> Goals | None:
        try:
            from canvas_robot.ros.run_policy import Goals
        except ImportError as error:
            self._node.get_logger().info(f"no action ~/run_policy: {error}")
            return None
        session = self.session
        return Goals(
            self._node,
            session.loop,
            session.binding,
            session.identity.camera,
            self.publish,
            lambda: self.is_active,
            self._warn,
        )

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds
