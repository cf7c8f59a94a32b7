"""Rigid poses and the rotation conventions of the signals: ROS quaternions, Bridge V2's angles.

Bridge's angles are roll, pitch and yaw. Every conversion stands beside its inverse. Rotations are
(3, 3) matrices inside the package; quaternions and Euler angles exist only at the edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

# Orientation of the gripper frame that Bridge V2 calls (roll, pitch, yaw) = 0: pointing straight
# down.
# Source: rail-berkeley/bridge_data_robot, widowx_controller.py (DEFAULT_ROTATION).
BRIDGE_DEFAULT_ROTATION = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])

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
        return bool(np.isfinite(self.position).all() and np.isfinite(self.rotation).all())


def matrix_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """Rotation of fixed-axis roll, pitch, yaw in radians: R = Rz(yaw) Ry(pitch) Rx(roll).

    (3,) to (3, 3), or (n, 3) to (n, 3, 3).
    """
    return Rotation.from_euler("xyz", np.asarray(rpy, dtype=np.float64)).as_matrix()


def rpy_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Fixed-axis roll, pitch, yaw in radians; the inverse of `matrix_from_rpy`.

    (3, 3) to (3,), or (n, 3, 3) to (n, 3). That holds for |pitch| < pi/2; at |pitch| = pi/2 roll
    and yaw turn about one axis; yaw is then 0.
    """
    xx, yx, zx = rotation[..., 0, 0], rotation[..., 1, 0], rotation[..., 2, 0]
    yy, zy, yz, zz = (rotation[..., i, j] for i, j in ((1, 1), (2, 1), (1, 2), (2, 2)))
    cos_pitch = np.hypot(xx, yx)
    locked = cos_pitch < _GIMBAL_LOCK
    roll = np.arctan2(np.where(locked, -yz, zy), np.where(locked, yy, zz))
    yaw = np.where(locked, 0.0, np.arctan2(yx, xx))
    return np.stack([roll, np.arctan2(-zx, cos_pitch), yaw], axis=-1)


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
    return Rotation.from_matrix(rotation, assume_valid=True).as_quat(canonical=True)


def angle_between(first: np.ndarray, second: np.ndarray) -> float:
    """Smallest angle in radians, in [0, pi], that takes one (3, 3) rotation to the other."""
    return float(Rotation.from_matrix(first.T @ second, assume_valid=True).magnitude())


def bridge_state_from_pose(pose: Pose, gripper: float) -> np.ndarray:
    """Bridge V2's state (7,) float32 of an end-effector pose.

    It is x, y, z (m), roll, pitch, yaw (rad), gripper. The angles are those of
    `R @ DEFAULT_ROTATION.T`, so a gripper that points straight down has angles 0. `gripper` is
    passed through; see `canvas_robot.kinematics` for Bridge's gripper scale.
    """
    return np.append(coordinates_from_pose(pose), gripper).astype(np.float32)


def pose_from_bridge_state(state: np.ndarray) -> tuple[Pose, float]:
    """End-effector pose and gripper of Bridge V2's state (7,); undoes `bridge_state_from_pose`."""
    state = np.asarray(state, dtype=np.float64)
    if state.shape != (7,):
        raise ValueError(f"Bridge state: expected shape (7,), got {state.shape}")
    return pose_from_coordinates(state[:6]), float(state[6])


def coordinates_from_pose(pose: Pose) -> np.ndarray:
    """The first six numbers of Bridge V2's state, (6,) float64: x, y, z, roll, pitch, yaw."""
    rpy = rpy_from_matrix(pose.rotation @ BRIDGE_DEFAULT_ROTATION.T)
    return np.concatenate([pose.position, rpy])


def pose_from_coordinates(coordinates: np.ndarray) -> Pose:
    """The inverse of `coordinates_from_pose`."""
    return Pose(coordinates[:3], matrix_from_rpy(coordinates[3:]) @ BRIDGE_DEFAULT_ROTATION)


def angular_velocity(rpy: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """(3,) rad/s about the parent's axes, of roll, pitch, yaw (3,) rad and their rates (3,) rad/s.

    Each rate turns about its own axis: roll about x turned by pitch and yaw, pitch about y turned
    by yaw, yaw about z.
    """
    (_, pitch, yaw), (d_roll, d_pitch, d_yaw) = rpy, rates
    forward = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    left = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    rolled = np.cos(pitch) * forward - np.array([0.0, 0.0, np.sin(pitch)])
    return d_roll * rolled + d_pitch * left + np.array([0.0, 0.0, d_yaw])
