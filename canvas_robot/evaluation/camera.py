"""A pinhole camera: where points of the robot's base frame appear in its picture. No drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A point this close to the camera plane, or behind it, has no picture.
_NEAREST_DEPTH_M = 1e-3


@dataclass(frozen=True, eq=False)
class PinholeCamera:
    """A camera without lens distortion, fixed in the robot's base frame.

    position: (3,) optical centre in the base frame, metres.
    xyaxes: (6,) MuJoCo's `xyaxes`: picture-right, then picture-up, as directions in the base frame.
    fx, fy, cx, cy: focal lengths and principal point in pixels of a `width` x `height` picture.
    """

    position: np.ndarray
    xyaxes: np.ndarray
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        position = np.array(self.position, dtype=np.float64)
        xyaxes = np.array(self.xyaxes, dtype=np.float64)
        if position.shape != (3,) or xyaxes.shape != (6,):
            raise ValueError(
                "PinholeCamera: expected position (3,) and xyaxes (6,), "
                f"got {position.shape} and {xyaxes.shape}"
            )
        right, up = xyaxes[:3], xyaxes[3:]
        lengths = np.linalg.norm(right) * np.linalg.norm(up)
        # Published axes are rounded to four decimals; anything further from a right angle is a
        # mistake.
        if not lengths > 0 or abs(right @ up) > 0.01 * lengths:
            raise ValueError(
                f"PinholeCamera: expected two perpendicular axes in xyaxes, got {xyaxes.tolist()}; "
                "give picture-right first, then picture-up"
            )
        if min(self.fx, self.fy, self.width, self.height) <= 0:
            raise ValueError(
                "PinholeCamera: expected positive fx, fy, width and height, "
                f"got {self.fx}, {self.fy}, {self.width}, {self.height}"
            )
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "xyaxes", xyaxes)

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3), its columns picture-right, picture-up and backward, in the base frame."""
        right = self.xyaxes[:3] / np.linalg.norm(self.xyaxes[:3])
        backward = np.cross(right, self.xyaxes[3:])
        backward /= np.linalg.norm(backward)
        return np.stack([right, np.cross(backward, right), backward], axis=1)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2), x right and y down, of base-frame points (N, 3); NaN behind the camera.

        Pixels may lie outside the picture. Pixel (0, 0) is the centre of the top left pixel.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"project: expected points (N, 3), got {points.shape}")
        right, up, backward = ((points - self.position) @ self.rotation).T
        depth = np.where(-backward > _NEAREST_DEPTH_M, -backward, np.nan)
        return np.stack([self.cx + self.fx * right / depth, self.cy - self.fy * up / depth], axis=1)

    def scaled_to(self, width: int, height: int) -> PinholeCamera:
        """The same view in a picture resized to `width` x `height`, aspect ratio kept or not.

        Bridge V2 squashes 640x480 to 256x256, so both axes have their own scale.
        """
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(
            position=self.position,
            xyaxes=self.xyaxes,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
            width=width,
            height=height,
        )


# Over-the-shoulder camera of the WidowX table scene (Logitech C920), in `base_link`.
# Source: SimplerEnv's WidowX set-up, from ManiSkill2_real2sim `put_on_in_scene.py`; xyaxes derived.
BRIDGE_TABLE_CAMERA = PinholeCamera(
    position=np.array([0.0, -0.16, 0.36]),
    xyaxes=np.array([0.4839, -0.8751, 0.0, 0.6026, 0.3332, 0.7252]),
    fx=623.588,
    fy=623.588,
    cx=319.501,
    cy=239.545,
    width=640,
    height=480,
)
