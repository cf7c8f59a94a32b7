"""Messages as they go over the wire, where making Python's objects of them takes too long.

rclpy turns a message into Python's attribute by attribute. Right after the model has emptied the
processor's caches, publishing a pose takes 90 us so and 13 us serialized; taking a joint state 270
us and 180; taking a picture of 640x480 0.60 ms and 0.46. Reading it by rosbags takes as long as by
rclpy: it copies the picture once more.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64

from canvas_robot.ros.messages import MessageError, pose_to_msg, stamp_ns, twist_to_msg
from canvas_robot.signals.pose import Pose, matrix_from_rpy, quaternion_from_matrix

_HEAD_BYTES = 4
_PLAIN = b"\x00\x01"  # how the head of little-endian CDR begins; all else is read as rclpy reads it
_STAMP = struct.Struct("<iI")
_STAMPED = 4_000_000_005  # ns, of an example
_SIZE, _COUNT = struct.Struct("<II"), struct.Struct("<I")


@final
class Template:
    """Messages of one type and frame, of which only stamp and numbers change.

    The numbers are float64 and the last fields of the message.

    Args:
        example: such a message; where it has a header, its stamp comes first. What it holds must
            not be 0, so that it is seen where that lies.
        numbers: those of the example, in the order of the message's fields.
    Raises:
        ValueError: the middleware lays the message out in another way.
    """

    def __init__(self, example: object, numbers: Sequence[float]) -> None:
        serialized = serialize_message(example)
        self._bytes = bytearray(serialized)
        self._numbers = struct.Struct(f"<{len(numbers)}d")
        self._start = len(serialized) - self._numbers.size
        self._is_stamped = hasattr(example, "header")
        stamp = stamp_ns(example.header.stamp) if self._is_stamped else 0
        if self._start < _HEAD_BYTES or self.filled(stamp, *numbers) != serialized:
            raise ValueError(
                f"{type(example).__name__}: expected the middleware to serialize it as little-"
                f"endian CDR with its {len(numbers)} numbers last, got {serialized.hex()}"
            )

    def filled(self, stamp: int, *numbers: float) -> bytes:
        """The message, serialized, with this stamp (ns) and these numbers."""
        if self._is_stamped:
            _STAMP.pack_into(self._bytes, _HEAD_BYTES, *divmod(stamp, 1_000_000_000))
        self._numbers.pack_into(self._bytes, self._start, *numbers)
        return bytes(self._bytes)


@final
class CommandMessages:
    """Poses and speeds in one frame, and the gripper's opening, serialized. For one thread."""

    def __init__(self, frame_id: str) -> None:
        place, turn = np.array([1.0, 2.0, 3.0]), matrix_from_rpy(np.array([0.1, 0.2, 0.3]))
        pose = pose_to_msg(Pose(place, turn), _STAMPED, frame_id)
        self._pose = Template(pose, (*place, *quaternion_from_matrix(turn)))
        twist = twist_to_msg(place, -place, _STAMPED, frame_id)
        self._twist = Template(twist, (*place, *-place))
        self._gripper = Template(Float64(data=0.5), (0.5,))

    def pose(self, pose: Pose, stamp: int) -> bytes:
        """As `pose_to_msg`."""
        turn = quaternion_from_matrix(pose.rotation).tolist()
        return self._pose.filled(stamp, *pose.position.tolist(), *turn)

    def twist(self, linear: np.ndarray, angular: np.ndarray, stamp: int) -> bytes:
        """As `twist_to_msg`."""
        return self._twist.filled(stamp, *linear.tolist(), *angular.tolist())

    def gripper(self, share: float) -> bytes:
        """A Float64."""
        return self._gripper.filled(0, share)


class ReadStamp(NamedTuple):
    """As builtin_interfaces/Time."""

    sec: int
    nanosec: int


class ReadHeader(NamedTuple):
    """As std_msgs/Header, without its frame."""

    stamp: ReadStamp


class ReadImage(NamedTuple):
    """As sensor_msgs/Image; `data` is not copied."""

    header: ReadHeader
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


class ReadJoints(NamedTuple):
    """As sensor_msgs/JointState, without its velocities."""

    header: ReadHeader
    name: tuple[str, ...]
    position: tuple[float, ...]
    effort: tuple[float, ...]


