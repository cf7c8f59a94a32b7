"""The tasks by name: reach, the easiest placing task, and SimplerEnv's four Bridge tasks.

Instructions, poses, boxes and rules: SimplerEnv, from ManiSkill2_real2sim put_on_in_scene.py.
"""

from __future__ import annotations

import itertools
import math

from canvas_robot.sim.placing import Area, Place, PlaceTask
from canvas_robot.sim.reach import ReachTask
from canvas_robot.sim.task import Task
from canvas_robot.sim.things import (
    BASKET,
    CARROT,
    COLOURS,
    EGGPLANT,
    PLATE,
    SPOON,
    TOWEL,
    cube,
)
from canvas_robot.sim.workplace import SINK

# SimplerEnv writes places in a world where the arm's base stands here (m) and looks along -x.
_TABLE_BASE = (0.147, 0.028)
_SINK_BASE = (0.127, 0.060)

_ANY_YAW = (-math.pi, math.pi)
_SQUARE_ON = (0.0, 0.0)


def _from_world(x: float, y: float, yaw: float, base: tuple[float, float]) -> Place:
    """A place in `base_link` of one in SimplerEnv's world."""
    turned = math.remainder(yaw - math.pi, 2 * math.pi)
    return Place(base[0] - x, base[1] - y, turned)


def _ordered_pairs(half_edge: float, yaws: tuple[float, ...]) -> tuple[tuple[Place, Place], ...]:
    """Source and target on two different corners of a square, in SimplerEnv's order.

    yaws: of the source, in SimplerEnv's world; the target's is 0 there.
    """
    corners = [
        (-0.16 + half_edge * i, half_edge * j) for i, j in itertools.product((-1, 1), repeat=2)
    ]
    return tuple(
        (_from_world(*source, yaw, _TABLE_BASE), _from_world(*target, 0.0, _TABLE_BASE))
        for source, target in itertools.permutations(corners, 2)
        for yaw in yaws
    )


def _eggplant_grid() -> tuple[tuple[Place, Place], ...]:
    target = _from_world(-0.125, 0.025, 0.0, _SINK_BASE)
    return tuple(
        (_from_world(-0.105 + dx, 0.206 + dy, yaw, _SINK_BASE), target)
        for dx in (-0.010, 0.010)
        for dy in (-0.015, -0.005, 0.005, 0.015)
        for yaw in (0.0, math.pi / 4, -math.pi / 4)
    )


_BOX = ((0.232, -0.047), (0.382, 0.103))
_STACK_BOX = ((0.207, -0.072), (0.407, 0.128))

PLACE_TASKS: tuple[PlaceTask, ...] = (
    PlaceTask(
        name="cube_on_plate",
        instruction="put the red cube on the plate",
        source=cube("red", COLOURS["red"]),
        target=PLATE,
        area=Area(*_BOX, yaw=_SQUARE_ON),  # the easiest: no turn of the hand is needed
        target_area=Area(*_BOX),
        touches_only_target=True,
    ),
    PlaceTask(
        name="spoon_on_towel",
        instruction="put the spoon on the towel",
        source=SPOON,
        target=TOWEL,
        area=Area(*_BOX, yaw=_ANY_YAW),
        target_area=Area(*_BOX),
        grid=_ordered_pairs(0.075, (0.0, math.pi / 2)),
    ),
    PlaceTask(
        name="carrot_on_plate",
        instruction="put carrot on plate",
        source=CARROT,
        target=PLATE,
        area=Area(*_BOX, yaw=_ANY_YAW),
        target_area=Area(*_BOX),
        grid=_ordered_pairs(0.075, (math.pi, -math.pi / 2)),
        touches_only_target=True,
    ),
    PlaceTask(
        name="stack_cube",
        instruction="stack the green block on the yellow block",
        source=cube("green", COLOURS["green"]),
        target=cube("yellow", COLOURS["yellow"]),
        area=Area(*_STACK_BOX),
        target_area=Area(*_STACK_BOX),
        grid=_ordered_pairs(0.05, (0.0,)) + _ordered_pairs(0.10, (0.0,)),
        touches_only_target=True,
    ),
    PlaceTask(
        name="eggplant_in_basket",
        instruction="put eggplant into yellow basket",
        source=EGGPLANT,
        target=BASKET,
        area=Area((0.222, -0.161), (0.242, -0.131), yaw=(-math.pi * 5 / 4, -math.pi * 3 / 4)),
        target_area=Area((0.252, 0.035), (0.252, 0.035), yaw=(-math.pi, -math.pi)),
        grid=_eggplant_grid(),
        gap_m=0.06,
        workplace=SINK,
    ),
)

_BY_NAME = {task.name: task for task in PLACE_TASKS}
TASK_NAMES = ("reach", *_BY_NAME)


def task_named(name: str, colours: tuple[str, ...] | None = None) -> Task:
    """The task of a name. colours: of reach's cubes, its own two where None.

    Raises ValueError for an unknown name, and for colours of another task.
    """
    if name not in TASK_NAMES:
        raise ValueError(f"task: expected one of {sorted(TASK_NAMES)}, got {name!r}")
    if name == "reach":
        return ReachTask() if colours is None else ReachTask(tuple(colours))
    if colours is not None:
        raise ValueError(f"colours: expected none for task {name!r}, got {list(colours)}")
    return _BY_NAME[name]
