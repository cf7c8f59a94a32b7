"""Entry point of the executable `sim_robot`.

A simulated WidowX with a camera, on the topics of a real one.
"""

from __future__ import annotations

from canvas_robot.ros.process import run_node


def main(args: list[str] | None = None) -> int:
    """Runs the simulated robot until SIGINT or SIGTERM; the exit code."""

    def load():
        from canvas_robot.ros.sim_robot_node import SimRobotNode

        return SimRobotNode

    return run_node(load, args)


if __name__ == "__main__":
    raise SystemExit(main())
