"""The task of placing one thing on another: where both start, and when it is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.props import Prop
from canvas_robot.sim.success import OnTarget, PlacingJudge
from canvas_robot.sim.task import Episode
from canvas_robot.sim.workplace import TABLE, Workplace

# Of the open gripper: from its middle to past its fingers, across.
GRIPPER_M = 0.055
APART_M = 0.005
_DRAWS = 10_000


@dataclass(frozen=True)
class Place:
    """Where something stands: x, y in metres and yaw in radians, in `base_link`."""

    x: float
    y: float
    yaw: float = 0.0


@dataclass(frozen=True)
class Area:
    """Where places are drawn: x, y of corners in metres, and yaws in radians."""

    low: tuple[float, float]
    high: tuple[float, float]
    yaw: tuple[float, float] = (-math.pi / 4, math.pi / 4)

    def draw(self, random: np.random.Generator) -> Place:
        x, y, yaw = (
            low + (high - low) * random.random()
            for low, high in (*zip(self.low, self.high, strict=True), self.yaw)
        )
        return Place(x, y, yaw)


@final
@dataclass(frozen=True)
class PlaceTask:
    """Put `source` on `target`.

    grid: (source, target) of the published episodes. area, target_area: of all others. A target
    that is fixed stands at its one place in the grid.
    gap_m, touches_only_target: see `OnTarget`.
    """

    name: str
    instruction: str
    source: Prop
    target: Prop
    area: Area
    target_area: Area
    grid: tuple[tuple[Place, Place], ...] = ()
    gap_m: float = 0.02
    touches_only_target: bool = False
    workplace: Workplace = TABLE

    @property
    def props(self) -> tuple[Prop, ...]:
        return (self.source, self.target)

    @property
    def published(self) -> int:
        return len(self.grid)

    @property
    def rule(self) -> OnTarget:
        return OnTarget(self.source, self.target, self.gap_m, self.touches_only_target)

    def alternatives(self, episode: Episode) -> tuple[str, ...]:
        return ()

    def episode(self, episode_id: int, target: str | None = None) -> Episode:
        """Published poses for the first ids; from then on draws that leave room for the gripper.

        Raises ValueError for a target that is not the task's one.
        """
        if target not in (None, self.target.name):
            raise ValueError(f"target: expected {self.target.name!r}, got {target!r}")
        if episode_id < self.published:
            source, target = self.grid[episode_id]
        else:
            source, target = self._draw(np.random.default_rng(episode_id))
        floor = self.workplace.floor
        poses = {
            self.source.name: self.source.resting(source.x, source.y, source.yaw, floor=floor),
            self.target.name: self.target.resting(target.x, target.y, target.yaw, floor=floor),
        }
        return Episode(episode_id, self.instruction, poses, self.target.name)

    def judge(self, episode: Episode, sim: WidowXSim) -> PlacingJudge:
        return PlacingJudge(self.rule, sim)

    def _draw(self, random: np.random.Generator) -> tuple[Place, Place]:
        for _ in range(_DRAWS):
            source, target = self.area.draw(random), self.target_area.draw(random)
            if self._has_room(source, target):
                return source, target
        raise RuntimeError(f"{self.name}: no room for both things in {_DRAWS} draws")

    def _has_room(self, source: Place, target: Place) -> bool:
        """Whether the target lies beside the source, and beside the hand that grasps its middle."""
        if _gap(source.x, source.y, target, self.target) < GRIPPER_M:
            return False
        half_x, half_y = self.source.half[:2]
        for along in (
            half_y - half_x,
            (half_y - half_x) / 2,
            (half_x - half_y) / 2,
            half_x - half_y,
        ):
            x = source.x + along * math.cos(source.yaw)
            y = source.y + along * math.sin(source.yaw)
            if _gap(x, y, target, self.target) < math.sqrt(2) * half_y + APART_M:
                return False
        return True


def _gap(x: float, y: float, place: Place, prop: Prop) -> float:
    """Distance of a point to a prop's box, seen from above, metres; 0 inside."""
    x, y = x - place.x, y - place.y
    cos, sin = math.cos(place.yaw), math.sin(place.yaw)
    beside_x = max(abs(cos * x + sin * y) - prop.half[0], 0.0)
    beside_y = max(abs(cos * y - sin * x) - prop.half[1], 0.0)
    return math.hypot(beside_x, beside_y)
