"""Listener: a node that a plain program listens with, in a context of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.parameter import Parameter

from canvas_robot.ros.processes import adopt_transport

RCLInvalidROSArgsError = rclpy_implementation.RCLInvalidROSArgsError


def remapping_arguments(rules: Sequence[str], name: str) -> list[str]:
    """Rules such as joint_states:=/wx250s/joint_states, for a node that listens beside another.

    name: of the other, whose private names, such as ~/target_pose, are meant. Raises ValueError for
    what is no rule.
    """
    for rule in rules:
        source, separator, target = rule.partition(":=")
        if not (source and separator and target):
            raise ValueError(
                f"--remap: expected a rule such as joint_states:=/wx250s/joint_states, got {rule!r}"
            )
    named = [f"{name}/{rule[2:]}" if rule.startswith("~/") else rule for rule in rules]
    return ["--ros-args", *(part for rule in named for part in ("-r", rule))] if rules else []


@final
class Listener:
    """Owns context, node and executor. `close` ends them.

    Args:
        name: of the node.
        domain_id: ROS domain to listen in.
        parameters: that the node is started with, by name.
        namespace: of the node, in which relative names are.
        arguments: of the node, such as those of `remapping_arguments`.
    Raises ValueError for arguments that ROS does not understand.
    """

    def __init__(
        self,
        name: str,
        domain_id: int,
        parameters: Mapping[str, object] | None = None,
        namespace: str = "",
        arguments: Sequence[str] = (),
    ) -> None:
        adopt_transport()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        given = [Parameter(name, value=value) for name, value in (parameters or {}).items()]
        try:
            self.node = rclpy.create_node(
                name,
                context=self._context,
                namespace=namespace,
                parameter_overrides=given,
                cli_args=list(arguments) or None,
            )
        except RCLInvalidROSArgsError as error:
            rclpy.try_shutdown(context=self._context)
            raise ValueError(f"{' '.join(arguments[1:])}: {error}") from error
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def spin_once(self, timeout_s: float) -> None:
        """Takes one message, if one comes in time."""
        self._executor.spin_once(timeout_sec=timeout_s)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
