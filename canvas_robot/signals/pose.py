"""Rigid poses and the rotation conventions of the signals: ROS quaternions, Bridge V2's angles.

Bridge's angles are roll, pitch and yaw. Every conversion stands beside its inverse. Rotations are
(3, 3) matrices inside the package; quaternions and Euler angles exist only at the edges. What works
on one rotation computes with Python's numbers, rows of three: of so few, NumPy takes longer to
begin than to compute, the more so where it was last called long ago.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

# Orientation of the gripper frame that Bridge V2 calls (roll, pitch, yaw) = 0: pointing straight
# down.
# Source: rail-berkeley/bridge_data_robot, widowx_controller.py (DEFAULT_ROTATION).
BRIDGE_DEFAULT_ROTATION = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])

_BRIDGE, _BRIDGE_INVERSE = BRIDGE_DEFAULT_ROTATION.tolist(), BRIDGE_DEFAULT_ROTATION.T.tolist()
_GIMBAL_LOCK = 1e-7  # cosine of pitch below which roll and yaw cannot be told apart


@dataclass(frozen=True, eq=False)
class Pose:
    """Position (3,) in metres and rotation (3, 3) of a frame in its parent frame."""

    position: np.ndarray
    rotation: np.ndarray

    def __post_init__(self) -> None:
        position = np.array(self.position, dtype=np.float64)
        rotation = np.array(self.rotation, dtype=np.float64)
        if position.shape != (3,) or rotation.shape != (3, 3):
            raise ValueError(
                f"Pose: expected position (3,) and rotation (3, 3), "
                f"got {position.shape} and {rotation.shape}"
            )
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "rotation", rotation)

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, (*self.position.tolist(), *self.rotation.ravel().tolist())))


def matrix_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """Rotation of fixed-axis roll, pitch, yaw in radians: R = Rz(yaw) Ry(pitch) Rx(roll).

    (3,) to (3, 3), or (n, 3) to (n, 3, 3).
    """
    rpy = np.asarray(rpy, dtype=np.float64)
    if rpy.ndim == 1:
        return np.array(_rows_of(rpy.tolist()))
    rows = _rows(*np.sin(rpy).T, *np.cos(rpy).T)
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _rows_of(rpy: list[float]) -> list[list[float]]:
    return _rows(*map(math.sin, rpy), *map(math.cos, rpy))


def _times(first: list[list[float]], second: list[list[float]]) -> list[list[float]]:
    """The product of two (3, 3) matrices."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = second
    return [
        [x * ax + y * bx + z * cx, x * ay + y * by + z * cy, x * az + y * bz + z * cz]
        for x, y, z in first
    ]


def _rows(sr, sp, sy, cr, cp, cy) -> list[list]:
    """Of a rotation, from the sines and cosines of roll, pitch and yaw."""
    return [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]


def rpy_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Fixed-axis roll, pitch, yaw in radians; the inverse of `matrix_from_rpy`.

    (3, 3) to (3,), or (n, 3, 3) to (n, 3). That holds for |pitch| < pi/2; at |pitch| = pi/2 roll
    and yaw turn about one axis; yaw is then 0.
    """
    if rotation.ndim == 2:
        return np.array(_rpy(rotation.tolist()))
    cos_pitch = np.hypot(rotation[..., 0, 0], rotation[..., 1, 0])
    xx, yx, zx = rotation[..., 0, 0], rotation[..., 1, 0], rotation[..., 2, 0]
    yy, zy, yz, zz = (rotation[..., i, j] for i, j in ((1, 1), (2, 1), (1, 2), (2, 2)))
    locked = cos_pitch < _GIMBAL_LOCK
    roll = np.arctan2(np.where(locked, -yz, zy), np.where(locked, yy, zz))
    yaw = np.where(locked, 0.0, np.arctan2(yx, xx))
    return np.stack([roll, np.arctan2(-zx, cos_pitch), yaw], axis=-1)


def _rpy(rows: list[list[float]]) -> list[float]:
    (xx, _, _), (yx, yy, yz), (zx, zy, zz) = rows
    cos_pitch = math.hypot(xx, yx)
    roll, yaw = ((-yz, yy), (0.0, 1.0)) if cos_pitch < _GIMBAL_LOCK else ((zy, zz), (yx, xx))
    return [math.atan2(*roll), math.atan2(-zx, cos_pitch), math.atan2(*yaw)]


def turned(rotation: np.ndarray, rpy: list[float]) -> np.ndarray:
    """A rotation (3, 3), turned by roll, pitch, yaw (rad) about the parent's axes."""
    return np.array(_times(_rows_of(rpy), rotation.tolist()))


def turn_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) about the parent's axes that takes the first to the second."""
    return np.array(_times(second.tolist(), first.T.tolist()))


def matrix_from_quaternion(xyzw: np.ndarray) -> np.ndarray:
    """Rotation matrix of a ROS quaternion (x, y, z, w); ValueError for zero or non-finite norm."""
    xyzw = np.asarray(xyzw, dtype=np.float64)
    norm = np.linalg.norm(xyzw)
    if not np.isfinite(norm) or norm < 1e-6:
        raise ValueError(
            f"quaternion: expected a finite unit quaternion (x, y, z, w), got {xyzw.tolist()}"
        )
    return Rotation.from_quat(xyzw).as_matrix()


