"""The policy node: a managed node that turns camera and joint states into end-effector commands.

It creates, destroys, converts and delegates; deciding lives in `canvas_robot.ros.control`.
"""

from __future__ import annotations

import functools
import gc
import logging
import re
import threading
import time
import traceback
from concurrent.futures import Future
from contextlib import ExitStack

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger

from canvas_robot.allocator import fetch_memory
from canvas_robot.policy.model_process import GivenUpError, ModelProcess, prepare
from canvas_robot.ros.command_clock import CommandClock
from canvas_robot.ros.decisions import Decision, HoldReason, Instant
from canvas_robot.ros.description import heard_description
from canvas_robot.ros.drivers import check_drivers
from canvas_robot.ros.guards import Guards
from canvas_robot.ros.inputs import Inputs, newest_only
from canvas_robot.ros.parameters import (
    RELOADED,
    ParameterError,
    Settings,
    check_params_files,
    check_value,
    declare_parameters,
    read_settings,
    unknown_parameters,
)
from canvas_robot.ros.priority import WORKING_S, switching_after, take_priority
from canvas_robot.ros.process import is_stopping
from canvas_robot.ros.qos import (
    OPERATOR_OVERRIDES,
    QOS_PREFIX,
    check_overrides,
    untaken_overrides,
)
from canvas_robot.ros.running import Period, Running
from canvas_robot.ros.session import Session, open_session
from canvas_robot.ros.ticker import Ticker
from canvas_robot.signals import SignalError

RCLError = rclpy_implementation.RCLError
STOP_TIMEOUT_S = 5.0
REPEAT_LOG_S = 5.0
NAP_S = 0.005  # that a loading policy keeps services waiting at most, again and again
_SHOWN = 200  # characters of an instruction in the log
_LINES_KNOWN = 1000  # of the log, that are not repeated
FETCHED_BYTES = 64 << 20  # of memory, before the arm first moves: 70 pictures of 640x480
# So long before a tick pictures are taken: one that is stamped after it must not be all there is.
PICTURES_AHEAD_NS = 25_000_000
# So long before a tick there is time to squash pictures, and once more for what came meanwhile.
PREPARE_NS, PREPARE_AGAIN_NS = 5_000_000, 1_000_000
_CHANGEABLE = ("instruction", "use_sim_time", *RELOADED)


def _logged(transition):
    """rclpy swallows exceptions of transition callbacks: log them, and fail the transition."""

    @functools.wraps(transition)
    def wrapper(self, state):
        try:
            return transition(self, state)
        except GivenUpError as error:
            self.get_logger().info(f"{transition.__name__}: {error}: the node was asked to end")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().error(
                f"{transition.__name__} failed: {type(error).__name__}: {error}"
            )
            self.get_logger().debug(traceback.format_exc())
            return TransitionCallbackReturn.FAILURE

    return wrapper


def _outlived(callback):
    """A fault of ours must not end the thread that calls: it is told, and the arm is held."""

    @functools.wraps(callback)
    def wrapper(self, *arguments):
        try:
            callback(self, *arguments)
        except Exception as error:
            self._hold_for(error)

    return wrapper


class AutostartError(ValueError):
    """A node that was to start by itself could not."""


class ReloadError(RuntimeError):
    """What was loaded has no place any more."""


class _Nap:
    """To be awaited by a coroutine that has to wait: the executor calls it without a pause."""

    def __await__(self):
        time.sleep(NAP_S)
        yield


