"""The policy node: a managed node that turns camera and joint states into end-effector commands.

It creates, destroys, converts and delegates; deciding lives in `canvas_robot.ros.control`.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger

from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.joint_stream import UnreachableError
from canvas_robot.policy.assemble import assemble_policy, warm_up
from canvas_robot.policy.chunk_execution import make_execution
from canvas_robot.ros.command_clock import CommandClock
from canvas_robot.ros.control import ControlLoop
from canvas_robot.ros.decisions import Decision, HoldReason, Instant
from canvas_robot.ros.guards import Guards
from canvas_robot.ros.inputs import Inputs, check_sources
from canvas_robot.ros.joint_commands import JointCommands
from canvas_robot.ros.messages import stamp_from_ns
from canvas_robot.ros.outputs import Outputs
from canvas_robot.ros.parameters import declare_parameters, read_settings
from canvas_robot.ros.status import (
    Identity,
    command_status,
    decision_status,
    input_status,
    loop_status,
)
from canvas_robot.ros.ticker import Ticker
from canvas_robot.signals import BindingError

STOP_TIMEOUT_S = 5.0
REPEAT_LOG_S = 5.0


def _logged(transition):
    """rclpy swallows exceptions of transition callbacks: log them, and fail the transition."""

    @functools.wraps(transition)
    def wrapper(self, state):
        try:
            return transition(self, state)
        except Exception as error:
            self.get_logger().error(
                f"{transition.__name__} failed: {type(error).__name__}: {error}"
            )
            self.get_logger().debug(traceback.format_exc())
            return TransitionCallbackReturn.FAILURE

    return wrapper


class _Relay(logging.Handler):
    """The package's log records in a node's log."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:  # rclpy ties a severity to the line that logs
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


@contextmanager
def _relayed(logger: RcutilsLogger) -> Iterator[None]:
    """What the package says while it loads a policy goes to the node's log."""
    handler, package = _Relay(logger), logging.getLogger("canvas_robot")
    level = package.level
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


class AutostartError(ValueError):
    """A node that was to start by itself could not."""


