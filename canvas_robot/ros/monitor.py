"""Monitor: a node that listens to the policy's decisions and to the camera.

It is for live tables, reports and tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Float64

from canvas_robot.evaluation.run_report import TickRecord
from canvas_robot.ros.decisions import DECISION_STATUS
from canvas_robot.ros.images import image_from_msg
from canvas_robot.ros.listener import Listener
from canvas_robot.ros.messages import values_from_msg
from canvas_robot.ros.processes import adopt_node_environment


@dataclass(frozen=True, eq=False)
class Status:
    """One decision of ~/status, parsed. `values` is keyed as the node publishes them."""

    message: str
    values: dict
    received_s: float

    @property
    def active(self) -> bool:
        return self.values["state"] == "active"

    def record(self, started_s: float) -> TickRecord:
        """The tick as reports take it; stages that a hold did not reach are NaN."""
        v = self.values
        image_ns = v.get("image_stamp_ns", 0)
        nan = float("nan")
        return TickRecord(
            tick=v["index"],
            wall_s=self.received_s - started_s,
            image_stamp_ns=image_ns,
            command_stamp_ns=v["command_stamp_ns"],
            transport_ms=(v["image_arrival_ns"] - image_ns) / 1e6 if image_ns else nan,
            assembly_ms=v.get("assembly_ms", nan),
            model_ms=v.get("model_ms", nan),
            publish_ms=v["publish_ms"],
            total_ms=(v["command_stamp_ns"] - image_ns) / 1e6 + v["publish_ms"]
            if image_ns
            else nan,
            position=np.array(v.get("target", [nan] * 3)),
            gripper=v.get("gripper", nan),
            state=v["state"],
            reason=v["reason"],
        )


class Monitor:
    """Collects decisions, commands and pictures until closed.

    `spin_for` and `wait_for` let messages in.

    Args:
        domain_id: ROS domain to listen in.
        image_topic: camera to keep pictures of; none where None.
        name: of the policy node.
    """

    def __init__(
        self, domain_id: int, image_topic: str | None = None, name: str = "policy"
    ) -> None:
        adopt_node_environment()  # what it listens to is on this machine
        self._listener = Listener("canvas_robot_monitor", domain_id)
        self.node = self._listener.node
        self.statuses: list[Status] = []
        self.motions: list[dict] = []  # of each command its values on ~/status
        self.poses: list[PoseStamped] = []
        self.grippers: list[float] = []
        self.frames: list[tuple[float, np.ndarray]] = []
        deep = QoSProfile(depth=100)
        self.node.create_subscription(DiagnosticStatus, f"{name}/status", self._on_status, deep)
        self.node.create_subscription(PoseStamped, f"{name}/target_pose", self.poses.append, deep)
        self.node.create_subscription(
            Float64, f"{name}/gripper", lambda m: self.grippers.append(m.data), deep
        )
        if image_topic is not None:
            self.node.create_subscription(
                Image, image_topic, self._on_image, qos_profile_sensor_data
            )

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exception) -> None:
        self._listener.close()

    def spin_once(self, timeout_s: float = 0.1) -> None:
        """Takes one message, if one comes in time."""
        self._listener.spin_once(timeout_s)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Takes messages until the condition holds; False where it does not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() >= deadline:
                return False
            self.spin_once()
        return True

    def _on_status(self, msg: DiagnosticStatus) -> None:
        values = values_from_msg(msg)
        if msg.name == DECISION_STATUS:
            self.statuses.append(Status(msg.message, values, time.monotonic()))
        else:
            self.motions.append(values)

    def _on_image(self, msg: Image) -> None:
        self.frames.append((time.monotonic(), image_from_msg(msg)))
