"""Goals: instructions that other programs give by the action ~/run_policy, and how they end.

Only where canvas_robot_interfaces is installed can this be imported.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from canvas_robot_interfaces.action import RunPolicy
from rclpy.action import CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from canvas_robot.ros.control import ControlLoop
from canvas_robot.ros.decisions import Decision, HoldReason
from canvas_robot.ros.goal_server import GoalServer
from canvas_robot.signals import Binding, SignalError

ACTION = "~/run_policy"
FEEDBACK_S = 0.25
_Result = RunPolicy.Result


@dataclass(eq=False)
class _Run:
    """A goal under way. begun_s, until_s: on the steady clock. outcome: "" until it has ended."""

    handle: ServerGoalHandle
    instruction: str
    begun_s: float
    until_s: float
    number: int  # of its instruction, as `ControlLoop.turn` has it
    decisions: int = 0
    last: Decision | None = None
    image_ns: int = 0
    outcome: str = ""
    message: str = ""


@final
class Goals:
    """The action of one configured period; one goal at a time. `close` ends it.

    What ends a goal takes its instruction away with it, so that nothing goes on that nobody waits
    for; only one that is superseded leaves the arm to what came.

    Args:
        node: owns the action.
        loop: follows instructions, and holds.
        binding: declares which instructions there may be.
        camera: the region whose picture's age is fed back, None where there is none.
        publish: receives the hold that ends a goal.
        is_active: whether commands are published at present.
        warn: receives one line for each goal that is refused.
    """

    def __init__(
        self,
        node: LifecycleNode,
        loop: ControlLoop,
        binding: Binding,
        camera: str | None,
        publish: Callable[[Decision], None],
        is_active: Callable[[], bool],
        warn: Callable[[str], None],
    ) -> None:
        self._node, self._loop, self._camera = node, loop, camera
        self._publish, self._is_active, self._warn = publish, is_active, warn
        self._signal = binding.regions[binding.goal_region()].signal
        self._text = binding.signals[self._signal]
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._timer = node.create_timer(
            FEEDBACK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._timer.cancel()
        # Goals end in any thread, and are answered in the executor's.
        self._ended = node.create_guard_condition(self._answer)
        self._server = GoalServer(
            node,
            RunPolicy,
            ACTION,
            self._result,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def close(self) -> None:
        self._answer()
        self._node.destroy_timer(self._timer)
        self._node.destroy_guard_condition(self._ended)
        self._server.destroy()

    # ------------------------------------------------------------------ from any thread

    def told(self, decision: Decision) -> None:
        """What was decided, or why the arm is held; a passing hold ends no goal."""
        with self._lock:
            run = self._run
            if run is None or run.outcome:
                return
            run.last = decision
            run.image_ns = decision.stamps_ns.get(self._camera, run.image_ns)
            if decision.chunk is not None and decision.instruction == run.instruction:
                run.decisions += 1
            turn = self._loop.turn
            if decision.reason is HoldReason.DEACTIVATED:
                self._end(_Result.DEACTIVATED, decision.detail)
            elif turn.taken > run.number:
                self._end(_Result.SUPERSEDED, "another instruction came")
            elif turn.refused == run.number:
                self._end(_Result.REFUSED, self._loop.instructions.fault)
            elif decision.reason is not None and (ended := self._loop.ended):
                self._end(_Result.DEACTIVATED, ended)
            elif decision.reason is not None and (blocked := self._loop.blocked):
                self._end(_Result.STOPPED, blocked)

    def reloaded(self) -> None:
        """Another policy is about to take this one's place."""
        with self._lock:
            self._end(_Result.RELOADED, "the policy is exchanged for another")

    def _end(self, outcome: str, message: str) -> None:
        """With the lock held. The first end of a goal is its end."""
        run = self._run
        if run is None or run.outcome:
            return
        run.outcome, run.message = outcome, message
        if outcome != _Result.SUPERSEDED:
            self._loop.instruct("")
        self._ended.trigger()

    # ------------------------------------------------------------------ in the executor

    def _on_goal(self, goal: RunPolicy.Goal) -> GoalResponse:
        why_not = self._why_not(goal)
        if not why_not:
            return GoalResponse.ACCEPT
        self._warn(f"goal refused: {why_not}")
        if self._is_active():
            self._loop.refused(f"goal refused: {why_not}")
        return GoalResponse.REJECT

    def _why_not(self, goal: RunPolicy.Goal) -> str:
        """Why a goal is refused; "" where it is not."""
        if not self._is_active():
            return "the node is not active"
        if not goal.instruction.strip():
            return "instruction: expected a task, got a blank text; cancel the goal to hold"
        if not (math.isfinite(goal.max_seconds) and goal.max_seconds >= 0.0):
            return f"max_seconds: expected 0 (no limit) or more, got {goal.max_seconds}"
        try:
            self._text.checked(self._signal, goal.instruction)
        except SignalError as error:
            return str(error)
        return self._loop.blocked

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        goal, now_s = handle.request, time.monotonic()
        until_s = now_s + goal.max_seconds if goal.max_seconds else math.inf
        with self._lock:
            self._end(_Result.SUPERSEDED, "another goal came")
        self._answer()
        handle.execute()
        with self._lock:
            number = self._loop.instruct(goal.instruction)
            self._run = _Run(handle, goal.instruction, now_s, until_s, number)
        self._timer.reset()
        self._node.get_logger().info(f"goal: {goal.instruction!r}")

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        run = self._run
        if run is None or run.handle is not handle or run.outcome:
            return CancelResponse.REJECT  # its result is on the way
        self._stop(_Result.CANCELLED, "the goal was cancelled")
        return CancelResponse.ACCEPT

    def _stop(self, outcome: str, message: str) -> None:
        """Ends the goal, and the arm's motion with it, not only at the next tick."""
        with self._lock:
            self._end(outcome, message)
        now_ns = self._node.get_clock().now().nanoseconds
        self._publish(self._loop.hold(-1, now_ns, HoldReason.NO_INSTRUCTION, message))

    def _look(self) -> None:
        """Feeds back, or ends a goal whose time is over."""
        run, now_s = self._run, time.monotonic()
        if run is None or run.outcome:
            return
        if now_s >= run.until_s:
            self._stop(_Result.TIMED_OUT, f"max_seconds ({run.handle.request.max_seconds:g}) over")
            return
        with self._lock:
            decision, decisions, image_ns = run.last, run.decisions, run.image_ns
        if decision is None:
            return
        now_ns = self._node.get_clock().now().nanoseconds
        run.handle.publish_feedback(
            RunPolicy.Feedback(
                holding=decision.reason is not None,
                reason=str(decision.reason or ""),
                detail=decision.detail,
                decisions=decisions,
                seconds=now_s - run.begun_s,
                image_age_s=(now_ns - image_ns) / 1e9 if image_ns else math.nan,
            )
        )

    def _answer(self) -> None:
        """Sends the result of a goal that has ended."""
        run = self._run
        if run is None or not run.outcome:
            return
        self._timer.cancel()
        self._server.end(run.handle)
        self._node.get_logger().info(f"goal ended: {run.outcome}: {run.message}")
        self._run = None

    def _result(self, handle: ServerGoalHandle) -> RunPolicy.Result:
        run = self._run
        if handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return _Result(outcome=run.outcome, message=run.message, decisions=run.decisions)
