"""Scripted experts: they read the simulator's true state and solve a task, for demonstrations."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np

from canvas_robot.signals.pose import BRIDGE_DEFAULT_ROTATION, rpy_from_matrix


@dataclass(frozen=True)
class ReachExpert:
    """Touches the named cube from above with a closed gripper that points down.

    It keeps no memory, so it also recovers from any state that another policy, or noise, left.

    speed_m: length of a step in metres; turn_rad: largest turn about an axis in a step.
    hover_m: height of `ee_gripper_link` in `base_link` at which it travels.
    aligned_m: horizontal error below which it descends.
    """

    speed_m: float = 0.02
    turn_rad: float = 0.2
    hover_m: float = 0.10
    aligned_m: float = 0.015

    def __call__(self, env: gymnasium.Env) -> np.ndarray:
        """The action (7,) float32 for the current state of a `WidowXReachEnv`, wrapped or not."""
        return self.touch(env, env.unwrapped.episode.target)

    def touch(self, env: gymnasium.Env, cube_name: str) -> np.ndarray:
        """The action (7,) float32 towards touching any cube of the scene, by name."""
        sim = env.unwrapped.sim
        previous = sim.target
        cube = sim.cube_pose(cube_name).position
        goal = self._waypoint(previous.position, cube)
        towards = goal - previous.position
        distance = float(np.linalg.norm(towards))
        move = towards * min(1.0, self.speed_m / max(distance, 1e-9))
        turn = rpy_from_matrix(BRIDGE_DEFAULT_ROTATION @ previous.rotation.T)
        turn = np.clip(turn, -self.turn_rad, self.turn_rad)
        action = np.concatenate([move, turn, [0.0]]).astype(np.float32)
        return np.clip(action, env.action_space.low, env.action_space.high)

    def _waypoint(self, position: np.ndarray, cube: np.ndarray) -> np.ndarray:
        if np.linalg.norm(position[:2] - cube[:2]) < self.aligned_m:
            return cube  # Down through its top: contact ends the episode.
        if position[2] < self.hover_m - 0.02:
            return np.array([*position[:2], self.hover_m])  # Rise before moving sideways.
        return np.array([*cube[:2], self.hover_m])
