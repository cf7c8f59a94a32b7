"""Scripted experts: they read the simulator's true state and solve a task, for demonstrations.

They keep no memory, so they also recover from any state that another policy, or noise, left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import numpy as np

from canvas_robot.signals.pose import (
    BRIDGE_DEFAULT_ROTATION,
    Pose,
    matrix_from_rpy,
    rpy_from_matrix,
)
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.placing import PlaceTask
from canvas_robot.sim.success import AWAY_M, grasped
from canvas_robot.sim.tasks import task_named
from canvas_robot.sim.unsteady import UnsteadyExpert

__all__ = ["PlaceExpert", "ReachExpert", "UnsteadyExpert", "expert_for"]

Expert = Callable[[gymnasium.Env], np.ndarray]

OPEN, CLOSED = 1.0, 0.0

# Where `ee_gripper_link` is to be when the fingers close: over the floor, so that their tips stay
# clear of it, and over the middle of the thing.
_OVER_FLOOR_M, _OVER_MIDDLE_M = 0.0185, 0.002
_LEVER_M = 0.05  # what a radian of yaw counts as, of horizontal distance
_UNDER_M = 0.02  # as far under the funnel's wall as it rises only


def expert_for(task: str, *, speed_m: float | None = None, **noise: float) -> Expert:
    """An expert of the task of that name.

    speed_m: length of its steps in metres, its own where None. noise: settings of `UnsteadyExpert`;
    none of them is a steady hand. Raises ValueError for a name that is no task's.
    """
    task_named(task)
    speed = {} if speed_m is None else {"speed_m": speed_m}
    expert = ReachExpert(**speed) if task == "reach" else PlaceExpert(**speed)
    return UnsteadyExpert(expert, **noise) if noise else expert


@dataclass(frozen=True)
class ReachExpert:
    """Touches the named cube from above with a closed gripper that points down.

    speed_m: length of a step in metres; turn_rad: largest turn about an axis in a step.
    hover_m: height of `ee_gripper_link` in `base_link` at which it travels.
    aligned_m: horizontal error below which it descends.
    """

    speed_m: float = 0.02
    turn_rad: float = 0.2
    hover_m: float = 0.10
    aligned_m: float = 0.015

    def __call__(self, env: gymnasium.Env) -> np.ndarray:
        """The action (7,) float32 for the current state of a reach environment, wrapped or not."""
        return self.touch(env, env.unwrapped.episode.target)

    def touch(self, env: gymnasium.Env, cube_name: str) -> np.ndarray:
        """The action (7,) float32 towards touching any cube of the scene, by name."""
        sim = env.unwrapped.sim
        goal = self._waypoint(sim.target.position, sim.pose(cube_name).position)
        return _step_towards(
            env, Pose(goal, BRIDGE_DEFAULT_ROTATION), CLOSED, self.speed_m, self.turn_rad
        )

    def _waypoint(self, position: np.ndarray, cube: np.ndarray) -> np.ndarray:
        if np.linalg.norm(position[:2] - cube[:2]) < self.aligned_m:
            return cube  # Down through its top: contact ends the episode.
        if position[2] < self.hover_m - 0.02:
            return np.array([*position[:2], self.hover_m])  # Rise before moving sideways.
        return np.array([*cube[:2], self.hover_m])


@dataclass(frozen=True)
class PlaceExpert:
    """Grasps the task's source from above, puts it on the target, lets go and rises.

    Both ways down are funnels: the further off, the higher the hand is to be. So what it does
    changes steadily with what a camera shows, and one who copies it, and cannot tell a millimetre,
    comes down all the same; nothing is waited for. It sinks further than where the fingers act.

    speed_m: length of a step in metres; turn_rad: largest turn about an axis in a step.
    hover_m: how far over the grasp it travels empty. carry_m: how far over the place it carries.
    near_m, aligned_rad: horizontal error, and error of yaw, at which the funnel has its bottom.
    steep: of the funnel's wall, metres up for a metre off.
    deep_m: height over the lowest point from which the fingers close or open.
    """

    speed_m: float = 0.04
    turn_rad: float = 0.25
    hover_m: float = 0.06
    carry_m: float = 0.04
    near_m: float = 0.008
    aligned_rad: float = 0.1
    steep: float = 5.0
    deep_m: float = 0.007

    def __call__(self, env: gymnasium.Env) -> np.ndarray:
        """The action (7,) float32 for the current state of a placing environment."""
        sim, task = env.unwrapped.sim, env.unwrapped.task
        forces = sim.contact_forces(task.source.name)
        if grasped(sim, forces):
            goal, gripper = self._carry(sim, task)
        elif task.rule.holds(sim, forces):
            goal, gripper = self._leave(sim, task)
        else:
            goal, gripper = self._fetch(sim, task)
        return _step_towards(env, goal, gripper, self.speed_m, self.turn_rad)

    def _fetch(self, sim: WidowXSim, task: PlaceTask) -> tuple[Pose, float]:
        """Over the source, down around it, and close."""
        hand, last = sim.end_effector, sim.target
        source = sim.pose(task.source.name)
        low = max(task.workplace.floor + _OVER_FLOOR_M, source.position[2] + _OVER_MIDDLE_M)
        yaw = _grasp_yaw(source, task, _yaw(last))
        off = float(np.linalg.norm(hand.position[:2] - source.position[:2]))
        off += _LEVER_M * max(abs(_yaw(hand) - yaw) - self.aligned_rad, 0.0)
        over = self._over(off, self.hover_m)
        goal = np.array([*source.position[:2], low + over])
        if hand.position[2] < goal[2] - _UNDER_M:
            goal[:2] = last.position[:2]  # rise before moving sideways
        closes = not over and hand.position[2] - low < self.deep_m
        return Pose(goal, _pointing_down(yaw)), CLOSED if closes else OPEN

    def _carry(self, sim: WidowXSim, task: PlaceTask) -> tuple[Pose, float]:
        """Up, over the target, down, and open."""
        hand, source, target = (
            sim.end_effector,
            sim.pose(task.source.name),
            sim.pose(task.target.name),
        )
        place = target.position.copy()
        place[2] += task.target.half[2] + task.source.half[2] + task.target.walls
        in_hand = hand.position - source.position
        over = self._over(float(np.linalg.norm(source.position[:2] - place[:2])), self.carry_m)
        goal = place + in_hand + [0.0, 0.0, over]
        if source.position[2] < place[2] + over - _UNDER_M:
            goal[:2] = sim.target.position[:2]
        opens = not over and source.position[2] - place[2] < self.deep_m
        return Pose(goal, _pointing_down(_yaw(sim.target))), OPEN if opens else CLOSED

    def _over(self, off: float, most: float) -> float:
        """The funnel's height over its bottom, metres, at a horizontal distance."""
        return min(most, self.steep * max(off - self.near_m, 0.0))

    def _leave(self, sim: WidowXSim, task: PlaceTask) -> tuple[Pose, float]:
        """Up, well over the distance that counts as having let go, and rest there."""
        last, source = sim.target, sim.pose(task.source.name)
        height = source.position[2] + task.source.half[2] + AWAY_M + 0.02
        goal = np.array([*last.position[:2], max(height, last.position[2])])
        return Pose(goal, last.rotation), OPEN


