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
from contextlib import contextmanager

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from canvas_robot.kinematics.arm import Arm
from canvas_robot.policy.assemble import assemble_policy, warm_up
from canvas_robot.ros.control import ControlLoop, Decision, HoldReason, Instant
from canvas_robot.ros.inputs import Inputs, check_sources
from canvas_robot.ros.messages import pose_to_msg, stamp_from_ns, values_to_msg
from canvas_robot.ros.parameters import declare_parameters, read_settings
from canvas_robot.ros.ticker import Ticker
from canvas_robot.signals import BindingError

COMMAND_QOS = QoSProfile(depth=1)  # reliable, volatile
STATUS_QOS = QoSProfile(depth=50)
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
        self._outputs = []
        self._settled = threading.Event()
        self._last_log: dict[str, float] = {}
        self._counts = dict.fromkeys(("ticks", "commands", "holds"), 0)
        self._last_decision: Decision | None = None
        self._barrier = self.create_guard_condition(self._settled.set)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        if self.get_parameter("autostart").value:
            for transition in (self.trigger_configure, self.trigger_activate):
                if transition() != TransitionCallbackReturn.SUCCESS:
                    raise AutostartError("autostart: the node could not start; see above")

    # ------------------------------------------------------------------ lifecycle

    @_logged
    def on_configure(self, state) -> TransitionCallbackReturn:
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
        self._loop = ControlLoop(policy, self._instant, self._warn)
        self._policy, self._settings = policy, settings
        self._create_outputs()
        self._timer = self.create_timer(1.0, self._publish_diagnostics)
        trained = "trained" if policy.trained else "UNTRAINED: its actions mean nothing"
        self.get_logger().info(
            f"ready: {trained}, {policy.model.plan.n_rows} rows, {milliseconds:.0f} ms a decision"
        )
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_activate(self, state) -> TransitionCallbackReturn:
        binding = self._policy.binding
        self._loop.reset()
        instruction = self.get_parameter("instruction").value
        self._loop.instruct(instruction)
        super().on_activate(state)
        self._inputs = Inputs(self, binding, self._arm, self._loop, self._settings.image_transport)
        self._ticker = Ticker(
            self.get_clock(),
            binding.tick_ns,
            self._on_tick,
            self._on_clock_stopped,
            self._loop.reset,
        )
        self._ticker.start()
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
        """Ends the control thread, then holds; does nothing where the node is not active."""
        if self._ticker is None:
            return
        ticker, self._ticker = self._ticker, None
        if not ticker.stop(STOP_TIMEOUT_S):
            self.get_logger().error(
                f"the model did not return within {STOP_TIMEOUT_S} s; its decision is dropped"
            )
        now = self.get_clock().now().nanoseconds
        self._publish(self._loop.hold(-1, now, HoldReason.DEACTIVATED, "the node was deactivated"))
        self._inputs.close()
        self._inputs = None

    def _release(self) -> None:
        if self._policy is None:
            return
        self.destroy_timer(self._timer)
        for publisher in self._outputs:
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = []
        for entity in self._entities:
            entity()
        self._policy = self._loop = self._arm = None

    def _create_outputs(self) -> None:
        self._pose = self.create_lifecycle_publisher(PoseStamped, "~/target_pose", COMMAND_QOS)
        self._gripper = self.create_lifecycle_publisher(Float64, "~/gripper", COMMAND_QOS)
        self._status = self.create_lifecycle_publisher(DiagnosticStatus, "~/status", STATUS_QOS)
        self._diagnostics = self.create_lifecycle_publisher(DiagnosticArray, "/diagnostics", 10)
        self._outputs = [self._pose, self._gripper, self._status, self._diagnostics]
        instruction = self.create_subscription(String, "~/instruction", self._on_instruction, 1)
        reset = self.create_service(Trigger, "~/reset", self._on_reset)
        self._entities = [
            functools.partial(self.destroy_subscription, instruction),
            functools.partial(self.destroy_service, reset),
        ]

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
            self._loop.reset()
        return response

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
        started = time.perf_counter()
        now = self.get_clock().now().nanoseconds
        if decision.command is not None:
            frame = self._settings.base_frame or self._policy.binding.robot.base_frame
            self._gripper.publish(Float64(data=decision.command.gripper))
            self._pose.publish(pose_to_msg(decision.command.target, now, frame))
            self._counts["commands"] += 1
        publish_ms = (time.perf_counter() - started) * 1e3
        self._counts["ticks" if decision.reason is None else "holds"] += 1
        self._last_decision = decision
        if decision.reason is not None:
            self._warn(f"holding: {decision.reason}: {decision.detail}")
        self._status.publish(self._status_msg(decision, now, publish_ms))

    def _status_msg(
        self, decision: Decision, command_ns: int, publish_ms: float
    ) -> DiagnosticStatus:
        active = decision.reason is None
        values = {
            "index": decision.index,
            "tick": decision.tick,
            "state": "active" if active else "hold",
            "reason": "" if active else str(decision.reason),
            "stamp_ns": decision.stamp_ns,
            "command_stamp_ns": command_ns if decision.command is not None else 0,
            "trained": self._policy.trained,
            "threads": torch.get_num_threads(),
            "ee_frame": self._settings.ee_frame or self._policy.binding.robot.ee_frame,
            "control_rate_hz": self._policy.binding.control_rate_hz,
            "publish_ms": publish_ms,
            "missed_ticks": self._ticker.missed if self._ticker is not None else 0,
        }
        values |= {f"{stage}_ms": ms for stage, ms in decision.timings_ms.items()}
        values |= {f"stamp_ns.{region}": stamp for region, stamp in decision.stamps_ns.items()}
        values |= {f"arrival_ns.{region}": stamp for region, stamp in decision.arrivals_ns.items()}
        cameras = self._policy.binding.regions_by_codec("visual")
        if cameras and cameras[0] in decision.stamps_ns:  # latency is measured from this one
            values["image_stamp_ns"] = decision.stamps_ns[cameras[0]]
            values["image_arrival_ns"] = decision.arrivals_ns[cameras[0]]
        if decision.command is not None:
            values["target"] = decision.command.target.position.tolist()
            values["gripper"] = decision.command.gripper
        if decision.chunk is not None:
            values |= {f"age_ticks.{r}": age for r, age in decision.chunk.ages.items()}
            values["action_chunk"] = np.asarray(decision.chunk.values, np.float64).tolist()
        return DiagnosticStatus(
            level=DiagnosticStatus.OK if active else DiagnosticStatus.WARN,
            name="policy: decision",
            hardware_id=self._policy.binding.robot.arm,
            message=decision.detail,
            values=values_to_msg(values),
        )

    def _publish_diagnostics(self) -> None:
        if self._ticker is None:
            return
        decision = self._last_decision
        holding = decision is None or decision.reason is not None
        message = (
            "waiting for the first tick"
            if decision is None
            else (decision.detail or "following the instruction")
        )
        values = {
            **self._counts,
            "missed_ticks": self._ticker.missed,
            "trained": self._policy.trained,
        }
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if holding else DiagnosticStatus.OK,
            name="policy: control loop",
            hardware_id=self._policy.binding.robot.arm,
            message=message,
            values=values_to_msg(values),
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp_from_ns(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(array)

    def _warn(self, line: str) -> None:
        """Logs a line, and the same line again at most every REPEAT_LOG_S."""
        now, kind = time.monotonic(), line.split(":")[0]
        if now - self._last_log.get(kind, -REPEAT_LOG_S) >= REPEAT_LOG_S:
            self._last_log[kind] = now
            self.get_logger().warning(line)
