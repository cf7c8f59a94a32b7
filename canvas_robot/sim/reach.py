"""The reach task: touch the cube whose colour the instruction names, with a closed hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.props import Prop
from canvas_robot.sim.task import Episode
from canvas_robot.sim.things import COLOURS, cube
from canvas_robot.sim.workplace import TABLE, Workplace

# Where cubes may stand (m in `base_link`): seen by the camera, reached from above. Centres at least
# this far apart leave room for the closed gripper between them.
CUBES_LOW = (0.23, -0.08)
CUBES_HIGH = (0.37, 0.13)
CUBES_APART_M = 0.07

# How a hand touches: pointing down, nearly closed. A hand that waves about meets the named cube in
# one of nine episodes, but not like this.
TILT_RAD = np.radians(15.0)
QUARTER_OPEN_M = 0.0205  # of the left finger, closed at 0.015 and open at 0.037


@final
@dataclass(frozen=True)
class ReachTask:
    """The first cube that a finger touches decides: success if it is the named one, and touched
    by a hand that points down, within 15 degrees, and is at most a quarter open.

    colours: of the cubes, at least two of `canvas_robot.sim.things.COLOURS`.
    """

    colours: tuple[str, ...] = ("red", "blue")
    name: str = "reach"
    workplace: Workplace = TABLE
    published: int = 0

    def __post_init__(self) -> None:
        colours = self.colours
        if len(colours) < 2 or len(set(colours)) < len(colours) or not set(colours) <= set(COLOURS):
            raise ValueError(
                f"colours: expected at least two different ones of {sorted(COLOURS)}, "
                f"got {list(colours)}"
            )

    @property
    def props(self) -> tuple[Prop, ...]:
        return tuple(cube(colour, COLOURS[colour]) for colour in self.colours)

    def alternatives(self, episode: Episode) -> tuple[str, ...]:
        """The other cubes that the same scene can ask for."""
        return tuple(colour for colour in self.colours if colour != episode.target)

    def episode(self, episode_id: int, target: str | None = None) -> Episode:
        """A target colour, and places of the cubes that do not overlap.

        target: the colour that is asked for, in place of the one that the id draws; all else is the
        same. Raises ValueError for a colour that is not there.
        """
        random = np.random.default_rng(episode_id)
        drawn = self.colours[random.integers(len(self.colours))]
        target = drawn if target is None else target
        if target not in self.colours:
            raise ValueError(f"target: expected one of {list(self.colours)}, got {target!r}")
        places = _places(random, len(self.colours))
        yaws = random.uniform(-np.pi / 4, np.pi / 4, size=len(self.colours))
        poses = {
            prop.name: prop.resting(*place, yaw, floor=self.workplace.floor)
            for prop, place, yaw in zip(self.props, places, yaws, strict=True)
        }
        return Episode(episode_id, f"touch the {target} cube", poses, target)

    def judge(self, episode: Episode, sim: WidowXSim) -> ReachJudge:
        return ReachJudge(episode.target, [prop.name for prop in self.props])


@final
class ReachJudge:
    """Judges a reach by the first of the cubes that a finger touches, and how."""

    def __init__(self, target: str, cubes: Sequence[str]) -> None:
        self._target = target
        self._cubes = frozenset(cubes)
        self._touched: frozenset[str] = frozenset()
        self._success = False

    @property
    def ended(self) -> bool:
        return bool(self._touched)

    def watch(self, sim: WidowXSim, count: int) -> None:
        self._touched = sim.step_to_touch(count, self._cubes)
        self._success = self._touched == {self._target} and _touches_properly(sim)

    def note(self, sim: WidowXSim) -> None:
        pass

    def verdict(self) -> dict[str, bool]:
        return {"success": self._success, "success_any": self._success}


def _touches_properly(sim: WidowXSim) -> bool:
    points_down = -sim.end_effector.rotation[2, 0] >= np.cos(TILT_RAD)
    return bool(points_down) and sim.finger <= QUARTER_OPEN_M


def _places(random: np.random.Generator, count: int) -> list[np.ndarray]:
    places: list[np.ndarray] = []
    while len(places) < count:
        place = random.uniform(CUBES_LOW, CUBES_HIGH)
        if all(np.linalg.norm(place - other) >= CUBES_APART_M for other in places):
            places.append(place)
    return places