def _step_towards(
    env: gymnasium.Env, goal: Pose, gripper: float, speed_m: float, turn_rad: float
) -> np.ndarray:
    """The action (7,) float32 from the last target towards a pose, at most a step away."""
    last = env.unwrapped.sim.target
    towards = goal.position - last.position
    move = towards * min(1.0, speed_m / max(float(np.linalg.norm(towards)), 1e-9))
    turn = np.clip(rpy_from_matrix(goal.rotation @ last.rotation.T), -turn_rad, turn_rad)
    action = np.concatenate([move, turn, [gripper]]).astype(np.float32)
    return np.clip(action, env.action_space.low, env.action_space.high)


def _pointing_down(yaw: float) -> np.ndarray:
    """Rotation (3, 3) of the gripper pointing down, its fingers closing across that yaw."""
    return matrix_from_rpy(np.array([0.0, 0.0, yaw])) @ BRIDGE_DEFAULT_ROTATION


def _yaw(pose: Pose) -> float:
    return float(rpy_from_matrix(pose.rotation @ BRIDGE_DEFAULT_ROTATION.T)[2])


def _grasp_yaw(source: Pose, task: PlaceTask, now: float) -> float:
    """The gripper's yaw, nearest to the present one, to close the fingers across the thing."""
    half_x, half_y, _ = task.source.half
    period = np.pi / 2 if half_x == half_y else np.pi
    along = np.arctan2(source.rotation[1, 0], source.rotation[0, 0])
    yaws = along + period * np.arange(-4, 5)
    allowed = yaws[np.abs(yaws) <= np.pi / 2 + 0.01]
    return float(allowed[np.abs(allowed - now).argmin()])
