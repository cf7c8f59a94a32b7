"""When a thing counts as placed: SimplerEnv's rule, and three protocols of counting it.

`last`: the rule holds at the episode's last step. `any`: it held at some step. `held`: the thing
was released, the gripper more than 5 cm away, and the rule still held one second later.
Source of the rule and of the other facts: ManiSkill2_real2sim, put_on_in_scene.py and base_env.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from canvas_robot.signals.pose import Pose
from canvas_robot.sim.physics import FINGERS, WidowXSim
from canvas_robot.sim.props import Prop

BESIDE_M = 0.003  # how far past the target's half diagonal the source's centre may lie
MOVED_M = 0.03  # horizontal way after which a thing counts as moved
PRESSING_NS = 1e-6  # impulse in one physics step from which two things touch, N s
GRASP_COSINE = 0.5  # of the angle between a finger's push and the way it closes
AWAY_M = 0.05  # from the gripper to the box of what it released
HELD_STEPS = 5  # control steps of 0.2 s: one second

NULL = np.zeros(3)


@dataclass(frozen=True)
class OnTarget:
    """SimplerEnv's rule: the source stands on the target.

    The centres lie within the target's half diagonal and 3 mm, seen from above; the source's
    centre is higher, and its box at most `gap_m` above the target's.
    touches_only_target: nothing else but the robot may touch the source. A hand that still holds
    it does not matter.
    """

    source: Prop
    target: Prop
    gap_m: float
    touches_only_target: bool

    def holds(self, sim: WidowXSim, forces: dict[str, np.ndarray]) -> bool:
        """Whether it holds now. forces: `sim.contact_forces` of the source."""
        offset = sim.pose(self.source.name).position - sim.pose(self.target.name).position
        gap = offset[2] - self.target.half[2] - self.source.half[2]
        on = (
            np.hypot(offset[0], offset[1]) <= self.target.radius + BESIDE_M
            and offset[2] > 0
            and gap <= self.gap_m
        )
        return bool(on) and not (self.touches_only_target and self._touched_by_others(sim, forces))

    def _touched_by_others(self, sim: WidowXSim, forces: dict[str, np.ndarray]) -> bool:
        return any(
            np.linalg.norm(force) * sim.timestep > PRESSING_NS
            for name, force in forces.items()
            if name != self.target.name and name not in sim.robot_bodies
        )


def grasped(sim: WidowXSim, forces: dict[str, np.ndarray]) -> bool:
    """Whether both fingers press on a thing, each within 60 degrees of the way it closes.

    forces: `sim.contact_forces` of the thing.
    """
    left_to_right = -sim.end_effector.rotation[:, 1]  # the gripper's y points to the left finger
    for finger, closing in zip(FINGERS, (left_to_right, -left_to_right), strict=True):
        force = forces.get(finger, NULL)
        size = np.linalg.norm(force)
        if size * sim.timestep < PRESSING_NS or force @ closing < GRASP_COSINE * size:
            return False
    return True


def box_distance(point: np.ndarray, pose: Pose, half: tuple[float, ...]) -> float:
    """Distance in metres from a point (3,) to a box at a pose; 0 inside."""
    local = np.abs((point - pose.position) @ pose.rotation)
    return float(np.linalg.norm(np.maximum(local - half, 0.0)))


@final
class PlacingJudge:
    """Judges an episode of placing one thing on another."""

    ended = False

    def __init__(self, rule: OnTarget, sim: WidowXSim) -> None:
        self._rule = rule
        names = [prop.name for prop in sim.scene.props if not prop.fixed]
        self._starts = {name: sim.pose(name).position[:2].tolist() for name in names}
        self._success = self._success_any = self._success_held = self._grasped = False
        self._moved_correct = self._moved_wrong = False
        self._steps_clear = 0
        self.note(sim)

    def watch(self, sim: WidowXSim, count: int) -> None:
        sim.step(count)

    def note(self, sim: WidowXSim) -> None:
        source = self._rule.source
        forces = sim.contact_forces(source.name)
        self._success = self._rule.holds(sim, forces)
        self._success_any |= self._success
        self._grasped = grasped(sim, forces)
        self._note_moves(sim)
        released = not any(name in sim.robot_bodies for name in forces)
        hand = sim.end_effector.position
        away = box_distance(hand, sim.pose(source.name), source.half) > AWAY_M
        self._steps_clear = self._steps_clear + 1 if self._success and released and away else 0
        # The first of these steps is when it was let go; as many more make the second.
        self._success_held |= self._steps_clear > HELD_STEPS

    def verdict(self) -> dict[str, bool]:
        return {
            "success": self._success,
            "success_any": self._success_any,
            "success_held": self._success_held,
            "grasped": self._grasped,
            "moved_correct": self._moved_correct,
            "moved_wrong": self._moved_wrong,
        }

    def _note_moves(self, sim: WidowXSim) -> None:
        ways = {}
        for name, (x, y) in self._starts.items():
            now = sim.pose(name).position
            ways[name] = math.hypot(now[0] - x, now[1] - y)
        way = ways.pop(self._rule.source.name)
        furthest = max(ways.values(), default=0.0)
        self._moved_correct = way > MOVED_M and way > furthest
        self._moved_wrong = furthest > MOVED_M and furthest > way
