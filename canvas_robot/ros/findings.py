"""Findings: what `canvas-robot doctor` says of one thing."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.topic_endpoint_info import TopicEndpointInfo


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. level: ok, warning or fault; remedy: "" where all is well."""

    level: str
    subject: str
    found: str
    remedy: str = ""


def absolute(name: str) -> str:
    """A node's name with its namespace, such as /policy or /left/policy."""
    return "/" + name.strip("/")


def full_name(endpoint: TopicEndpointInfo) -> str:
    """The name of the node that publishes or subscribes, with its namespace."""
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def type_name(kind: type) -> str:
    """A message class's ROS name, such as std_msgs/msg/Float64."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
