"""Ways to write a rotation as numbers, by name: what environments give and want.

Each is read and written side by side; inside the package a rotation is a (3, 3) matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from canvas_robot.signals.pose import (
    matrix_from_quaternion,
    matrix_from_rpy,
    quaternion_from_matrix,
    rpy_from_matrix,
)

RotationConvention = Literal["wxyz", "xyzw", "rpy", "moving_xyz", "rotvec", "matrix"]


@dataclass(frozen=True)
class Writing:
    """One convention: how many numbers it takes, and both ways between them and a matrix."""

    size: int
    to_matrix: Callable[[np.ndarray], np.ndarray]
    from_matrix: Callable[[np.ndarray], np.ndarray]


def _matrix_from_wxyz(numbers: np.ndarray) -> np.ndarray:
    return matrix_from_quaternion(np.roll(numbers, -1))


def _wxyz_from_matrix(rotation: np.ndarray) -> np.ndarray:
    return np.roll(quaternion_from_matrix(rotation), 1)


def _matrix_from_moving_xyz(numbers: np.ndarray) -> np.ndarray:
    return Rotation.from_euler("XYZ", numbers).as_matrix()


def _moving_xyz_from_matrix(rotation: np.ndarray) -> np.ndarray:
    # The transpose's fixed-axis angles are the moving ones, negated: (Rx Ry Rz)^T = Rz^T Ry^T Rx^T.
    return -rpy_from_matrix(rotation.T)


def _matrix_from_rotvec(numbers: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(numbers).as_matrix()


def _rotvec_from_matrix(rotation: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(rotation).as_rotvec()


def _matrix_from_nine(numbers: np.ndarray) -> np.ndarray:
    matrix = numbers.reshape(3, 3)
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3) or np.linalg.det(matrix) < 0:
        raise ValueError(f"rotation: expected the 9 numbers of a rotation matrix, got {numbers}")
    return matrix


# wxyz, xyzw: a quaternion, scalar first or last; written with w >= 0.
# rpy: roll, pitch, yaw about fixed axes, R = Rz(yaw) Ry(pitch) Rx(roll).
# moving_xyz: angles about x, then the turned y, then the turned z, R = Rx Ry Rz.
# rotvec: axis times angle. matrix: row by row. Angles in radians.
CONVENTIONS: dict[str, Writing] = {
    "wxyz": Writing(4, _matrix_from_wxyz, _wxyz_from_matrix),
    "xyzw": Writing(4, matrix_from_quaternion, quaternion_from_matrix),
    "rpy": Writing(3, matrix_from_rpy, rpy_from_matrix),
    "moving_xyz": Writing(3, _matrix_from_moving_xyz, _moving_xyz_from_matrix),
    "rotvec": Writing(3, _matrix_from_rotvec, _rotvec_from_matrix),
    "matrix": Writing(9, _matrix_from_nine, np.ravel),
}