class PolicyNode(LifecycleNode):
    """The lifecycle node.

    Configure loads and warms the model; activate subscribes, publishes and ticks; deactivate holds.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("policy", **kwargs)
        declare_parameters(self)
        self._policy = self._loop = self._arm = self._inputs = self._ticker = None
        self._command_clock = None
        self._outputs = self._safeguards = None
        self._made = ExitStack()  # what configure made, to be undone
        self._speaking = threading.RLock()  # commands leave in the order in which they are made
        self._settled = threading.Event()
        self._last_log: dict[str, float] = {}
        self._counts = dict.fromkeys(("ticks", "commands", "holds"), 0)
        self._last_decision: Decision | None = None
        self._barrier = self.create_guard_condition(self._settled.set)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        start, configure = (
            self.get_parameter(name).value for name in ("autostart", "autoconfigure")
        )
        transitions = [self.trigger_configure] if start or configure else []
        for transition in [*transitions, *([self.trigger_activate] if start else [])]:
            if transition() != TransitionCallbackReturn.SUCCESS:
                raise AutostartError(
                    f"{'autostart' if start else 'autoconfigure'}: the node could not start; see "
                    f"above"
                )

    # ------------------------------------------------------------------ lifecycle

    @_logged
    def on_configure(self, state) -> TransitionCallbackReturn:
        with ExitStack() as made:  # a failure undoes what was made before it
            self._configure(made)
            self._made = made.pop_all()
        return TransitionCallbackReturn.SUCCESS

    def _configure(self, made: ExitStack) -> None:
        settings = read_settings(self)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.get_logger().info(f"loading {settings.describe()}")
        with _relayed(self.get_logger()):
            policy = assemble_policy(settings.policy)
        if policy.binding.robot is None:
            raise BindingError("binding: expected a robot, the arm to command; it declares none")
        self._arm = Arm.load(policy.binding.robot.arm)
        check_sources(policy.binding, self._arm, policy.schema)
        milliseconds = warm_up(policy)
        self._loop = ControlLoop(
            policy,
            self._instant,
            self._warn,
            settings.decision_timeout_s,
            settings.command_rate_hz,
            settings.unsafe,
            make_execution(settings.execution, settings.execute_steps, policy.horizon),
        )
        self._policy, self._settings = policy, settings
        cameras = policy.binding.regions_by_codec("visual")
        self._identity = Identity(
            policy.binding.robot.arm,
            settings.ee_frame or policy.binding.robot.ee_frame,
            policy.binding.control_rate_hz,
            policy.trained,
            torch.get_num_threads(),
            cameras[0] if cameras else None,
        )
        self._reported, self._reported_s = {}, time.monotonic()
        made.callback(self._forget)
        self._create_topics(made)
        timer = self.create_timer(1.0, self._publish_diagnostics)
        made.callback(self.destroy_timer, timer)
        trained = "trained" if policy.trained else "UNTRAINED: its actions mean nothing"
        self.get_logger().info(
            f"ready: {trained}, {policy.model.plan.n_rows} rows, {milliseconds:.0f} ms a decision"
        )

    @_logged
    def on_activate(self, state) -> TransitionCallbackReturn:
        binding = self._policy.binding
        self._loop.reset()
        instruction = self.get_parameter("instruction").value
        self._loop.instruct(instruction)
        self._inputs = Inputs(self, binding, self._arm, self._loop, self._settings.image_transport)
        super().on_activate(state)
        self._ticker = Ticker(
            self.get_clock(),
            binding.tick_ns,
            self._on_tick,
            self._on_clock_stopped,
            functools.partial(self._start_over, "the clock went back"),
        )
        self._command_clock = CommandClock(self._settings.command_rate_hz, self._on_command_due)
        self._ticker.start()
        self._command_clock.start()
        self.get_logger().info(f"active at {binding.control_rate_hz} Hz: {instruction!r}")
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_deactivate(self, state) -> TransitionCallbackReturn:
        self._stop()
        super().on_deactivate(state)
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_cleanup(self, state) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, state) -> TransitionCallbackReturn:
        self.shut_down()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_error(self, state) -> TransitionCallbackReturn:
        self.shut_down()
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        """Holds, then ends the control thread; does nothing where the node is not active."""
        if self._ticker is None:
            return
        ticker, self._ticker = self._ticker, None
        self._command_clock.stop(STOP_TIMEOUT_S)
        self._publish(self._deactivated())
        if not ticker.stop(STOP_TIMEOUT_S):
            self.get_logger().error(
                f"the model did not return within {STOP_TIMEOUT_S} s; its decision is dropped"
            )
        self._deactivated()  # what a last tick decided is not followed after the next activation
        self._inputs.close()
        self._inputs = None

    def _deactivated(self) -> Decision:
        now = self.get_clock().now().nanoseconds
        return self._loop.hold(-1, now, HoldReason.DEACTIVATED, "the node was deactivated")

    def _release(self) -> None:
        self._made.close()

    def _forget(self) -> None:
        self._policy = self._loop = self._arm = self._joints = None

    def _create_topics(self, made: ExitStack) -> None:
        settings, robot = self._settings, self._policy.binding.robot
        self._joints = JointCommands(self._policy.binding) if settings.joint_output else None
        self._outputs = Outputs(
            self,
            settings.base_frame or robot.base_frame,
            settings.dry_run,
            self._joints.names if self._joints is not None else None,
        )
        made.callback(self._outputs.close)
        self._safeguards = Guards(
            self,
            self._block,
            self._loop.unblock,
            self._outputs.rivals,
            settings.estop_topic,
            settings.deadman_topic,
        )
        made.callback(self._safeguards.close)
        instruction = self.create_subscription(String, "~/instruction", self._on_instruction, 1)
        made.callback(self.destroy_subscription, instruction)
        made.callback(self.destroy_service, self.create_service(Trigger, "~/reset", self._on_reset))

    def shut_down(self) -> None:
        """Holds and releases everything, from any state; for the end of the process."""
        self._stop()
        self._release()

    # ------------------------------------------------------------------ callbacks

    def _on_set_parameters(self, parameters) -> SetParametersResult:
        """Once configured, only the instruction changes anything, so nothing else is accepted."""
        for parameter in parameters:
            if parameter.name == "instruction" and self._ticker is not None:
                self._loop.instruct(parameter.value)
            elif parameter.name not in ("instruction", "use_sim_time") and self._policy is not None:
                reason = f"{parameter.name} is read at configure; clean the node up first"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _on_instruction(self, msg: String) -> None:
        if self._ticker is not None:
            self._loop.instruct(msg.data)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._ticker is not None
        response.message = (
            "starting over from the measured pose" if response.success else "the node is not active"
        )
        if response.success:
            self._start_over("reset")
        return response

    def _start_over(self, why: str) -> None:
        now = self.get_clock().now().nanoseconds
        self._publish(self._loop.hold(-1, now, HoldReason.INTERRUPTED, f"{why}: starting over"))
        self._loop.reset()

    def _on_tick(self, index: int, stamp_ns: int) -> None:
        try:
            self._settle()
            decision = self._loop.tick(index, stamp_ns)
        except Exception as error:  # the control thread must outlive any fault of ours
            self.get_logger().error(traceback.format_exc())
            detail = f"{type(error).__name__}: {error}"
            decision = self._loop.hold(index, stamp_ns, HoldReason.INTERNAL_ERROR, detail)
        if self._ticker is not None:  # else the node was deactivated while the model computed
            self._publish(decision)
        if decision.chunk is not None:
            self._work(index, stamp_ns)

    def _work(self, index: int, stamp_ns: int) -> None:
        try:
            self._loop.work()
        except Exception as error:  # what it left half done must not be acted on
            self.get_logger().error(traceback.format_exc())
            detail = f"between ticks: {type(error).__name__}: {error}"
            self._publish(self._loop.hold(index, stamp_ns, HoldReason.MODEL_ERROR, detail))

    def _on_command_due(self) -> None:
        try:
            self._safeguards.look()
            self._move()
        except Exception as error:  # the command clock must outlive any fault of ours
            self.get_logger().error(traceback.format_exc())
            detail = f"between ticks: {type(error).__name__}: {error}"
            now = self.get_clock().now().nanoseconds
            self._publish(self._loop.hold(-1, now, HoldReason.INTERNAL_ERROR, detail))

    def _block(self, reason: HoldReason, detail: str) -> None:
        now = self.get_clock().now().nanoseconds
        held = self._loop.block(-1, now, reason, detail)
        if held is not None and self._ticker is not None:
            self._publish(held)

    def _on_clock_stopped(self) -> None:
        now = self.get_clock().now().nanoseconds
        detail = "the simulation clock (/clock) stands still; is the simulator running?"
        self._publish(self._loop.hold(-1, now, HoldReason.CLOCK_STOPPED, detail))

    def _settle(self) -> None:
        """Lets the executor take all messages that have arrived: a tick sees what is there."""
        for _ in range(8):
            seen = self._inputs.count
            self._settled.clear()
            self._barrier.trigger()
            if not self._settled.wait(0.05) or self._inputs.count == seen:
                return

    def _instant(self) -> Instant:
        return Instant(self.get_clock().now().nanoseconds, time.monotonic_ns())

    # ------------------------------------------------------------------ output

    def _publish(self, decision: Decision) -> None:
        """Acts on a decision at once, and says what was decided."""
        with self._speaking:
            started = time.perf_counter()
            now = self.get_clock().now().nanoseconds
            if decision.reason is None:
                self._move()
            elif decision.command is not None:
                self._outputs.hold(decision.command, now)
                if self._joints is not None and self._inputs.joints is not None:
                    self._outputs.move_joints(self._joints.stay(self._inputs.joints), now, 0.1)
                self._counts["commands"] += 1
            publish_ms = (time.perf_counter() - started) * 1e3
            self._counts["ticks" if decision.reason is None else "holds"] += 1
            self._last_decision = decision
            if decision.reason is not None:
                self._warn(f"holding: {decision.reason}: {decision.detail}")
            if decision.chunk is not None:
                self._outputs.chunk(decision.chunk.values)
            commanded = decision.reason is None or decision.command is not None
            missed = self._ticker.missed if self._ticker is not None else 0
            self._outputs.status(
                decision_status(
                    self._identity, decision, now if commanded else 0, publish_ms, missed
                )
            )

    def _move(self) -> None:
        """Commands the next set-point, or the hold that ends the motion; nothing in a hold."""
        with self._speaking:
            motion = self._loop.motion()
            if isinstance(motion, Decision):
                self._publish(motion)
            elif motion is not None:
                now = self.get_clock().now().nanoseconds
                if self._joints is not None:
                    try:
                        joints = self._joints.follow(motion, self._inputs.joints, now)
                    except UnreachableError as error:
                        unreachable = HoldReason.UNREACHABLE
                        self._publish(self._loop.hold(-1, now, unreachable, str(error)))
                        return
                    period_s = 1.0 / self._settings.command_rate_hz
                    self._outputs.move_joints(joints, now, period_s)
                self._outputs.move(motion.set_point, motion.gripper, now)
                self._counts["commands"] += 1
                self._outputs.status(command_status(self._identity, motion, now))

    def _publish_diagnostics(self) -> None:
        if self._ticker is None:
            return
        now_s, signals = time.monotonic(), self._policy.binding.signals
        seconds, self._reported_s = now_s - self._reported_s, now_s
        counts = {
            **self._counts,
            "missed_ticks": self._ticker.missed,
            "skipped_commands": self._command_clock.skipped,
            "command_late_p99_ms": self._command_clock.late_p99_ms,
        }
        statuses = [loop_status(self._identity, self._last_decision, counts)]
        for signal, state in self._loop.inputs().items():
            rate_hz = (state.samples - self._reported.get(signal, 0)) / seconds
            self._reported[signal] = state.samples
            limit_s = signals[signal].max_age_s
            statuses.append(input_status(self._identity, signal, state, rate_hz, limit_s))
        array = DiagnosticArray(status=statuses)
        array.header.stamp = stamp_from_ns(self.get_clock().now().nanoseconds)
        self._outputs.diagnostics(array)

    def _warn(self, line: str) -> None:
        """Logs a line, and the same line again at most every REPEAT_LOG_S."""
        now, kind = time.monotonic(), line.split(":")[0]
        if now - self._last_log.get(kind, -REPEAT_LOG_S) >= REPEAT_LOG_S:
            self._last_log[kind] = now
            self.get_logger().warning(line)
