"""Where the arm works: the table and the sink, with the camera and the arm's joints at the start.

Everything in `base_link`, metres and radians. Source of cameras, joints and places: SimplerEnv's
Bridge tasks (ManiSkill2_real2sim); the sink's shapes, and the height of its floor, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from canvas_robot.sim.props import Shape

FINGER_RESET = 0.037

# Height of the table's top, and joints at the start of an episode on it.
TABLE_TOP_M = 0.0025
TABLE_RESET = (-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398)


@dataclass(frozen=True)
class Camera:
    """A fixed camera. position: metres; xyaxes: its right and up, as MuJoCo takes them."""

    position: tuple[float, float, float]
    xyaxes: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Workplace:
    """A place to work at.

    floor: height on which props stand, metres. reset_joints: (6,) radians; reset_finger: metres.
    shapes: what stands there beside the table, never moving.
    free_low, free_high: (x, y) corners of where things may stand that no task is about, metres.
    """

    name: str
    floor: float
    camera: Camera
    reset_joints: tuple[float, ...]
    free_low: tuple[float, float]
    free_high: tuple[float, float]
    shapes: tuple[Shape, ...] = ()
    reset_finger: float = FINGER_RESET


TABLE = Workplace(
    name="table",
    floor=TABLE_TOP_M,
    camera=Camera((0.0, -0.16, 0.36), (0.4839, -0.8751, 0.0, 0.6026, 0.3332, 0.7252)),
    reset_joints=TABLE_RESET,
    free_low=(0.19, -0.15),
    free_high=(0.44, 0.22),
)

_STEEL, _STEEL_RIM = (0.66, 0.69, 0.72), (0.78, 0.80, 0.82)
_SINK_X, _SINK_Y, _SINK_FLOOR_M, _SINK_TOP_M = 0.287, -0.07, 0.030, 0.095
_SINK_HALF_X, _SINK_HALF_Y, _SINK_WALL = 0.1345, 0.1965, 0.004


def _sink_shapes() -> tuple[Shape, ...]:
    """A steel basin that stands on the table: a floor, four walls and their rims."""
    half_floor = (_SINK_FLOOR_M - TABLE_TOP_M) / 2
    half_wall = (_SINK_TOP_M - TABLE_TOP_M) / 2
    floor = Shape(
        "box",
        (_SINK_HALF_X, _SINK_HALF_Y, half_floor),
        _STEEL,
        (_SINK_X, _SINK_Y, TABLE_TOP_M + half_floor),
    )
    walls, inside = [], _SINK_WALL
    for side in (-1, 1):
        x = _SINK_X + side * (_SINK_HALF_X - inside)
        y = _SINK_Y + side * (_SINK_HALF_Y - inside)
        z = TABLE_TOP_M + half_wall
        walls += [
            Shape("box", (_SINK_WALL, _SINK_HALF_Y, half_wall), _STEEL, (x, _SINK_Y, z)),
            Shape("box", (_SINK_HALF_X, _SINK_WALL, half_wall), _STEEL, (_SINK_X, y, z)),
            Shape(
                "box",
                (0.008, _SINK_HALF_Y, 0.002),
                _STEEL_RIM,
                (x, _SINK_Y, _SINK_TOP_M),
                solid=False,
            ),
            Shape(
                "box",
                (_SINK_HALF_X, 0.008, 0.002),
                _STEEL_RIM,
                (_SINK_X, y, _SINK_TOP_M),
                solid=False,
            ),
        ]
    return (floor, *walls)


SINK = Workplace(
    name="sink",
    floor=_SINK_FLOOR_M,
    camera=Camera((-0.003, -0.21, 0.39), (0.4104, -0.9119, 0.0, 0.6307, 0.2838, 0.7223)),
    reset_joints=(-0.2600599, -0.12875618, 0.04461369, -0.00652761, 1.7033415, -0.26983038),
    free_low=(0.34, -0.22),
    free_high=(0.39, 0.09),
    shapes=_sink_shapes(),
)