def read_image(serialized: bytes) -> ReadImage | Image:
    """An image; raises MessageError for what is none."""
    if serialized[:2] != _PLAIN:
        return _read_otherwise(serialized, Image)
    try:
        header, at = _header(serialized)
        at += -at % 4
        height, width = _SIZE.unpack_from(serialized, at)
        encoding, at = _text(serialized, at + 8)
        is_bigendian = serialized[at]
        at += 1 + -(at + 1) % 4
        step, count = _SIZE.unpack_from(serialized, at)
        data = memoryview(serialized)[at + 8 : at + 8 + count]
    except (struct.error, IndexError) as error:
        raise MessageError(f"Image: expected a whole message, got {error}") from error
    if len(data) != count:
        raise MessageError(f"Image: expected {count} bytes of data, the message has {len(data)}")
    return ReadImage(header, height, width, encoding, is_bigendian, step, data)


@final
class JointsReader:
    """Reads joint states of one topic: their names are mostly the same as the last time."""

    def __init__(self) -> None:
        self._known, self._names = b"", ()  # all up to the end of the names, but for the stamp

    def read(self, serialized: bytes) -> ReadJoints | JointState:
        """A joint state; raises MessageError for what is none."""
        if serialized[:2] != _PLAIN:
            return _read_otherwise(serialized, JointState)
        start = _HEAD_BYTES + _STAMP.size
        end = start + len(self._known)
        try:
            if not self._known or serialized[start:end] != self._known:
                self._names, end = _texts(serialized, _header(serialized)[1])
                self._known = serialized[start:end]
            stamp = ReadStamp(*_STAMP.unpack_from(serialized, _HEAD_BYTES))
            position, at = _numbers(serialized, end)
            _, at = _numbers(serialized, at)
            effort, at = _numbers(serialized, at)
        except struct.error as error:
            self._known = b""
            raise MessageError(f"JointState: expected a whole message, got {error}") from error
        return ReadJoints(ReadHeader(stamp), self._names, position, effort)


def _read_otherwise(serialized: bytes, kind: type) -> object:
    """Of another representation, such as a big-endian machine's."""
    try:
        return deserialize_message(serialized, kind)
    except Exception as error:  # a middleware may raise anything
        raise MessageError(f"{kind.__name__}: expected a message, got {error}") from error


# Places are counted with the head, whose four bytes the standard does not count: 8 there is 4 here.


def _header(serialized: bytes) -> tuple[ReadHeader, int]:
    """The header, and where it ends."""
    stamp = ReadStamp(*_STAMP.unpack_from(serialized, _HEAD_BYTES))
    (length,) = _COUNT.unpack_from(serialized, _HEAD_BYTES + _STAMP.size)
    return ReadHeader(stamp), _HEAD_BYTES + _STAMP.size + _COUNT.size + length


def _text(serialized: bytes, at: int) -> tuple[str, int]:
    """The text at a place, up to its zero byte as rclpy reads it, and where it ends."""
    at += -at % 4
    (length,) = _COUNT.unpack_from(serialized, at)
    start, end = at + 4, at + 4 + length
    if end > len(serialized):
        raise struct.error(f"a text of {length:,} bytes that ends beyond it")
    return serialized[start:end].partition(b"\0")[0].decode(errors="replace"), end


def _texts(serialized: bytes, at: int) -> tuple[tuple[str, ...], int]:
    at += -at % 4
    (count,) = _COUNT.unpack_from(serialized, at)
    at, texts = at + 4, []
    for _ in range(count):
        text, at = _text(serialized, at)
        texts.append(text)
    return tuple(texts), at


def _numbers(serialized: bytes, at: int) -> tuple[tuple[float, ...], int]:
    """The sequence of float64 at a place, and where it ends."""
    at += -at % 4
    (count,) = _COUNT.unpack_from(serialized, at)
    at += 4
    if not count:
        return (), at
    at += -(at - 4) % 8
    if at + 8 * count > len(serialized):
        raise struct.error(f"a sequence of {count:,} numbers that ends beyond it")
    return struct.unpack_from(f"<{count}d", serialized, at), at + 8 * count
