"""Conversion between ROS messages and the package's values.

Each direction stands beside its inverse. No node here.
"""

from __future__ import annotations

import array
import io
import json
from collections.abc import Mapping

import cv2
import numpy as np
import PIL.Image
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CompressedImage, Image, JointState

from canvas_robot.signals.pose import Pose, matrix_from_quaternion, quaternion_from_matrix

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}
MAX_PIXELS = 3840 * 2160  # of an image from outside


class MessageError(ValueError):
    """A message cannot be converted."""


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds of a header's stamp."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def values_to_msg(values: Mapping[str, object]) -> list[KeyValue]:
    """A status's values: words as they are, all else as JSON; the inverse of `values_from_msg`."""
    return [
        KeyValue(key=key, value=value if isinstance(value, str) else json.dumps(value))
        for key, value in values.items()
    ]


def values_from_msg(msg: DiagnosticStatus) -> dict[str, object]:
    """What a status says, by key; what is no JSON is a word."""
    return {item.key: _parsed(item.value) for item in msg.values}


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def stamp_from_ns(ns: int) -> Time:
    """The inverse of `stamp_ns`."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def image_from_msg(msg: Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image; rows may be padded.

    Raises MessageError for an encoding that is not read, or a size that does not agree with the
    data.
    """
    channels = _CHANNELS.get(msg.encoding)
    if channels is None:
        raise MessageError(f"Image: expected encoding {', '.join(_CHANNELS)}, got {msg.encoding!r}")
    row = msg.width * channels
    if (
        not (0 < msg.width * msg.height <= MAX_PIXELS)
        or msg.step < row
        or len(msg.data) < msg.step * msg.height
    ):
        raise MessageError(
            f"Image: expected {msg.height} rows of at least {row} bytes, got step {msg.step} and "
            f"{len(msg.data)} bytes in all"
        )
    rows = np.frombuffer(msg.data, np.uint8, msg.step * msg.height).reshape(msg.height, msg.step)
    pixels = rows[:, :row].reshape(msg.height, msg.width, channels)
    return pixels if msg.encoding == "rgb8" else cv2.cvtColor(pixels, _TO_RGB[msg.encoding])


def image_to_msg(image: np.ndarray, stamp: int, frame_id: str) -> Image:
    """An rgb8 Image of (H, W, 3) uint8; the inverse of `image_from_msg`."""
    height, width, _ = image.shape
    msg = Image(height=height, width=width, encoding="rgb8", is_bigendian=0, step=width * 3)
    msg.header.stamp = stamp_from_ns(stamp)
    msg.header.frame_id = frame_id
    data = array.array("B")
    data.frombytes(
        memoryview(np.ascontiguousarray(image)).cast("B")
    )  # an ndarray here costs 42 ms at VGA
    msg.data = data
    return msg


def image_from_compressed_msg(msg: CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG or PNG; raises MessageError for bytes that are neither."""
    data = np.frombuffer(msg.data, np.uint8)
    try:
        with PIL.Image.open(io.BytesIO(msg.data)) as header:  # reads no pixels
            width, height = header.size
    except (OSError, PIL.Image.DecompressionBombError):
        width, height = 0, 0
    if width * height > MAX_PIXELS:
        raise MessageError(f"CompressedImage: expected at most 4K, got {width}x{height} pixels")
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise MessageError(
            f"CompressedImage: expected JPEG or PNG, got {data.size} bytes of {msg.format!r}"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def joints_from_msg(msg: JointState, names: tuple[str, ...]) -> np.ndarray:
    """Positions (len(names),) float64 by name, whatever the message's order.

    Raises MessageError naming the joints that are missing, not finite or twice there.
    """
    if len(msg.position) != len(msg.name) or len(set(msg.name)) != len(msg.name):
        raise MessageError(
            f"JointState: expected one position per distinct name, got {len(msg.name)} names and "
            f"{len(msg.position)} positions"
        )
    at = dict(zip(msg.name, msg.position, strict=True))
    missing = [name for name in names if name not in at]
    if missing:
        raise MessageError(
            f"JointState: joints missing: {', '.join(missing)}; there are {', '.join(at) or 'none'}"
        )
    positions = np.array([at[name] for name in names], dtype=np.float64)
    if not np.isfinite(positions).all():
        bad = [name for name in names if not np.isfinite(at[name])]
        raise MessageError(
            f"JointState: expected finite positions, got {', '.join(f'{n}={at[n]}' for n in bad)}"
        )
    return positions


def joints_to_msg(names: tuple[str, ...], positions: np.ndarray, stamp: int) -> JointState:
    """A JointState of named positions; the inverse of `joints_from_msg`."""
    msg = JointState(name=list(names), position=[float(p) for p in positions])
    msg.header.stamp = stamp_from_ns(stamp)
    return msg


def pose_from_msg(msg: PoseStamped) -> Pose:
    """Pose of a PoseStamped; raises MessageError unless position and unit quaternion are finite."""
    p, q = msg.pose.position, msg.pose.orientation
    quaternion = np.array([q.x, q.y, q.z, q.w])
    if (
        not np.isfinite([p.x, p.y, p.z, *quaternion]).all()
        or abs(np.linalg.norm(quaternion) - 1.0) > 0.01
    ):
        raise MessageError(
            f"PoseStamped: expected a finite position and a unit quaternion, "
            f"got {[p.x, p.y, p.z]} and {quaternion.tolist()}"
        )
    return Pose(np.array([p.x, p.y, p.z]), matrix_from_quaternion(quaternion))


def pose_to_msg(pose: Pose, stamp: int, frame_id: str) -> PoseStamped:
    """A PoseStamped of a pose in `frame_id`; the inverse of `pose_from_msg`."""
    msg = PoseStamped()
    msg.header.stamp = stamp_from_ns(stamp)
    msg.header.frame_id = frame_id
    msg.pose.position.x, msg.pose.position.y, msg.pose.position.z = (
        float(v) for v in pose.position
    )
    x, y, z, w = (float(v) for v in quaternion_from_matrix(pose.rotation))
    msg.pose.orientation.x, msg.pose.orientation.y = x, y
    msg.pose.orientation.z, msg.pose.orientation.w = z, w
    return msg
