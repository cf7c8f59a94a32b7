"""Conversion between ROS messages and the package's values.

Each direction stands beside its inverse. No node here; pictures are in `images`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, Header, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from canvas_robot.signals.pose import Pose, matrix_from_quaternion, quaternion_from_matrix


class MessageError(ValueError):
    """A message cannot be converted."""


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds of a header's stamp."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def said_s_ago(info: Mapping[str, int]) -> float:
    """Seconds since a message was published, by the two machines' system clocks.

    info: what the middleware says of it. 0 where it does not say.
    """
    said_ns = info.get("source_timestamp") or 0
    return (time.time_ns() - said_ns) / 1e9 if said_ns else 0.0


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
            f"JointState: joints missing: {', '.join(missing)}, got {', '.join(at) or 'none'}; "
            f"name them in the binding as the driver does"
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


def trajectory_to_msg(
    names: tuple[str, ...], positions: np.ndarray, stamp: int, seconds: float
) -> JointTrajectory:
    """A JointTrajectory of one point: named positions, to be reached `seconds` after `stamp`."""
    msg = JointTrajectory(joint_names=list(names))
    msg.header.stamp = stamp_from_ns(stamp)
    point = JointTrajectoryPoint(positions=[float(p) for p in positions])
    ns = round(seconds * 1e9)
    point.time_from_start = Duration(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)
    msg.points = [point]
    return msg


def trajectory_from_msg(msg: JointTrajectory) -> tuple[tuple[str, ...], np.ndarray, float]:
    """Names, positions and seconds of a trajectory's last point; MessageError where there is none.

    The inverse of `trajectory_to_msg`.
    """
    if not msg.points or len(msg.points[-1].positions) != len(msg.joint_names):
        raise MessageError(
            f"JointTrajectory: expected a point with a position for each of {msg.joint_names}"
        )
    last = msg.points[-1]
    seconds = last.time_from_start.sec + last.time_from_start.nanosec / 1e9
    return tuple(msg.joint_names), np.array(last.positions), seconds


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
    _set_header(msg.header, stamp, frame_id)
    msg.pose.position.x, msg.pose.position.y, msg.pose.position.z = pose.position.tolist()
    x, y, z, w = quaternion_from_matrix(pose.rotation).tolist()
    msg.pose.orientation.x, msg.pose.orientation.y = x, y
    msg.pose.orientation.z, msg.pose.orientation.w = z, w
    return msg


def twist_from_msg(msg: TwistStamped) -> tuple[np.ndarray, np.ndarray]:
    """Linear (3,) m/s and angular (3,) rad/s of a TwistStamped; MessageError unless finite."""
    twist = msg.twist
    linear = np.array([twist.linear.x, twist.linear.y, twist.linear.z])
    angular = np.array([twist.angular.x, twist.angular.y, twist.angular.z])
    if not (np.isfinite(linear).all() and np.isfinite(angular).all()):
        raise MessageError(
            f"TwistStamped: expected finite speeds, got {linear.tolist()} and {angular.tolist()}"
        )
    return linear, angular


def twist_to_msg(
    linear: np.ndarray, angular: np.ndarray, stamp: int, frame_id: str
) -> TwistStamped:
    """A TwistStamped of speeds about the axes of `frame_id`; the inverse of `twist_from_msg`."""
    msg = TwistStamped()
    _set_header(msg.header, stamp, frame_id)
    msg.twist.linear.x, msg.twist.linear.y, msg.twist.linear.z = linear.tolist()
    msg.twist.angular.x, msg.twist.angular.y, msg.twist.angular.z = angular.tolist()
    return msg


def _set_header(header: Header, stamp: int, frame_id: str) -> None:
    header.stamp = stamp_from_ns(stamp)
    header.frame_id = frame_id


def chunk_to_msg(rows: np.ndarray) -> Float64MultiArray:
    """An action chunk (horizon, size), its dimensions named `step` and `component`."""
    horizon, size = rows.shape
    msg = Float64MultiArray(data=np.asarray(rows, np.float64).ravel().tolist())
    msg.layout.dim = [
        MultiArrayDimension(label="step", size=horizon, stride=horizon * size),
        MultiArrayDimension(label="component", size=size, stride=size),
    ]
    return msg


def chunk_from_msg(msg: Float64MultiArray) -> np.ndarray:
    """The inverse of `chunk_to_msg`; raises MessageError where sizes and data do not agree."""
    sizes = [dim.size for dim in msg.layout.dim]
    if len(sizes) != 2 or sizes[0] * sizes[1] != len(msg.data):
        raise MessageError(
            f"Float64MultiArray: expected two dimensions of {len(msg.data)} numbers, got {sizes}"
        )
    return np.array(msg.data).reshape(sizes)
