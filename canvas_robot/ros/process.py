"""Running one node as a process: SIGINT and SIGTERM end it cleanly, with a last chance to act."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Protocol

PARENT_VARIABLE = "CANVAS_ROBOT_PARENT_PID"  # set by a parent whose end ends the node
_POLL_S = 0.1  # how long a signal may wait for the executor


_stopping: list[int] = []  # signals that asked this process to end


def is_stopping() -> bool:
    """Whether SIGINT or SIGTERM has asked this process to end."""
    return bool(_stopping)


class NodeClass(Protocol):
    """A node that can be made without arguments and knows how to end."""

    def __call__(self): ...

    def shut_down(self) -> None: ...


def run_node(load: Callable[[], type[NodeClass]], args: list[str] | None = None) -> int:
    """Loads the node's class, makes the node and spins until SIGINT or SIGTERM; the exit code.

    What a user got wrong in arguments or parameters ends it with one line, and 1.
    A signal that comes while libraries load ends the process at once; later ones let the node shut
    down while it can still publish.
    """
    _stopping.clear()

    def stop(received: int, frame) -> None:
        _stopping.append(received)

    def leave(received: int, frame) -> None:
        raise SystemExit(0)

    _handle_signals(leave)
    from canvas_robot.allocator import keep_freed_memory
    from canvas_robot.ros.priority import WAITING_S
    from canvas_robot.ros.processes import adopt_transport

    keep_freed_memory()
    adopt_transport()
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    node_class = load()
    sys.setswitchinterval(WAITING_S)
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        print(f"error: {why_no_ros(error)}", file=sys.stderr)
        return 1
    _handle_signals(stop)
    try:
        node = node_class()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            while not is_stopping() and rclpy.ok() and not orphaned():
                executor.spin_once(timeout_sec=_POLL_S)
        finally:
            node.shut_down()
            executor.shutdown()
            node.destroy_node()
    except (ValueError, ParameterException) as error:
        if is_stopping():
            return 0  # it was asked to end while it loaded
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
        # Launchers send a second signal; it must not kill a clean exit.
        _handle_signals(signal.SIG_IGN)
    return 0


def why_no_ros(error: RuntimeError) -> str:
    """Why rclpy.init refused arguments, file or environment: one line, with what to mend."""
    said = re.sub(r",? at [^ ]*\.c:\d+", "", str(error).removeprefix("failed to initialize rcl: "))
    if found := re.search(r"params file: '--params-file (.*?)'\. Error: (.*)", said, re.DOTALL):
        file, reason = found.groups()
        return (
            f"{file}: expected a ROS parameters file: a node such as /**/policy:, below it "
            f"ros__parameters:, below that name: value, none of them empty; got: {reason.strip()}; "
            f"mend the file"
        )
    return f"ROS could not start: {said.strip()}; mend the environment, or what --ros-args says"


def orphaned() -> bool:
    """Whether the process that started this one, and asked to be outlived by nobody, has ended."""
    parent = os.environ.get(PARENT_VARIABLE)
    return parent is not None and parent != str(os.getppid())


def _handle_signals(handler: Callable) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
