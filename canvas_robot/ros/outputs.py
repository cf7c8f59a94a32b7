"""Outputs: the command and status topics of the policy node."""

from __future__ import annotations

import copy
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import LivelinessPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from canvas_robot.kinematics.limiter import SetPoint
from canvas_robot.kinematics.rule import Command
from canvas_robot.ros.drivers import Drivers
from canvas_robot.ros.images import image_to_msg
from canvas_robot.ros.messages import chunk_to_msg, trajectory_to_msg
from canvas_robot.ros.qos import OUTPUT_OVERRIDES
from canvas_robot.ros.serialized import CommandMessages

COMMAND_QOS = QoSProfile(depth=1)  # reliable, volatile
BEAT_S, LEASE_S = 0.25, 1.0  # who asks for the lease knows within it of a node that has stopped
STATUS_QOS = QoSProfile(
    depth=50,
    liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
    liveliness_lease_duration=Duration(seconds=LEASE_S),
)


class Outputs:
    """Publishers of one configured period. `close` destroys them. Commands: one thread at a time.

    Args:
        node: owns the publishers.
        frame_id: that commanded poses and speeds are given in.
        dry_run: poses go to ~/proposed, and nothing to the topics that arms obey.
        joints: names of the arm's joints and of the finger, where trajectories of them are asked
            for.
        positions: joint positions without names are asked for.
        drivers: what is commanded beside the node's own topics; they outlive this.
    """

    def __init__(
        self,
        node: LifecycleNode,
        frame_id: str,
        dry_run: bool,
        joints: tuple[tuple[str, ...], str] | None,
        positions: bool,
        drivers: Drivers,
    ) -> None:
        self._node, self._frame_id, self._drivers = node, frame_id, drivers
        self._beat_s = 0.0  # when the last one was
        self._messages = CommandMessages(frame_id)

        def make(msg_type: type, topic: str, qos: QoSProfile):
            return node.create_lifecycle_publisher(
                msg_type,
                topic,
                copy.copy(qos),  # rclpy writes what is overridden into it
                qos_overriding_options=OUTPUT_OVERRIDES,
            )

        pose_topic = "~/proposed" if dry_run else "~/target_pose"
        self._pose = make(PoseStamped, pose_topic, COMMAND_QOS)
        self._twist = None if dry_run else make(TwistStamped, "~/target_twist", COMMAND_QOS)
        self._gripper = None if dry_run else make(Float64, "~/gripper", COMMAND_QOS)
        self._joints = self._finger = None
        if joints is not None and not dry_run:
            self._joint_names, self._finger_name = joints
            self._joints = make(JointTrajectory, "~/joint_trajectory", COMMAND_QOS)
            self._finger = make(JointTrajectory, "~/gripper_trajectory", COMMAND_QOS)
        self._joint_positions = self._finger_position = None
        if positions and not dry_run:
            self._joint_positions = make(Float64MultiArray, "~/joint_positions", COMMAND_QOS)
            self._finger_position = make(Float64MultiArray, "~/gripper_position", COMMAND_QOS)
        self._chunk = make(Float64MultiArray, "~/action_chunk", QoSProfile(depth=10))
        self._canvas_image = make(Image, "~/canvas_image", QoSProfile(depth=1))
        self._status = make(DiagnosticStatus, "~/status", STATUS_QOS)
        self._diagnostics = make(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))

    def activate(self) -> None:
        """For publishers that are made while the node is active; else activation does it."""
        for publisher in (*self._own(), *self._drivers.publishers):
            publisher.on_activate(None)

    def _own(self) -> list:
        told = [self._chunk, self._canvas_image, self._status, self._diagnostics]
        return [*self._commands(), *told]

    def close(self) -> None:
        for publisher in self._own():
            self._node.destroy_lifecycle_publisher(publisher)

    def hold(self, command: Command, stamp_ns: int) -> None:
        """Commands a pose to stay at, and no speed."""
        still = SetPoint(command.target, np.zeros(3), np.zeros(3))
        self.move(still, command.gripper, stamp_ns)

    def halt(self, stamp_ns: int) -> None:
        """Commands no speed, where nobody knows a pose to stay at."""
        self._speed(np.zeros(3), np.zeros(3), stamp_ns)

    def move_joints(self, joints: np.ndarray, stamp_ns: int, seconds: float) -> None:
        """Commands the arm's joints (rad) and the finger (m), (7,), to be there in `seconds`."""
        if self._joints is not None:
            names, finger = self._joint_names, (self._finger_name,)
            self._joints.publish(trajectory_to_msg(names, joints[:-1], stamp_ns, seconds))
            self._finger.publish(trajectory_to_msg(finger, joints[-1:], stamp_ns, seconds))
        if self._joint_positions is not None:
            self._joint_positions.publish(Float64MultiArray(data=joints[:-1].tolist()))
            self._finger_position.publish(Float64MultiArray(data=joints[-1:].tolist()))
        self._drivers.move_joints(joints[:-1])

    def chunk(self, rows: np.ndarray) -> None:
        """Tells a decision's whole action chunk (horizon, size)."""
        self._chunk.publish(chunk_to_msg(rows))

    @property
    def canvas_watched(self) -> bool:
        """Whether somebody subscribes to the picture of decisions."""
        return self._canvas_image.get_subscription_count() > 0

    def canvas_image(self, image: np.ndarray, stamp_ns: int) -> None:
        """Shows a decision as a picture, (H, W, 3) uint8 RGB."""
        self._canvas_image.publish(image_to_msg(image, stamp_ns, self._frame_id))

    def status(self, msg: DiagnosticStatus) -> None:
        self._status.publish(msg)

    def beat(self) -> None:
        """Lets ~/status live on where there is nothing to tell; for the thread that commands."""
        now_s = time.monotonic()
        if now_s - self._beat_s >= BEAT_S:
            self._beat_s = now_s
            self._status.assert_liveliness()

    def diagnostics(self, msg: DiagnosticArray) -> None:
        self._diagnostics.publish(msg)

    def rivals(self) -> list[str]:
        """Command topics that somebody else publishes too."""
        commands = (*self._commands(), *self._drivers.publishers)
        topics = [publisher.topic_name for publisher in commands]
        published = [topic for topic in topics if self._node.count_publishers(topic) > 1]
        return [*published, *self._drivers.rivals()]

    def _commands(self) -> list:
        poses = (self._pose, self._twist, self._gripper)
        joints = (self._joints, self._finger, self._joint_positions, self._finger_position)
        return [publisher for publisher in (*poses, *joints) if publisher is not None]

    def move(self, set_point: SetPoint, gripper: float, stamp_ns: int) -> None:
        """Commands a set-point on its way."""
        self._drivers.open_to(gripper, stamp_ns)
        if self._gripper is not None:
            self._gripper.publish(self._messages.gripper(gripper))
        self._pose.publish(self._messages.pose(set_point.pose, stamp_ns))
        self._speed(set_point.linear, set_point.angular, stamp_ns)

    def _speed(self, linear: np.ndarray, angular: np.ndarray, stamp_ns: int) -> None:
        if self._twist is not None:
            self._twist.publish(self._messages.twist(linear, angular, stamp_ns))
