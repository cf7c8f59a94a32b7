"""Scripted experts: they read the simulator's true state and solve a task, for demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium
import numpy as np

from canvas_robot.signals.pose import BRIDGE_DEFAULT_ROTATION, rpy_from_matrix

if TYPE_CHECKING:
    from canvas_robot.sim.reach import Episode


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


class UnsteadyExpert:
    """An expert whose hand wanders and now and then rests, as a person's does.

    What it adds depends on its settings and the episode's id alone, so an id repeats its episode.
    Its actions are what is commanded: an expert that reads the simulator's state corrects at the
    next step what the noise did at this one.

    expert: an expert of a `WidowXReachEnv`.
    wander_m: standard deviation of the noise on dx, dy and dz, metres a step.
    wander_steps: for how many steps the noise keeps its direction (its correlation falls to 1/e).
    rest_chance: chance that a rest begins at a step; rest_steps: its shortest and longest length.

    Raises ValueError for settings outside their range.
    """

    def __init__(
        self,
        expert: Callable[[gymnasium.Env], np.ndarray],
        *,
        wander_m: float = 0.004,
        wander_steps: float = 2.0,
        rest_chance: float = 0.04,
        rest_steps: tuple[int, int] = (1, 3),
    ) -> None:
        if not (0 <= wander_m < np.inf and 0 < wander_steps < np.inf and 0 <= rest_chance < 1):
            raise ValueError(
                "UnsteadyExpert: expected wander_m >= 0, wander_steps > 0, 0 <= rest_chance < 1, "
                f"got {wander_m}, {wander_steps}, {rest_chance}"
            )
        if not 1 <= rest_steps[0] <= rest_steps[1]:
            raise ValueError(
                f"UnsteadyExpert: rest_steps: expected 1 <= shortest <= longest, got {rest_steps}"
            )
        self._expert = expert
        self._wander_m = wander_m
        self._kept = float(np.exp(-1 / wander_steps))
        self._rest_chance = rest_chance
        self._rest_steps = rest_steps
        self._episode: Episode | None = None

    def __call__(self, env: gymnasium.Env) -> np.ndarray:
        """The action (7,) float32 for the current state; call it once for each step."""
        if env.unwrapped.episode is not self._episode:
            self._begin(env.unwrapped.episode)
        fresh = self._random.normal(size=3)
        self._noise = self._kept * self._noise + np.sqrt(1 - self._kept**2) * fresh
        if self._resting == 0 and self._random.random() < self._rest_chance:
            self._resting = int(self._random.integers(*self._rest_steps, endpoint=True))
        action = self._expert(env).copy()
        if self._resting:
            self._resting -= 1
            action[:6] = 0.0
        else:
            action[:3] += (self._wander_m * self._noise).astype(np.float32)
        return np.clip(action, env.action_space.low, env.action_space.high)

    def _begin(self, episode: Episode) -> None:
        self._episode = episode
        self._random = np.random.default_rng([episode.episode_id, 1])
        self._noise = self._random.normal(size=3)
        self._resting = 0
