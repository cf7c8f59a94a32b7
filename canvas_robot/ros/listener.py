"""Listener: a node that a plain program listens with, in a context of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from canvas_robot.ros.processes import adopt_node_environment


@final
class Listener:
    """Owns context, node and executor. `close` ends them.

    Args:
        name: of the node.
        domain_id: ROS domain to listen in.
        parameters: that the node is started with, by name.
        namespace: of the node, in which relative names are.
    """

    def __init__(
        self,
        name: str,
        domain_id: int,
        parameters: Mapping[str, object] | None = None,
        namespace: str = "",
    ) -> None:
        adopt_node_environment()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        given = [Parameter(name, value=value) for name, value in (parameters or {}).items()]
        self.node = rclpy.create_node(
            name, context=self._context, namespace=namespace, parameter_overrides=given
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def spin_once(self, timeout_s: float) -> None:
        """Takes one message, if one comes in time."""
        self._executor.spin_once(timeout_sec=timeout_s)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
