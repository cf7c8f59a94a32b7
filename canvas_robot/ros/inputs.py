"""Inputs: the subscriptions that a binding declares, decoded into samples of its signals."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image, JointState

from canvas_robot.kinematics.arm import Arm
from canvas_robot.ros.control import ControlLoop
from canvas_robot.ros.fields import FieldReader
from canvas_robot.ros.images import image_from_compressed_msg, image_from_msg
from canvas_robot.ros.joining import Joining
from canvas_robot.ros.messages import (
    MessageError,
    joints_from_msg,
    pose_from_msg,
    stamp_ns,
)
from canvas_robot.ros.picture_watch import PictureWatch
from canvas_robot.ros.polled import Polled
from canvas_robot.ros.qos import INPUT_OVERRIDES
from canvas_robot.ros.qos_watch import QosWatch
from canvas_robot.ros.serialized import JointsReader, ReadJoints, read_image
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals.binding import (
    Binding,
    BindingError,
    RosFields,
    RosImage,
    RosJoined,
    RosJoints,
    RosPose,
    RosSource,
)
from canvas_robot.signals.pose import bridge_state_from_pose

# Best effort, so that a publisher of either reliability is heard; deep enough for a burst.
VECTOR_QOS = QoSProfile(depth=50, reliability=qos_profile_sensor_data.reliability)
NEWEST_QOS = QoSProfile(depth=1, reliability=qos_profile_sensor_data.reliability)
_PICTURES_EVERY_S = 0.25  # so often at least, that their age is known
_OVER_LIMIT_RAD = 0.2
# Between two messages a joint turns no further than this, and this many times what its limit of
# speed allows: stamps are not exact, and a hand may lead it.
_AT_ONCE_RAD, _TIMES_THE_LIMIT = 0.1, 2.0
_TOLD = 1000  # characters of a fault: a message may hold thousands of names
_GRIPPER_KEPT_NS = 10_000_000_000  # a gripper may say seldom where it is
_LONGEST_WAIT_NS = 1_000_000_000  # that a message is believed to have waited


@dataclass(eq=False)
class _Receiver:
    signal: str
    subscription: Subscription
    receive: Callable
    watch: QosWatch
    newest_only: bool
    number: int = 0  # that its publisher gave to the newest message

    def skipped(self, info: dict) -> int:
        """How many messages a newly taken one passed over; a publisher that restarts counts anew.

        0 where the middleware does not number them, and where several publishers each count theirs.
        """
        number, before = info.get("publication_sequence_number") or 0, self.number
        self.number = number
        passed = number - before - 1 if number > before > 0 else 0
        if passed and self.subscription.get_publisher_count() > 1:
            return 0
        return passed


class Inputs:
    """Subscriptions of one active period. `poll` takes what has come; `close` destroys them.

    Taking a picture costs half a millisecond. Where only the newest counts, most of those that no
    tick will see are not taken.

    Args:
        node: owns the subscriptions.
        binding: its sources.ros says what to subscribe to.
        arm: forward kinematics for joint states.
        loop: receives samples, faults and silences.
        image_transport: "raw" or "compressed", of cameras whose source says neither.
        strained: called with what is wrong where a joint's effort is above the binding's limit.
        newest_only: signals of pictures of which no tick looks back at older ones.
    """

    def __init__(
        self,
        node: LifecycleNode,
        binding: Binding,
        arm: Arm,
        loop: ControlLoop,
        image_transport: str,
        strained: Callable[[str], None] = lambda detail: None,
        newest_only: frozenset[str] = frozenset(),
    ) -> None:
        self.joints: np.ndarray | None = None  # newest measured, arm (rad) then finger (m)
        self._node, self._arm, self._loop = node, arm, loop
        self._effort_limit = binding.robot.effort_limit if binding.robot is not None else None
        self._joint_speed = binding.robot.joint_speed_limit if binding.robot is not None else np.inf
        self._strained, self._newest_only = strained, newest_only
        self._lock = threading.Lock()
        self._group = Polled()
        self._pictures_s = 0.0  # when they were last taken
        self._receivers: list[_Receiver] = []
        try:
            for signal, source in binding.sources.ros.items():
                self._subscribe(signal, source, binding, image_transport)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        with self._lock:
            for receiver in self._receivers:
                receiver.watch.close()
                self._node.destroy_subscription(receiver.subscription)
            self._receivers = []

    def poll(self, pictures: bool = True) -> None:
        """Takes the messages that have come, and what the middleware says of them. Any thread.

        pictures: False leaves those of which only the newest counts, where some were taken lately.
        """
        with self._lock:
            now_s = time.monotonic()
            pictures = pictures or now_s - self._pictures_s > _PICTURES_EVERY_S
            if pictures:
                self._pictures_s = now_s
            for receiver in self._receivers:
                if receiver.newest_only and not pictures:
                    continue
                subscription, came = receiver.subscription, False
                with subscription.handle:
                    kind, raw = subscription.msg_type, subscription.raw
                    while taken := subscription.handle.take_message(kind, raw):
                        msg, info = taken
                        if passed := receiver.skipped(info):
                            self._loop.skipped(receiver.signal, passed)
                        receiver.receive(msg, _waited_ns(info))
                        came = True
                receiver.watch.look(came)

    def _subscribe(self, signal: str, source: RosSource, binding: Binding, transport: str) -> None:
        if isinstance(source, RosImage):
            sizes = binding.signals[signal].sizes
            self._subscribe_image(signal, source, transport, max(h * w for h, w in sizes))
        elif isinstance(source, RosJoints):
            self._subscribe_joints(signal, source)
        elif isinstance(source, RosFields):
            self._subscribe_fields(signal, source)
        elif isinstance(source, RosJoined):
            self._subscribe_joined(signal, source, binding.signals[signal].max_age_s)
        else:
            max_age_s = binding.signals[signal].max_age_s
            self._subscribe_pose(signal, source, binding.robot.base_frame, max_age_s)

    def _subscribe_image(
        self, signal: str, source: RosImage, transport: str, max_pixels: int
    ) -> None:
        watch = PictureWatch(source)

        def sampled(image: np.ndarray, stamp: int, waited_ns: int) -> None:
            watch.look(image, stamp)
            self._loop.sample(signal, stamp, image, waited_ns)

        def raw(serialized: bytes, waited_ns: int) -> None:
            msg = read_image(serialized)
            image = image_from_msg(msg, source.depth)
            sampled(image, self._stamp_ns(source, msg, waited_ns), waited_ns)

        def compressed(msg: CompressedImage, waited_ns: int) -> None:
            image = image_from_compressed_msg(msg, max_pixels)
            sampled(image, self._stamp_ns(source, msg, waited_ns), waited_ns)

        qos = NEWEST_QOS if signal in self._newest_only else qos_profile_sensor_data
        if (source.transport or transport) == "compressed" and source.depth is None:
            topic = f"{source.topic}/compressed"
            self._add(CompressedImage, topic, signal, compressed, qos)
        else:
            self._add(Image, source.topic, signal, raw, qos, serialized=True)

    def _subscribe_joints(self, signal: str, source: RosJoints) -> None:
        names, reader = (*source.joints, source.finger), JointsReader()
        said: tuple[int, np.ndarray] | None = None  # by the message before, believed or not

        def receive(serialized: bytes, waited_ns: int) -> None:
            nonlocal said
            msg = reader.read(serialized)
            positions = joints_from_msg(msg, names)
            if self._effort_limit is not None:
                self._look_at_efforts(msg, source.joints)
            self._look_at_limits(source.joints, positions[:-1])
            stamp = self._stamp_ns(source, msg, waited_ns)
            before, said = said, (stamp, positions)
            if before is not None:
                seconds = max(stamp - before[0], 0) / 1e9
                self._look_at_speeds(source.joints, (positions - before[1])[:-1], seconds)
            state = self._arm.measured_state(positions[:-1], float(positions[-1]))
            if self._loop.sample(signal, stamp, state, waited_ns):
                self.joints = positions

        self._add(JointState, source.topic, signal, receive, VECTOR_QOS, serialized=True)

    def _look_at_limits(self, names: tuple[str, ...], positions: np.ndarray) -> None:
        """A joint far outside its limits is one whose zero was lost, by a whole turn perhaps."""
        over = np.maximum(self._arm.lower - positions, positions - self._arm.upper)
        worst = int(np.argmax(over))
        if over[worst] > _OVER_LIMIT_RAD:
            raise MessageError(
                f"JointState: expected {names[worst]} from {self._arm.lower[worst]:.2f} to "
                f"{self._arm.upper[worst]:.2f} rad, the limits of the arm's model, or "
                f"{_OVER_LIMIT_RAD} further, got {positions[worst]:.3g}; set the joint's zero anew"
            )

    def _look_at_speeds(self, names: tuple[str, ...], moved: np.ndarray, seconds: float) -> None:
        """A joint that is elsewhere at once was not there: a wrong reading, or two publishers."""
        most = _AT_ONCE_RAD + _TIMES_THE_LIMIT * self._joint_speed * seconds
        worst = int(np.argmax(np.abs(moved)))
        if abs(moved[worst]) > most:
            raise MessageError(
                f"JointState: expected {names[worst]} at most {most:.2f} rad from where it was "
                f"{seconds:.3f} s before, got {moved[worst]:.2f} rad; see its encoder, and whether "
                f"two publish"
            )

    def _look_at_efforts(self, msg: JointState | ReadJoints, names: tuple[str, ...]) -> None:
        above = {
            name: effort
            for name, effort in zip(msg.name, msg.effort, strict=False)
            if name in names and not abs(effort) <= self._effort_limit
        }
        if above:
            told = ", ".join(f"{name} {effort:.2f}" for name, effort in above.items())
            self._strained(
                f"effort of {told} N m, expected at most {self._effort_limit}; free the arm, then "
                f"~/start goes on"
            )

    def _subscribe_fields(self, signal: str, source: RosFields) -> None:
        reader = FieldReader(source)

        def receive(msg, waited_ns: int) -> None:
            stamp = self._stamp_ns(source, msg, waited_ns)
            self._loop.sample(signal, stamp, np.float32(reader.read(msg)), waited_ns)

        self._add(reader.message, source.topic, signal, receive, VECTOR_QOS)

    def _subscribe_joined(self, signal: str, source: RosJoined, max_age_s: float) -> None:
        topics = [part.topic for part in source.parts]

        def complete(stamp: int, parts: list[tuple[int, tuple[np.ndarray, int]]]) -> None:
            for topic, (at, _) in zip(topics, parts, strict=True):
                if (apart_s := (stamp - at) / 1e9) > max_age_s:
                    self._loop.fault(
                        signal,
                        f"{topics[0]}: expected a sample of {topic} within {max_age_s} s before "
                        f"its own, got one {apart_s:.3f} s before; see its rate and its clock",
                    )
                    return
            values, came_ns = zip(*(sample for _, sample in parts), strict=True)
            waited_ns = time.monotonic_ns() - came_ns[0]  # since the one came whose stamp it has
            self._loop.sample(signal, stamp, np.float32(np.concatenate(values)), waited_ns)

        joining = Joining(len(topics), 2 * round(max_age_s * 1e9), complete)
        for index, part in enumerate(source.parts):
            reader = FieldReader(part)

            def receive(msg, waited_ns: int, index=index, part=part, reader=reader) -> None:
                came_ns = time.monotonic_ns() - waited_ns
                stamp = self._stamp_ns(part, msg, waited_ns)
                joining.take(index, stamp, (reader.read(msg), came_ns))

            self._add(reader.message, part.topic, signal, receive, VECTOR_QOS)

    def _stamp_ns(self, source: RosImage | RosJoints | RosFields, msg, waited_ns: int) -> int:
        """Of a message: its header's, or when it came, on the robot's clock."""
        header = getattr(msg, "header", None)
        if header is not None and source.stamp == "header":
            return stamp_ns(header.stamp)
        return self._node.get_clock().now().nanoseconds - waited_ns

    def _subscribe_pose(
        self, signal: str, source: RosPose, base_frame: str, max_age_s: float
    ) -> None:
        def complete(stamp: int, parts: list[tuple[int, Any]]) -> None:
            (_, pose), (_, gripper) = parts
            self._loop.sample(signal, stamp, bridge_state_from_pose(pose, gripper))

        joining = Joining(2, max(_GRIPPER_KEPT_NS, 2 * round(max_age_s * 1e9)), complete)

        def receive_pose(msg: PoseStamped, waited_ns: int) -> None:
            if msg.header.frame_id != base_frame:
                raise MessageError(
                    f"PoseStamped: expected frame_id {base_frame!r}, got {msg.header.frame_id!r}"
                )
            joining.take(0, stamp_ns(msg.header.stamp), pose_from_msg(msg))

        def receive_gripper(msg: JointState, waited_ns: int) -> None:
            gripper = float(joints_from_msg(msg, (source.gripper,))[0])
            joining.take(1, stamp_ns(msg.header.stamp), gripper)

        self._add(PoseStamped, source.topic, signal, receive_pose, VECTOR_QOS)
        self._add(JointState, source.gripper_topic, signal, receive_gripper, VECTOR_QOS)

    def _add(
        self, msg_type, topic: str, signal: str, receive: Callable, qos, serialized: bool = False
    ) -> None:
        """serialized: `receive` is given the bytes of the message."""

        def guarded(msg, waited_ns: int) -> None:
            try:
                receive(msg, waited_ns)
            except ValueError as error:
                self._loop.fault(signal, f"{topic}: {error}"[:_TOLD])

        subscription = self._node.create_subscription(
            msg_type,
            topic,
            lambda msg: guarded(msg, 0),
            copy.copy(qos),  # rclpy writes what is overridden into it
            callback_group=self._group,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),  # see QosWatch
            qos_overriding_options=INPUT_OVERRIDES,
            raw=serialized,
        )
        watch = QosWatch(subscription, signal, self._loop)
        newest_only = signal in self._newest_only
        self._receivers.append(_Receiver(signal, subscription, guarded, watch, newest_only))


def _waited_ns(info: dict) -> int:
    """How long a message lay until it was taken; 0 where the middleware does not say."""
    received_ns = info.get("received_timestamp") or 0
    waited_ns = time.time_ns() - received_ns if received_ns else 0
    return min(max(waited_ns, 0), _LONGEST_WAIT_NS)


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
        if isinstance(source, RosJoints):
            _check_joints(signal, source.joints, arm.joint_names)
        for part in source.parts if isinstance(source, RosJoined) else (source,):
            if isinstance(part, RosFields):
                FieldReader(part)


def _check_joints(signal: str, heard: tuple[str, ...], of_arm: tuple[str, ...]) -> None:
    """A driver may have other names for the joints; those of the model must be in its order."""
    places = zip(heard, of_arm, strict=False)
    moved = [name for name, own in places if name != own and name in of_arm]
    if not len(heard) == len(set(heard)) == len(of_arm) or moved:
        raise BindingError(
            f"sources.ros.{signal}: expected {len(of_arm)} different joints, base to wrist "
            f"{list(of_arm)}, got {list(heard)}"
        )


def newest_only(binding: Binding, schema: CanvasSchema, simulated: bool) -> frozenset[str]:
    """The signals of pictures of which only the newest counts: every region shows one frame.

    simulated: time comes in steps. The newest may then be stamped after the tick that looks for one
    at or before it, and counts for nothing: there are none.
    """
    if simulated:
        return frozenset()
    frames: dict[str, int] = {}
    for region in binding.regions_by_codec("visual"):
        signal = binding.regions[region].signal
        if region not in binding.future_regions(schema):
            count = schema.layout.region_spec(region).size[0]
            frames[signal] = max(frames.get(signal, 0), count)
    return frozenset(signal for signal, count in frames.items() if count == 1)
