"""Episodes recorded as goals: the action ~/record_episode of the node /recorder, a bag for each.

Only where canvas_robot_interfaces is installed can this be imported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from canvas_robot_interfaces.action import RecordEpisode
from rclpy.action import CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle

from canvas_robot.ros.goal_server import GoalServer
from canvas_robot.ros.listener import Listener
from canvas_robot.ros.record import Recorder

ACTION = "~/record_episode"
FEEDBACK_S = 0.5
_SPIN_S = 0.05
_Result = RecordEpisode.Result


@dataclass(eq=False)
class _Episode:
    """One under way. begun_s, until_s, told_s: on the steady clock. outcome: "" until it ends.

    recorder: None where it could not be made, or nothing came.
    """

    handle: ServerGoalHandle
    recorder: Recorder | None
    begun_s: float
    until_s: float
    told_s: float = 0.0
    outcome: str = ""
    message: str = ""

    @property
    def bag(self) -> str:
        return str(self.recorder.folder) if self.recorder is not None else ""

    @property
    def messages(self) -> int:
        return self.recorder.counts.total() if self.recorder is not None else 0


@final
class RecordGoals:
    """One goal at a time, until closed. `spin_once` lets goals and messages in. node: offers it.

    Args:
        begin: makes the recorder of an episode, of which it is told the instruction.
        domain_id: ROS domain.
        namespace: of the node /recorder.
    """

    def __init__(
        self, begin: Callable[[str], Recorder], domain_id: int, namespace: str = ""
    ) -> None:
        self._begin, self._episode = begin, None
        self._listener = Listener("recorder", domain_id, namespace=namespace)
        self.node = self._listener.node
        self._server = GoalServer(
            self.node,
            RecordEpisode,
            ACTION,
            self._result,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def __enter__(self) -> RecordGoals:
        return self

    def __exit__(self, *exception) -> None:
        self._end(_Result.ENDED, "the recorder was ended")
        self._server.destroy()
        self._listener.close()

    def spin_once(self) -> None:
        """Takes what comes in some hundredths of a second."""
        episode = self._episode
        if episode is None:
            self._listener.spin_once(_SPIN_S)
            return
        try:
            episode.recorder.spin_for(_SPIN_S)
        except (RuntimeError, OSError) as error:  # a full disk, or one that is gone
            self._end(_Result.FAILED, str(error))
            return
        self._listener.spin_once(0.0)
        now_s = time.monotonic()
        if now_s >= episode.until_s:
            self._end(_Result.TIMED_OUT, "max_seconds over")
        elif self._episode is episode and now_s - episode.told_s >= FEEDBACK_S:
            episode.told_s = now_s
            feedback = RecordEpisode.Feedback(
                seconds=now_s - episode.begun_s, messages=episode.messages
            )
            episode.handle.publish_feedback(feedback)

    def _on_goal(self, goal: RecordEpisode.Goal) -> GoalResponse:
        why_not = ""
        if self._episode is not None:
            why_not = f"{self._episode.bag} is being recorded; cancel its goal first"
        elif not (math.isfinite(goal.max_seconds) and goal.max_seconds >= 0.0):
            why_not = f"max_seconds: expected 0 (no limit) or more, got {goal.max_seconds}"
        if why_not:
            self.node.get_logger().warning(f"goal refused: {why_not}")
        return GoalResponse.REJECT if why_not else GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        goal, now_s = handle.request, time.monotonic()
        handle.execute()
        until_s = now_s + goal.max_seconds if goal.max_seconds else math.inf
        try:
            recorder = self._begin(goal.instruction)
        except (RuntimeError, ValueError, OSError) as error:
            self._episode = _Episode(handle, None, now_s, until_s)
            self._end(_Result.FAILED, str(error))
            return
        self._episode = _Episode(handle, recorder, now_s, until_s)
        told = f"recording {self._episode.bag}: {goal.instruction!r}"
        self.node.get_logger().info(told)

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        episode = self._episode
        if episode is None or episode.handle is not handle:
            return CancelResponse.REJECT  # its result is on the way
        episode.until_s, episode.outcome = 0.0, _Result.STOPPED  # once rclpy knows of it
        return CancelResponse.ACCEPT

    def _end(self, outcome: str, message: str) -> None:
        """Closes the bag, and answers."""
        episode = self._episode
        if episode is None:
            return
        stopped = episode.outcome == _Result.STOPPED
        episode.outcome = episode.outcome or outcome
        episode.message = "the goal was cancelled" if stopped else message
        try:
            if episode.recorder is not None:
                episode.recorder.close()
                if nothing := episode.recorder.left_out():
                    episode.recorder = None
                    if not stopped:
                        episode.outcome = _Result.FAILED
                    episode.message += f"; {nothing}: do robot and node run in this domain?"
                elif unheard := episode.recorder.unheard():
                    episode.message += f"; nothing came of {', '.join(unheard)}"
        except OSError as error:  # its end did not fit on the disk
            episode.outcome, episode.message = _Result.FAILED, str(error)
        self._server.end(episode.handle)
        told = f"recorded {episode.bag or 'nothing'}: {episode.outcome}: {episode.message}"
        self.node.get_logger().info(told)
        self._episode = None

    def _result(self, handle: ServerGoalHandle) -> RecordEpisode.Result:
        episode = self._episode
        if handle.is_cancel_requested:
            handle.canceled()
        elif episode.outcome == _Result.TIMED_OUT:
            handle.succeed()
        else:
            handle.abort()
        return _Result(
            outcome=episode.outcome,
            message=episode.message,
            bag=episode.bag,
            messages=episode.messages,
        )
