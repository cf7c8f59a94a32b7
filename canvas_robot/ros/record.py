"""Recorder: what goes into the policy node and what comes out, as an MCAP bag (rosbag2)."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64, Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from canvas_robot.ros.definitions import add_type, kind_of
from canvas_robot.ros.fields import message_class
from canvas_robot.ros.findings import absolute
from canvas_robot.ros.inputs import Inputs
from canvas_robot.ros.listener import Listener, remapping_arguments
from canvas_robot.signals import Binding

OUTPUTS = {
    "target_pose": PoseStamped,
    "target_twist": TwistStamped,
    "proposed": PoseStamped,
    "gripper": Float64,
    "joint_trajectory": JointTrajectory,
    "gripper_trajectory": JointTrajectory,
    "joint_positions": Float64MultiArray,
    "gripper_position": Float64MultiArray,
    "action_chunk": Float64MultiArray,
    "status": DiagnosticStatus,
    "instruction": String,
}
DISCOVERY_S = 5.0  # in which a publisher is found
LEAST_FREE_BYTES = 1 << 30  # of the disk; a recorder stops rather than fill it
# Best effort, so that every publisher is heard; deep, for a disk that is slow now and then.
_QOS = QoSProfile(depth=100, reliability=qos_profile_sensor_data.reliability)
_LATCHED_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class RecordError(RuntimeError):
    """A bag cannot be written."""


class _Topics:
    """Stands in for a node where `Inputs` subscribes: notes what it would hear."""

    def __init__(self) -> None:
        self.types: dict[str, type] = {}

    def create_subscription(self, msg_type: type, topic: str, callback, qos, **options) -> None:
        self.types[topic] = msg_type

    def get_clock(self) -> None:
        return None


def input_topics(binding: Binding, image_transport: str) -> dict[str, type]:
    """Message types by topic that a node with this binding listens to."""
    topics = _Topics()
    Inputs(topics, binding, None, None, image_transport)
    return topics.types


@final
class Recorder:
    """Records until closed. `spin_for` lets messages in.

    Topics are in the bag under the names that the binding gives them, whatever they are remapped
    to: so the bag plays to a node that is not remapped.

    Args:
        folder: of the bag; must not exist yet.
        binding: of the node, for its inputs.
        image_transport: as the node's parameter.
        name: of the node, with its namespace, in which relative topics of the binding are.
        domain_id: ROS domain.
        remap: the node's own rules, such as joint_states:=/wx250s/joint_states.
        about: what the bag's metadata.yaml is to say of it, by name, as `custom_data`.
        topics: that are recorded, too, such as /tf, whatever their types are.
    Raises:
        RecordError: the folder exists, or nobody publishes one of `topics`.
        BindingError: the messages of one of `topics` are not installed.
        DefinitionError: messages of a topic cannot be written.
        ValueError: a rule is none.
    """

    def __init__(
        self,
        folder: Path,
        binding: Binding,
        image_transport: str,
        name: str,
        domain_id: int,
        remap: Sequence[str] = (),
        about: Mapping[str, str] | None = None,
        topics: Sequence[str] = (),
    ) -> None:
        if folder.exists():
            raise RecordError(f"{folder}: exists already; name another folder")
        self.folder, self.counts, self.bytes = folder, Counter(), 0
        self._latched: set[str] = set()  # topics of which what was said before counts
        name = absolute(name)
        arguments = remapping_arguments(remap, name)
        inputs = input_topics(binding, image_transport)
        types = {
            **inputs,
            **{f"{name}/{topic}": msg_type for topic, msg_type in OUTPUTS.items()},
            "/diagnostics": DiagnosticArray,
            "/clock": Clock,
        }
        namespace = name.rpartition("/")[0]
        self._listener = Listener(
            "canvas_robot_recorder", domain_id, namespace=namespace, arguments=arguments
        )
        typestore = get_typestore(Stores.ROS2_JAZZY)
        try:
            types |= {topic: self._type_of(topic) for topic in topics}
            for msg_type in types.values():
                add_type(typestore, msg_type)
        except Exception:
            self._listener.close()
            raise
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        for key, value in (about or {}).items():
            self._writer.set_custom_data(key, value)
        self._writer.open()
        for topic, msg_type in types.items():
            self._subscribe(topic, msg_type, typestore)
        self._awaited = sorted({self._full_name(topic) for topic in (*inputs, *topics)})

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @property
    def topics(self) -> list[str]:
        """Those that are listened to."""
        return sorted(connection.topic for connection in self._writer.connections)

    def close(self) -> None:
        self._listener.close()
        self._writer.close()

    def left_out(self) -> str:
        """Of a closed bag that nothing came to, which is removed: why. "" where something came."""
        if self.counts:
            return ""
        shutil.rmtree(self.folder)
        return f"nothing came of {', '.join(self.topics)}, and no bag is left"

    def unheard(self) -> list[str]:
        """Inputs of the binding, and topics that were asked for beside, of which nothing came."""
        return [topic for topic in self._awaited if not self.counts[topic]]

    def _full_name(self, topic: str) -> str:
        """As the binding gives it, whatever it is remapped to."""
        return self._listener.node.resolve_topic_name(topic, only_expand=True)

    def spin_for(self, seconds: float) -> None:
        """Takes messages for so long. Raises RecordError where the disk is full."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._listener.spin_once(left)
        free = shutil.disk_usage(self.folder).free
        if free < LEAST_FREE_BYTES:
            raise RecordError(
                f"{self.folder}: stopped, {free / 1e9:.1f} GB of the disk are free, expected at "
                f"least {LEAST_FREE_BYTES / 1e9:.1f}; what came is in the bag. Make room, or "
                f"record elsewhere (--out)"
            )

    def _type_of(self, topic: str) -> type:
        """Of the messages on a topic, once somebody publishes it."""
        full_name = self._listener.node.resolve_topic_name(topic)
        until = time.monotonic() + DISCOVERY_S
        while time.monotonic() < until:
            for publisher in self._listener.node.get_publishers_info_by_topic(full_name):
                if publisher.qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL:
                    self._latched.add(topic)
                return message_class(publisher.topic_type)
            self._listener.spin_once(0.05)
        raise RecordError(
            f"{full_name}: expected somebody to publish it, got nobody in {DISCOVERY_S:g} s; start "
            f"its publisher first, or mend the name"
        )

    def _subscribe(self, topic: str, msg_type: type, typestore) -> None:
        full_name = self._full_name(topic)
        if full_name in {connection.topic for connection in self._writer.connections}:
            return  # asked for twice
        connection = self._writer.add_connection(full_name, kind_of(msg_type), typestore=typestore)

        def write(data: bytes) -> None:
            self._writer.write(connection, time.time_ns(), data)
            self.counts[full_name] += 1
            self.bytes += len(data)

        qos = _LATCHED_QOS if topic in self._latched else _QOS
        self._listener.node.create_subscription(msg_type, topic, write, qos, raw=True)
