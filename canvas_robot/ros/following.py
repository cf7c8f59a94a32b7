"""Following: from decisions that come now and then to what is published at the command rate.

Plain Python: chunk execution says which action, Bridge's rule which target, the command stream
which set-point. Not thread-safe: the control loop's lock guards it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import numpy as np

from canvas_robot.kinematics.command_stream import CommandStream
from canvas_robot.kinematics.guide import Guide
from canvas_robot.kinematics.limiter import SetPoint, catching_up, motion_limits_of
from canvas_robot.kinematics.rule import Command, compose, limits_of
from canvas_robot.policy.chunk_execution import ChunkExecution
from canvas_robot.ros.course import Course
from canvas_robot.ros.decisions import Instant, Motion
from canvas_robot.signals import ActionChunk
from canvas_robot.signals.binding import Binding
from canvas_robot.signals.pose import Pose

MOVING_FRACTION = 0.75  # of a control tick, in which a lone action is carried out: as in simulation


@final
class Following:
    """One arm on its way. Times are nanoseconds on the steady clock.

    target: what the next action acts on; None until `engage`. course: what is followed, None while
    the arm is held. gripper: as last commanded, 0 closed to 1 open; None before the first time.

    Args:
        binding: its robot declares the limits and what a delta acts on.
        execution: which rows of the action chunks are carried out when.
        command_rate_hz: how often `motion` is asked for.
        unsafe: without limits of motion where the binding declares none.
    Raises:
        BindingError: the binding declares no limits of motion.
    """

    def __init__(
        self, binding: Binding, execution: ChunkExecution, command_rate_hz: float, unsafe: bool
    ) -> None:
        self.execution = execution
        self.target: Pose | None = None
        self.course: Course | None = None
        self.gripper: float | None = None
        self._tick_ns = binding.tick_ns
        self._limits = limits_of(binding.robot)
        self._motion_limits = motion_limits_of(binding.robot, unsafe)
        self._from_measured = binding.robot.anchor == "measured"
        fraction = MOVING_FRACTION if execution.at_once else 1.0
        self._command_s = 1.0 / command_rate_hz
        self._stream = CommandStream(
            self._motion_limits, fraction / binding.control_rate_hz, self._command_s
        )
        self._step_due_ns = 0

    def engage(self, measured: Pose) -> None:
        """An observation was made: the first delta acts on the measured pose, or every one does."""
        if self.target is None or self._from_measured:
            self.target = measured

    def keep_gripper(self, measured: float) -> None:
        """Before anything was commanded the gripper stays as it is measured."""
        if self.gripper is None:
            self.gripper = measured

    def disengage(self) -> None:
        """The next decision starts from the measured pose; no chunk from before is carried out."""
        self.target = None
        self.execution.reset()

    def wants_decision(self, now_ns: int) -> bool:
        """Whether to decide at a control tick that is now, give or take half a tick."""
        if self.target is None:
            return True
        over = now_ns >= self._step_due_ns - self._tick_ns // 2
        return self.execution.wants_decision and (over or not self.execution.waits)

    def begun(self, now_ns: int) -> int:
        """How many steps what is seen now counts as begun: one under way from its half on.

        A picture of the moment in which a step begins shows nothing of it yet.
        """
        begun = self.execution.begun
        half_due_ns = self._step_due_ns - self._tick_ns // 2
        return begun - 1 if begun and now_ns < half_due_ns else begun

    def take(
        self, chunk: ActionChunk, begun: int, course: Course, measured: Pose, now_ns: int
    ) -> Command | None:
        """Follows a decision from now on; the command of the step that begins at once, if one does.

        begun: of when it was observed. Raises ValueError for an action that is not finite or leads
        outside; the caller holds then.
        """
        if not all(map(math.isfinite, chunk.values.ravel().tolist())):
            raise ValueError(
                f"action: expected finite numbers, got {chunk.values.tolist()}; "
                f"hold the robot and check the policy"
            )
        self.execution.decided(chunk.values, begun, chunk.continues is not None)
        if self.course is None:
            self._stream.start(measured, now_ns / 1e9)
            self._step_due_ns = now_ns
        waits = not self.execution.at_once and now_ns < self._step_due_ns
        command = None if waits else self._step(measured, now_ns)
        self.course = course
        return command

    def motion(self, measured: Pose, now_ns: int) -> Motion:
        """What to publish now. Raises ValueError for an action that leads outside."""
        if now_ns >= self._step_due_ns:
            self._step(measured, now_ns)
        set_point = self._stream.at(now_ns / 1e9)
        return Motion(
            catching_up(set_point, measured, self._motion_limits),
            self.gripper,
            self.course.decision,
            self.course.image_stamp_ns,
            self.course.computed_ns,
        )

    @property
    def is_still(self) -> bool:
        """Whether the last set-point of what is followed was at rest."""
        return self._stream.is_still

    def brake(self, now_s: float) -> SetPoint | None:
        """As `CommandStream.brake`: what was followed goes over to rest."""
        return self._stream.brake(now_s)

    def guide(self, make: Callable[..., Guide], measured: Pose, now_ns: int) -> Guide:
        """A guide from a measured pose on, within the same limits."""
        return make(
            limits=self._motion_limits,
            measured=measured,
            gripper=self.gripper,
            now_s=now_ns / 1e9,
            ahead_s=self._command_s,
        )

    def guided(self, guide: Guide, measured: Pose, now: Instant) -> Motion | None:
        """What a guide publishes now; None at its end."""
        set_point = guide.at(now.steady_ns / 1e9)
        if set_point is None:
            return None
        led = catching_up(set_point, measured, self._motion_limits)
        return Motion(led, guide.gripper, -1, 0, now.ros_ns)

    def stay(self, measured: Pose) -> Command:
        """The command that holds the arm at a measured pose, brought within the limits."""
        return compose(measured, np.append(np.zeros(6), self.gripper), self._limits)

    def _step(self, measured: Pose, now_ns: int) -> Command | None:
        """Begins the next step, if a decision reaches so far."""
        action = self.execution.step()
        if action is None:
            return None
        if self._from_measured and not self.execution.at_once:
            self.target = measured  # else as of the observation
        command = compose(self.target, action, self._limits)
        self._stream.follow(command, now_ns / 1e9)
        self.target, self.gripper = command.target, command.gripper
        late = now_ns - self._step_due_ns >= self._tick_ns
        self._step_due_ns = (now_ns if late else self._step_due_ns) + self._tick_ns
        return command