def quaternion_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """ROS quaternion (x, y, z, w), w >= 0, of a rotation; inverse of `matrix_from_quaternion`."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    # Each row is the quaternion times four of its components; the largest loses least to rounding.
    x, y, z, w = 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz
    rows = (
        (x, yx + xy, xz + zx, zy - yz),
        (yx + xy, y, zy + yz, xz - zx),
        (xz + zx, zy + yz, z, yx - xy),
        (zy - yz, xz - zx, yx - xy, w),
    )
    largest = max(x, y, z, w)
    row = rows[(x, y, z, w).index(largest)]
    scale = math.copysign(0.5 / math.sqrt(largest), row[3])
    return np.array([scale * value for value in row])


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) in radians of a rotation (3, 3); the axis is lost at half a turn."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    x, y, z = 0.5 * (zy - yz), 0.5 * (xz - zx), 0.5 * (yx - xy)
    sine, cosine = math.hypot(x, y, z), 0.5 * (xx + yy + zz - 1.0)
    angle = math.atan2(sine, cosine)
    if sine <= 1e-9:
        return np.array([x, y, z] if cosine > 0 else [angle, 0.0, 0.0])
    scale = angle / sine
    return np.array([scale * x, scale * y, scale * z])


def angle_between(first: np.ndarray, second: np.ndarray) -> float:
    """Smallest angle in radians, in [0, pi], that takes one (3, 3) rotation to the other."""
    return math.hypot(*rotation_vector(turn_between(first, second)).tolist())


def bridge_state_from_pose(pose: Pose, gripper: float) -> np.ndarray:
    """Bridge V2's state (7,) float32 of an end-effector pose.

    It is x, y, z (m), roll, pitch, yaw (rad), gripper. The angles are those of
    `R @ DEFAULT_ROTATION.T`, so a gripper that points straight down has angles 0. `gripper` is
    passed through; see `canvas_robot.kinematics` for Bridge's gripper scale.
    """
    state = np.empty(7, np.float32)
    state[:6], state[6] = coordinates_from_pose(pose), gripper
    return state


def pose_from_bridge_state(state: np.ndarray) -> tuple[Pose, float]:
    """End-effector pose and gripper of Bridge V2's state (7,); undoes `bridge_state_from_pose`."""
    state = np.asarray(state, dtype=np.float64)
    if state.shape != (7,):
        raise ValueError(f"Bridge state: expected shape (7,), got {state.shape}")
    return pose_from_coordinates(state[:6]), float(state[6])


def coordinates_from_pose(pose: Pose) -> np.ndarray:
    """The first six numbers of Bridge V2's state, (6,) float64: x, y, z, roll, pitch, yaw."""
    return np.array([*pose.position.tolist(), *bridge_angles(pose.rotation)])


def bridge_angles(rotation: np.ndarray) -> list[float]:
    """Roll, pitch, yaw (rad) of a rotation (3, 3) in Bridge's convention."""
    return _rpy(_times(rotation.tolist(), _BRIDGE_INVERSE))


def rotation_from_bridge_angles(rpy: list[float]) -> np.ndarray:
    """The inverse of `bridge_angles`."""
    return np.array(_times(_rows_of(rpy), _BRIDGE))


def pose_from_coordinates(coordinates: np.ndarray) -> Pose:
    """The inverse of `coordinates_from_pose`."""
    return Pose(coordinates[:3], rotation_from_bridge_angles(coordinates[3:].tolist()))


def angular_velocity(rpy: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """(3,) rad/s about the parent's axes, of roll, pitch, yaw (3,) rad and their rates (3,) rad/s.

    Each rate turns about its own axis: roll about x turned by pitch and yaw, pitch about y turned
    by yaw, yaw about z.
    """
    (_, pitch, yaw), (d_roll, d_pitch, d_yaw) = rpy.tolist(), rates.tolist()
    (cp, sp), (cy, sy) = ((math.cos(angle), math.sin(angle)) for angle in (pitch, yaw))
    x, y = d_roll * cp * cy - d_pitch * sy, d_roll * cp * sy + d_pitch * cy
    return np.array([x, y, d_yaw - d_roll * sp])


def rpy_rates(rpy: np.ndarray, angular: np.ndarray) -> np.ndarray:
    """Rates (3,) rad/s of roll, pitch, yaw (3,) rad; the inverse of `angular_velocity`.

    That holds for |pitch| < pi/2; towards pi/2 the rates of roll and yaw grow, as both then turn
    about one axis, and at pi/2 they are large but finite.
    """
    (_, pitch, yaw), (x, y, z) = rpy.tolist(), angular.tolist()
    (cp, sp), (cy, sy) = ((math.cos(angle), math.sin(angle)) for angle in (pitch, yaw))
    d_roll = (x * cy + y * sy) / math.copysign(max(abs(cp), _GIMBAL_LOCK), cp)
    return np.array([d_roll, y * cy - x * sy, z + d_roll * sp])
