"""Listener: a node that a plain program listens with, in a context of its own."""

from __future__ import annotations

from typing import final

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from canvas_robot.ros.processes import adopt_node_environment


@final
class Listener:
    """Owns context, node and executor. `close` ends them.

    Args:
        name: of the node.
        domain_id: ROS domain to listen in.
    """

    def __init__(self, name: str, domain_id: int) -> None:
        adopt_node_environment()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def spin_once(self, timeout_s: float) -> None:
        """Takes one message, if one comes in time."""
        self._executor.spin_once(timeout_sec=timeout_s)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
