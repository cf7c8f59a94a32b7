"""What a prop is: primitive shapes in one frame, a bounding box, a density. No places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from canvas_robot.signals.pose import Pose, matrix_from_rpy

Colour = tuple[float, float, float]

# How many half sizes each kind of shape has.
SHAPE_SIZES = {"box": 3, "ellipsoid": 3, "cylinder": 2, "capsule": 2}


@dataclass(frozen=True)
class Shape:
    """A primitive of a prop.

    kind: box, ellipsoid, cylinder or capsule, the last two along their own z.
    size: half lengths in metres: (x, y, z), or (radius, half length without the caps).
    rgb: each in [0, 1].
    position, rpy: in the prop's frame, metres and radians.
    drawn: the camera sees it. solid: it touches, and it weighs.
    """

    kind: str
    size: tuple[float, ...]
    rgb: Colour
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rpy: tuple[float, float, float] = (0.0, 0.0, 0.0)
    drawn: bool = True
    solid: bool = True

    def __post_init__(self) -> None:
        if len(self.size) != SHAPE_SIZES.get(self.kind):
            raise ValueError(
                f"Shape: expected a kind and as many sizes as in {SHAPE_SIZES}, "
                f"got {self.kind!r} of {self.size}"
            )
        if not all(0.0 < length < 5.0 for length in self.size):
            raise ValueError(f"Shape.size: expected lengths in (0, 5) m, got {self.size}")
        if len(self.rgb) != 3 or not all(0.0 <= value <= 1.0 for value in self.rgb):
            raise ValueError(f"Shape.rgb: expected 3 numbers in [0, 1], got {self.rgb}")
        if not (self.drawn or self.solid):
            raise ValueError("Shape: expected it to be drawn, solid or both, got neither")


@dataclass(frozen=True)
class Prop:
    """A thing of the scene, one rigid body by name.

    half: half sizes (m) of its box, centred in its frame; success rules speak about this box.
    density: kg/m3 of its solid shapes. fixed: nothing moves it, as if screwed down.
    walls: how far its walls rise over its box, metres.
    """

    name: str
    half: tuple[float, float, float]
    shapes: tuple[Shape, ...]
    density: float = 1000.0
    fixed: bool = False
    walls: float = 0.0

    def __post_init__(self) -> None:
        if len(self.half) != 3 or not all(0.0 < length < 0.5 for length in self.half):
            raise ValueError(
                f"prop {self.name!r}: expected three half sizes in (0, 0.5) m, got {self.half}"
            )
        if not any(shape.solid for shape in self.shapes):
            raise ValueError(f"prop {self.name!r}: expected a solid shape, got none")
        if not 0.0 < self.density < 2e4:
            raise ValueError(
                f"prop {self.name!r}: expected a density in (0, 20000) kg/m3, got {self.density}"
            )

    @property
    def radius(self) -> float:
        """Of the circle around its box, seen from above, metres."""
        return float(np.hypot(self.half[0], self.half[1]))

    def resting(self, x: float, y: float, yaw: float = 0.0, *, floor: float) -> Pose:
        """Its pose in `base_link`, its box upright on a floor at that height; metres, radians."""
        position = np.array([x, y, floor + self.half[2]])
        return Pose(position, matrix_from_rpy(np.array([0.0, 0.0, yaw])))
