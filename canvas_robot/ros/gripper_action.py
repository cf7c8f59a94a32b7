"""GripperAction: the gripper as goals of control_msgs/action/ParallelGripperCommand."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import final

from action_msgs.msg import GoalStatus
from control_msgs.action import ParallelGripperCommand
from rclpy.action import ActionClient
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future

from canvas_robot.kinematics.arm import Arm
from canvas_robot.ros.messages import joints_to_msg
from canvas_robot.ros.openings import Openings

AGAIN_S = 1.0  # between a goal that was refused or failed and the next
_RIVAL_S = 1.0  # how long a goal of somebody else's counts


@final
class GripperAction:
    """Gives goals, and never waits for one. A goal is the finger's position in metres.

    There is another goal when the opening that is wanted differs from the last by
    `openings.STEP`, or the last was refused or failed; not where it stalled, as on an object
    that is held. No goal is cancelled: a hand that holds something goes on holding it.

    Args:
        node: owns the client; its executor sends the goals and takes the answers in.
        action: its name.
        arm: knows the finger's positions closed and open.
        finger: name of its joint.
        warn: receives one line for each goal that was not carried out.
    """

    def __init__(
        self,
        node: LifecycleNode,
        action: str,
        arm: Arm,
        finger: str,
        warn: Callable[[str], None],
    ) -> None:
        self._node, self._action, self._warn = node, action, warn
        self._arm, self._finger = arm, finger
        self._client = ActionClient(node, ParallelGripperCommand, action)
        # The client is no other thread's than the executor's: an answer could come before its goal
        # is known to be under way.
        self._wake = node.create_guard_condition(self._send)
        self._openings = Openings()
        self._wanted, self._stamp_ns = 1.0, 0
        self._goals, self._servers = 0, 0
        self._not_before_s = self._rival_until_s = 0.0

    def close(self) -> None:
        self._node.destroy_guard_condition(self._wake)
        self._client.destroy()

    def begin(self) -> None:
        """The next opening is a goal, whatever was asked for before."""
        self._openings.forget()
        self._not_before_s = 0.0

    def look(self) -> str:
        """Why no goal can be given; "" where one can."""
        servers = self._node.count_services(f"{self._action}/_action/send_goal")
        if servers > self._servers:
            self.begin()
        self._servers = servers
        if self._client.server_is_ready():
            return ""
        return f"the action {self._action} is not there; is the gripper's controller running?"

    def rivals(self) -> list[str]:
        """The action, where somebody else has taken the gripper."""
        return [f"goals of {self._action}"] if time.monotonic() < self._rival_until_s else []

    def open_to(self, share: float, stamp_ns: int) -> None:
        """Wants the gripper opened so far: 0 closed, 1 open. Returns at once."""
        self._wanted, self._stamp_ns = share, stamp_ns
        if self._openings.differs(share) and time.monotonic() >= self._not_before_s:
            self._wake.trigger()

    # ------------------------------------------------------------------ in the executor

    def _send(self) -> None:
        share = self._wanted
        if not self._openings.differs(share) or not self._client.server_is_ready():
            return
        self._openings.last = share
        self._goals += 1
        position = [self._arm.finger_from_gripper(share)]
        command = joints_to_msg((self._finger,), position, self._stamp_ns)
        sent = self._client.send_goal_async(ParallelGripperCommand.Goal(command=command))
        sent.add_done_callback(functools.partial(self._on_answer, self._goals, position[0]))

    def _on_answer(self, goal: int, position: float, sent: Future) -> None:
        if goal != self._goals:
            return  # another has been given meanwhile
        handle = sent.result()
        if not handle.accepted:
            self._failed(f"{position:.4f} m was refused")
            return
        ended = handle.get_result_async()
        ended.add_done_callback(functools.partial(self._on_end, goal, position))

    def _on_end(self, goal: int, position: float, ended: Future) -> None:
        if goal != self._goals:
            return
        answer = ended.result()
        if answer.status == GoalStatus.STATUS_CANCELED:
            self._rival_until_s = time.monotonic() + _RIVAL_S
            self._failed(f"{position:.4f} m was cancelled, by somebody else or by its controller")
        elif answer.status == GoalStatus.STATUS_ABORTED and not answer.result.stalled:
            self._failed(f"{position:.4f} m was given up")

    def _failed(self, what: str) -> None:
        self._warn(f"gripper goal: {what}")
        self._openings.forget()
        self._not_before_s = time.monotonic() + AGAIN_S
