"""Entry point of the executable `policy`.

Signals are handled before the model's libraries load, which takes seconds.
"""

from __future__ import annotations

from canvas_robot.allocator import share_memory
from canvas_robot.ros.process import run_node


def main(args: list[str] | None = None) -> int:
    """Runs the policy node until SIGINT or SIGTERM; the exit code."""

    def load():
        from canvas_robot.ros.policy_node import PolicyNode

        return PolicyNode

    share_memory()  # before rclpy starts threads
    return run_node(load, args)


if __name__ == "__main__":
    raise SystemExit(main())
