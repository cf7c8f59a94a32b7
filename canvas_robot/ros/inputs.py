"""Inputs: the subscriptions that a binding declares, decoded into samples of its signals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, JointState

from canvas_robot.kinematics.arm import Arm
from canvas_robot.ros.control import ControlLoop
from canvas_robot.ros.fields import FieldReader
from canvas_robot.ros.images import image_from_compressed_msg, image_from_msg
from canvas_robot.ros.messages import (
    MessageError,
    joints_from_msg,
    pose_from_msg,
    stamp_ns,
)
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals.binding import (
    Binding,
    BindingError,
    RosFields,
    RosImage,
    RosJoints,
    RosPose,
    RosSource,
)
from canvas_robot.signals.pose import bridge_state_from_pose

# Best effort, so that a publisher of either reliability is heard; deep enough for a burst.
VECTOR_QOS = QoSProfile(depth=10, reliability=qos_profile_sensor_data.reliability)


class Inputs:
    """Subscriptions of one active period. `close` destroys them.

    Args:
        node: owns the subscriptions.
        binding: its sources.ros says what to subscribe to.
        arm: forward kinematics for joint states.
        loop: receives samples and faults.
        image_transport: "raw" or "compressed".
    """

    def __init__(
        self,
        node: LifecycleNode,
        binding: Binding,
        arm: Arm,
        loop: ControlLoop,
        image_transport: str,
    ) -> None:
        self.count = 0  # messages received, faulty ones included
        self.joints: np.ndarray | None = None  # newest measured, arm (rad) then finger (m)
        self._node, self._arm, self._loop = node, arm, loop
        self._subscriptions = []
        try:
            for signal, source in binding.sources.ros.items():
                self._subscribe(signal, source, binding, image_transport)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _subscribe(self, signal: str, source: RosSource, binding: Binding, transport: str) -> None:
        if isinstance(source, RosImage):
            self._subscribe_image(signal, source, transport)
        elif isinstance(source, RosJoints):
            self._subscribe_joints(signal, source)
        elif isinstance(source, RosFields):
            self._subscribe_fields(signal, source)
        else:
            self._subscribe_pose(signal, source, binding.robot.base_frame)

    def _subscribe_image(self, signal: str, source: RosImage, transport: str) -> None:
        def raw(msg: Image) -> None:
            self._loop.sample(signal, stamp_ns(msg.header.stamp), image_from_msg(msg, source.depth))

        def compressed(msg: CompressedImage) -> None:
            self._loop.sample(signal, stamp_ns(msg.header.stamp), image_from_compressed_msg(msg))

        if transport == "compressed" and source.depth is None:
            topic = f"{source.topic}/compressed"
            self._add(CompressedImage, topic, signal, compressed, qos_profile_sensor_data)
        else:
            self._add(Image, source.topic, signal, raw, qos_profile_sensor_data)

    def _subscribe_joints(self, signal: str, source: RosJoints) -> None:
        names = (*source.joints, source.finger)

        def receive(msg: JointState) -> None:
            positions = joints_from_msg(msg, names)
            self.joints = positions
            state = self._arm.measured_state(positions[:-1], float(positions[-1]))
            self._loop.sample(signal, stamp_ns(msg.header.stamp), state)

        self._add(JointState, source.topic, signal, receive, VECTOR_QOS)

    def _subscribe_fields(self, signal: str, source: RosFields) -> None:
        reader, clock = FieldReader(source), self._node.get_clock()

        def receive(msg) -> None:
            stamp = stamp_ns(msg.header.stamp) if reader.has_header else clock.now().nanoseconds
            self._loop.sample(signal, stamp, np.float32(reader.read(msg)))

        self._add(reader.message, source.topic, signal, receive, VECTOR_QOS)

    def _subscribe_pose(self, signal: str, source: RosPose, base_frame: str) -> None:
        pairing = PosePairing(lambda stamp, state: self._loop.sample(signal, stamp, state))

        def receive_pose(msg: PoseStamped) -> None:
            if msg.header.frame_id != base_frame:
                raise MessageError(
                    f"PoseStamped: expected frame_id {base_frame!r}, got {msg.header.frame_id!r}"
                )
            pairing.pose(stamp_ns(msg.header.stamp), pose_from_msg(msg))

        def receive_gripper(msg: JointState) -> None:
            pairing.gripper(
                stamp_ns(msg.header.stamp), float(joints_from_msg(msg, (source.gripper,))[0])
            )

        self._add(PoseStamped, source.topic, signal, receive_pose, VECTOR_QOS)
        self._add(JointState, source.gripper_topic, signal, receive_gripper, VECTOR_QOS)

    def _add(self, msg_type, topic: str, signal: str, receive: Callable, qos) -> None:
        def guarded(msg) -> None:
            self.count += 1
            try:
                receive(msg)
            except ValueError as error:
                self._loop.fault(signal, f"{topic}: {error}")

        self._subscriptions.append(self._node.create_subscription(msg_type, topic, guarded, qos))


def check_sources(binding: Binding, arm: Arm, schema: CanvasSchema) -> None:
    """Raises BindingError unless the ROS sources are just what the observed regions need."""
    observed = set(binding.observed_regions()) - binding.future_regions(schema)
    needed = {binding.regions[region].signal for region in observed}
    given = set(binding.sources.ros)
    if needed != given:
        raise BindingError(
            f"sources.ros: expected the signals of observed regions {sorted(needed)}, "
            f"got {sorted(given)}"
        )
    for signal, source in binding.sources.ros.items():
        if isinstance(source, RosJoints) and len(set(source.joints)) != len(arm.joint_names):
            raise BindingError(
                f"sources.ros.{signal}: expected {len(arm.joint_names)} different joints, "
                f"got {list(source.joints)}"
            )
        if isinstance(source, RosFields):
            FieldReader(source)


class PosePairing:
    """Joins poses with gripper positions by stamp, in whatever order they arrive.

    A pose is completed by the newest gripper sample at or before its stamp, once one at or after it
    has arrived; of equal stamps that is the one of the same stamp.
    """

    KEPT = 64

    def __init__(self, complete: Callable) -> None:
        self._complete = complete
        self._poses: list[tuple[int, object]] = []
        self._grippers: list[tuple[int, float]] = []

    def pose(self, stamp: int, pose) -> None:
        self._poses = [*self._poses, (stamp, pose)][-self.KEPT :]
        self._join()

    def gripper(self, stamp: int, value: float) -> None:
        self._grippers = [*self._grippers, (stamp, value)][-self.KEPT :]
        self._join()

    def _join(self) -> None:
        while self._poses and self._grippers and self._grippers[-1][0] >= self._poses[0][0]:
            stamp, pose = self._poses.pop(0)
            before = [value for at, value in self._grippers if at <= stamp]
            if before:
                self._complete(stamp, bridge_state_from_pose(pose, before[-1]))
