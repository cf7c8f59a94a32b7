"""GoalServer: an action server whose goals end where that is said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle


class GoalServer(ActionServer):
    """rclpy's, whose goals end where that is said, in the thread that says it.

    rclpy ends a goal in a task of its executor: one that waits for the end is polled without a
    pause until then, and one that is still there when the server is destroyed answers nobody.
    """

    def notify_execute(self, goal_handle: ServerGoalHandle, execute_callback: Callable) -> None:
        """A goal begins: there is nothing to call before its end."""

    def end(self, goal_handle: ServerGoalHandle) -> None:
        """Asks the execute callback for the result, and sends it to who has asked for it."""
        with suppress(StopIteration):
            self._execute_goal(self._execute_callback, goal_handle).send(None)

    def add_future(self, future) -> None:
        """None is the executor's: it would send a result later, by a server that may be gone."""

    def remove_future(self, future) -> None:
        """None was added."""