class PolicyNode(LifecycleNode):
    """The lifecycle node.

    Configure loads and warms the model; activate subscribes, publishes and ticks; deactivate holds.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("policy", **kwargs)
        declare_parameters(self)
        check_params_files(self)
        for line in unknown_parameters(self):
            self.get_logger().error(f"ignored: {line}")
        prepare(self.get_parameter("device").value)
        self._running: Running | None = None  # while configured
        self._safeguards: Guards | None = None
        self._stops: dict[HoldReason, str] = {}  # that people asked for; they outlive a cleanup
        self._lasting = ExitStack()  # what outlives an exchange of sessions, to be undone
        self._speaking = threading.RLock()  # commands leave in the order in which they are made
        self._reloading = self._memory_is_fetched = False
        self._last_log: dict[str, float] = {}
        self._deactivation = self.create_guard_condition(self._on_deactivation_due)
        # In a group of its own: while a policy loads, all else is answered.
        self.create_service(
            Trigger,
            "~/reload",
            self._on_reload,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self.add_on_set_parameters_callback(self._on_set_parameters)
        start, configure = (
            self.get_parameter(name).value for name in ("autostart", "autoconfigure")
        )
        transitions = [self.trigger_configure] if start or configure else []
        for transition in [*transitions, *([self.trigger_activate] if start else [])]:
            if is_stopping() or transition() != TransitionCallbackReturn.SUCCESS:
                raise AutostartError(
                    f"{'autostart' if start else 'autoconfigure'}: the node could not start; see "
                    f"above"
                )

    @property
    def _session(self) -> Session | None:
        return self._running.session if self._running is not None else None

    @property
    def _is_active(self) -> bool:
        return self._running is not None and self._running.is_active

    # ------------------------------------------------------------------ lifecycle

    def _LifecycleNodeMixin__on_change_state(self, request, response):
        """Refuses a transition that the state does not have; rclpy's own ends the executor."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except RCLError as error:
            asked = request.transition.label or f"number {request.transition.id}"
            state = self._state_machine.current_state[1]
            self.get_logger().error(f"transition refused: {asked} is none of state {state}")
            self.get_logger().debug(str(error))
            response.success = False
            return response

    @_logged
    def on_configure(self, state) -> TransitionCallbackReturn:
        settings = read_settings(self)
        check_overrides(self)
        check_drivers(settings)
        session = self._new_session(settings)
        self._running = self._open(session)
        try:
            self._heed(settings)
        except BaseException:
            self._release()
            raise
        return TransitionCallbackReturn.SUCCESS

    def _new_session(self, settings: Settings) -> Session:
        """With a warm model, and whatever its arm is; any thread. It makes no topics."""
        model = self._load(settings)
        try:
            description = heard_description(self, model.binding)
            name = self.get_fully_qualified_name()
            return open_session(settings, model, self._instant, self._warn, name, description)
        except BaseException:
            model.close()
            raise

    def _load(self, settings: Settings) -> ModelProcess:
        self.get_logger().info(f"loading {settings.policy.describe()}")
        model = ModelProcess(
            settings.policy, settings.threads, self._log_model, is_given_up=is_stopping
        )
        trained = "trained" if model.trained else "UNTRAINED: its actions mean nothing"
        facts = model.facts
        self.get_logger().info(
            f"ready: {trained}, {facts.rows} rows, {facts.decision_ms:.0f} ms a decision"
        )
        return model

    def _open(self, session: Session) -> Running:
        """Its topics; where that fails, its model is closed."""
        return Running(self, session, self._speaking, self._deactivation.trigger, self._warn)

    @_logged
    def on_activate(self, state) -> TransitionCallbackReturn:
        super().on_activate(state)
        self._session.loop.rearm()
        try:
            self._start(self._listen(self._session), self.get_parameter("instruction").value)
        except BaseException:
            super().on_deactivate(state)
            raise
        return TransitionCallbackReturn.SUCCESS

    def _listen(self, session: Session) -> Inputs:
        return Inputs(
            self,
            session.binding,
            session.arm,
            session.loop,
            session.settings.image_transport,
            functools.partial(self._block, HoldReason.EFFORT),
            newest_only(session.binding, session.model.schema, self.get_clock().ros_time_is_active),
        )

    def _start(self, inputs: Inputs, instruction: str) -> None:
        """Ticks and commands, from the measured pose; where that fails, nothing is left active."""
        running, session = self._running, self._session
        binding, settings = session.binding, session.settings
        try:
            session.loop.begin(instruction)
            for line in untaken_overrides(self):
                self.get_logger().error(f"ignored: {line}")
            running.drivers.begin()
            self._safeguards.look()  # what stood while nobody looked may stand no more
            ticker = Ticker(
                self.get_clock(),
                binding.tick_ns,
                self._on_tick,
                {PREPARE_NS: self._on_tick_soon, PREPARE_AGAIN_NS: self._on_tick_at_hand},
                self._on_clock_stopped,
                self._on_clock_jumped,
                lambda: self._take_priority(max(settings.thread_priority - 1, 0)),
            )
            commands = CommandClock(
                settings.command_rate_hz,
                self._on_command_due,
                lambda: self._take_priority(settings.thread_priority),
            )
        except BaseException:
            inputs.close()
            raise
        running.period = Period(inputs, ticker, commands)
        gc.collect()
        gc.freeze()  # what is there is not searched for garbage while the arm moves
        try:
            if not self._memory_is_fetched:  # else the first pictures that a thread takes are late
                fetch_memory(FETCHED_BYTES)
                self._memory_is_fetched = True
            ticker.start()
            commands.start()
        except BaseException as error:  # the machine has no room for them
            self._stop(detail=f"the node could not start: {error}")
            raise
        self.get_logger().info(f"active at {binding.control_rate_hz} Hz: {instruction[:_SHOWN]!r}")

    @_logged
    def on_deactivate(self, state) -> TransitionCallbackReturn:
        why = self._session.loop.ended
        by_whom = f"the node deactivated itself: {why}" if why else "the node was deactivated"
        self._stop(HoldReason.DEACTIVATED, by_whom)
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

    def _stop(
        self,
        reason: HoldReason = HoldReason.DEACTIVATED,
        detail: str = "the node was deactivated",
        ending: bool = False,
    ) -> None:
        """Holds, then ends the control thread; does nothing where the node is not active.

        ending: nobody waits for what the model is deciding.
        """
        if not self._is_active:
            return
        running, period = self._running, self._running.period

        def hold() -> Decision:
            now = self.get_clock().now().nanoseconds
            return running.session.loop.hold(-1, now, reason, detail)

        period.ends = True
        period.commands.stop(STOP_TIMEOUT_S)
        running.publish(hold())
        if ending:
            running.session.model.close()
        if not period.ticker.stop(STOP_TIMEOUT_S):
            self.get_logger().error(
                f"the model did not return within {STOP_TIMEOUT_S} s; its decision is dropped"
            )
        hold()  # what a last tick decided is not followed after the next activation
        running.period = None
        period.inputs.close()
        gc.unfreeze()

    def _heed(self, settings: Settings) -> None:
        """Listens to what stops the arm, whichever session runs: a reload must lose none of it."""
        with ExitStack() as lasting:
            self._safeguards = Guards(
                self,
                self._block,
                self._unblock,
                lambda: self._running.outputs.rivals(),
                lambda: self._running.drivers.look(),
                settings.estop_topic,
                settings.deadman_topic,
                before=self._safeguards,
            )
            lasting.callback(self._safeguards.close)
            instruction = self.create_subscription(
                String,
                "~/instruction",
                self._on_instruction,
                QoSProfile(depth=1),
                qos_overriding_options=OPERATOR_OVERRIDES,
            )
            lasting.callback(self.destroy_subscription, instruction)
            reset = self.create_service(Trigger, "~/reset", self._on_reset)
            lasting.callback(self.destroy_service, reset)
            for reason, detail in self._stops.items():
                self._block(reason, detail)
            self._lasting = lasting.pop_all()

    def shut_down(self) -> None:
        """Holds and releases everything, from any state; for the end of the process."""
        self._stop(ending=True)
        self._release()

    def _release(self) -> None:
        self._lasting.close()
        if self._running is not None:
            self._running.close()
            self._running = None

    # ------------------------------------------------------------------ callbacks

    def _on_set_parameters(self, parameters) -> SetParametersResult:
        """Once configured, the instruction changes at once, and the policy at ~/reload."""
        for parameter in parameters:
            if parameter.name == "instruction":
                if refusal := self._refusal_of(parameter.value):
                    return SetParametersResult(successful=False, reason=refusal)
            elif parameter.name.startswith(f"{QOS_PREFIX}."):
                continue  # it is declared with its topic, read-only from then on
            elif self._session is not None and parameter.name not in _CHANGEABLE:
                reason = f"{parameter.name} is read at configure; clean the node up first"
                return SetParametersResult(successful=False, reason=reason)
            else:
                try:
                    check_value(self, parameter.name, parameter.value)
                except ParameterError as error:
                    return SetParametersResult(successful=False, reason=str(error))
        for parameter in parameters:  # all or none of them
            if parameter.name == "instruction":
                self._instruct(parameter.value)
        return SetParametersResult(successful=True)

    def _refusal_of(self, instruction: str) -> str:
        """Why the binding does not accept an instruction; "" where it does, or it is blank."""
        if self._session is None:
            return ""
        binding = self._session.binding
        signal = binding.regions[binding.goal_region()].signal
        try:
            if instruction.strip():
                binding.signals[signal].checked(signal, instruction)
        except SignalError as error:
            return str(error)
        return ""

    def _on_instruction(self, msg: String) -> None:
        self._instruct(msg.data)

    def _instruct(self, instruction: str) -> None:
        if self._is_active:
            self._session.loop.instruct(instruction)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._is_active
        response.message = (
            "starting over from the measured pose" if response.success else "the node is not active"
        )
        if response.success:
            self._start_over(HoldReason.INTERRUPTED, "reset")
        return response

    async def _on_reload(self, request: Trigger.Request, response: Trigger.Response):
        """Loads what the parameters name beside what runs, and exchanges the two between ticks."""
        session = self._session
        if self._reloading or session is None:
            response.message = "a reload is under way" if session else "the node is not configured"
            return response
        self._reloading = True
        try:
            settings = read_settings(self)
            opening = self._opened_beside(settings)
            while not opening.done():
                await _Nap()
            self._exchange(session, opening.result())
            response.success = True
            response.message = f"running {settings.policy.describe()}"
        except Exception as error:
            runs_on = self._session is session
            left = "what ran before runs on" if runs_on else "what ran before is gone"
            response.message = f"{type(error).__name__}: {error}; {left}"
            self.get_logger().error(f"reload refused: {response.message}")
            if runs_on:
                running = session.settings.policy
                names = {name: getattr(running, name) for name in RELOADED}
                self.set_parameters([Parameter(name, value=was) for name, was in names.items()])
        finally:
            self._reloading = False
        return response

    def _opened_beside(self, settings: Settings) -> Future:
        """Resolves to another session, once its model is warm."""
        loaded: Future = Future()

        def load() -> None:
            try:
                loaded.set_result(self._new_session(settings))
            except Exception as error:
                loaded.set_exception(error)

        threading.Thread(target=load, name="reload", daemon=True).start()
        return loaded

    def _exchange(self, session: Session, new: Session) -> None:
        """One session for another. The old one is closed once all of the new one is open."""
        old, active = self._running, self._is_active
        try:
            if self._session is not session:
                raise ReloadError("the node was cleaned up meanwhile")
            inputs = self._listen(new) if active else None
        except BaseException:
            new.model.close()
            raise
        if old.goals is not None:
            old.goals.reloaded()
        instruction = session.loop.instruction
        if active:
            self._stop(HoldReason.INTERRUPTED, "the policy is exchanged for another")
        new.loop.take_over(session.loop)
        try:
            self._running = self._open(new)
        except BaseException:
            if active:
                inputs.close()
                self._start(self._listen(session), instruction)
            raise
        old.close()
        if active:
            self._running.outputs.activate()
            self._start(inputs, instruction)

    def _start_over(self, reason: HoldReason, why: str) -> None:
        now = self.get_clock().now().nanoseconds
        with self._speaking:  # what is being decided is told as interrupted after this
            self._running.publish(self._session.loop.hold(-1, now, reason, f"{why}: starting over"))
        self._session.loop.reset()

    def _take_priority(self, priority: int) -> None:
        if refusal := take_priority(priority):
            self._warn(refusal)

    @_outlived
    def _on_tick_soon(self, index: int, stamp_ns: int) -> None:
        """Takes and squashes what the tick will most likely see: it then decides the sooner."""
        self._look_ahead(index, stamp_ns, pictures=True)

    @_outlived
    def _on_tick_at_hand(self, index: int, stamp_ns: int) -> None:
        """The same of what came since, but for pictures: there is no time to squash more."""
        self._look_ahead(index, stamp_ns, pictures=False)

    def _look_ahead(self, index: int, stamp_ns: int, pictures: bool) -> None:
        running, period = self._running, self._running.period
        if not running.is_active:
            return
        period.inputs.poll(pictures)
        running.session.loop.make_ready()
        foreseen = running.session.loop.foreseen(index, stamp_ns)
        if foreseen is not None:
            running.session.model.expect(foreseen)

    @_outlived
    def _on_tick(self, index: int, stamp_ns: int) -> None:
        running, period = self._running, self._running.period
        if not running.is_active:
            return
        with switching_after(WORKING_S):
            started = time.perf_counter()
            period.inputs.poll()
            polled = time.perf_counter()
            decision = running.session.loop.tick(index, stamp_ns)
            decision.timings_ms["poll"] = (polled - started) * 1e3
            if running.is_active:  # else the node was deactivated while the model computed
                running.publish(decision)
        if running.is_active:
            running.show(decision)
        if decision.chunk is not None:
            self._work(running, index, stamp_ns)
            running.foresee(decision)

    def _work(self, running: Running, index: int, stamp_ns: int) -> None:
        loop = running.session.loop
        try:
            loop.work()
        except Exception as error:  # what it left half done must not be acted on
            self.get_logger().error(traceback.format_exc())
            detail = f"between ticks: {type(error).__name__}: {error}"
            running.publish(loop.hold(index, stamp_ns, HoldReason.MODEL_ERROR, detail))

    @_outlived
    def _on_command_due(self) -> None:
        running, period = self._running, self._running.period
        if not running.is_active:
            return
        period.ticker.look()
        self._safeguards.look()
        running.move(period.commands.late_ms)
        period.inputs.poll(pictures=period.ticker.due_within(PICTURES_AHEAD_NS))

    def _hold_for(self, error: Exception) -> None:
        """A fault of ours: nothing that is known of the arm may be believed any more."""
        self.get_logger().error(traceback.format_exc())
        running = self._running
        if running is None:  # the node was cleaned up while a thread still ran
            return
        detail = f"{type(error).__name__}: {error}"
        now = self.get_clock().now().nanoseconds
        held = running.session.loop.hold(-1, now, HoldReason.INTERNAL_ERROR, detail)
        try:
            running.publish(held)
        except Exception:
            self.get_logger().error(traceback.format_exc())

    def _block(self, reason: HoldReason, detail: str) -> None:
        if reason in (HoldReason.STOPPED, HoldReason.ESTOP):
            self._stops[reason] = detail
        now = self.get_clock().now().nanoseconds
        held = self._session.loop.block(-1, now, reason, detail)
        if held is not None and self._is_active:
            self._running.publish(held)

    def _unblock(self, reason: HoldReason) -> None:
        self._stops.pop(reason, None)
        now = self.get_clock().now().nanoseconds
        held = self._session.loop.unblock(-1, now, reason)
        if held is not None and self._is_active:
            self._running.publish(held)

    @_outlived
    def _on_clock_stopped(self) -> None:
        now = self.get_clock().now().nanoseconds
        detail = "the simulation clock (/clock) stands still; is the simulator running?"
        held = self._session.loop.hold(-1, now, HoldReason.CLOCK_STOPPED, detail)
        self._running.publish(held)

    @_outlived
    def _on_clock_jumped(self, seconds: float) -> None:
        way = "ahead" if seconds > 0 else "back"
        self._start_over(
            HoldReason.CLOCK_JUMPED, f"the robot's clock went {way} by {abs(seconds):.2f} s"
        )

    def _on_deactivation_due(self) -> None:
        """In the executor's thread: a transition waits for the threads that ask for it here."""
        why = self._session.loop.ended if self._is_active else ""
        if why:
            self.get_logger().error(f"deactivating: {why}")
            self.trigger_deactivate()

    def _instant(self) -> Instant:
        clock = self.get_clock().handle
        with clock:  # `Clock.now` makes a Time of it, which takes four times as long
            return Instant(clock.get_now().nanoseconds, time.monotonic_ns())

    def _log_model(self, level: int, line: str) -> None:
        logger = self.get_logger()  # rclpy ties a severity to the line that logs
        if level >= logging.ERROR:
            logger.error(line)
        elif level >= logging.WARNING:
            logger.warning(line)
        else:
            logger.info(line)

    def _warn(self, line: str) -> None:
        """Logs a line, and the same one but for its numbers at most every REPEAT_LOG_S."""
        now, kind = time.monotonic(), re.sub(r"\d+", "", line)
        if len(self._last_log) > _LINES_KNOWN:
            self._last_log.clear()
        if now - self._last_log.get(kind, -REPEAT_LOG_S) >= REPEAT_LOG_S:
            self._last_log[kind] = now
            self.get_logger().warning(line)
