"""Rehearsal: what follows a decision, up to the messages, just before it comes; without effect.

A model that computes on the processor leaves nothing else in its caches, and what runs first after
it takes twice as long. Done once while the model is at its head, it is at hand when it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np

from canvas_robot.policy.chunk_execution import First
from canvas_robot.ros.course import Course
from canvas_robot.ros.decisions import Instant
from canvas_robot.ros.following import Following
from canvas_robot.ros.serialized import CommandMessages
from canvas_robot.signals import ActionChunk
from canvas_robot.signals.binding import Binding
from canvas_robot.signals.pose import Pose


@final
class Rehearsal:
    """Follows a decision not to move, and writes its command, on twins of what does so in earnest.

    Args: as of Following and CommandMessages.
    """

    def __init__(
        self, binding: Binding, command_rate_hz: float, unsafe: bool, frame_id: str
    ) -> None:
        self._follow = Following(binding, First(), command_rate_hz, unsafe)
        self._messages = CommandMessages(frame_id)
        size = binding.action_signal().size
        self._chunk = ActionChunk("rehearsal", 0, np.zeros((1, size), np.float32))

    def run(
        self, measured: Pose, now: Instant, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """From the measured pose, as of now; no further than to where it is over.

        Raises ValueError where the pose is outside the limits.
        """
        follow, course = self._follow, Course(-1, 0, now.ros_ns, now.steady_ns)
        follow.disengage()
        follow.course = None
        follow.engage(measured)
        follow.take(self._chunk, 0, course, measured, now.steady_ns)
        if is_over():
            return
        motion = follow.motion(measured, now.steady_ns)
        if is_over():
            return
        self._messages.gripper(motion.gripper)
        self._messages.pose(motion.set_point.pose, now.ros_ns)
        self._messages.twist(motion.set_point.linear, motion.set_point.angular, now.ros_ns)
