"""What makes demonstrations human: a hand that wanders and rests, and one that is disturbed.

Both depend on their settings and the episode's id alone, so that an id repeats its episode.
"""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np

from canvas_robot.sim.task import Episode

_UNSTEADY_STREAM, _DISTURBED_STREAM = 1, 3  # of the episode's id; the variation's is 2


class UnsteadyExpert:
    """An expert whose hand wanders and now and then rests, as a person's does.

    Its actions are what is commanded: an expert that reads the simulator's state corrects at the
    next step what the noise did at this one.

    expert: an expert of any task.
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
        self._random = np.random.default_rng([episode.episode_id, _UNSTEADY_STREAM])
        self._noise = self._random.normal(size=3)
        self._resting = 0


class Disturbance:
    """Replaces the action that is executed by a noisy one, while the clean one is what is recorded.

    A policy that learns from such episodes has seen states beside the expert's path, each with
    what the expert does there (DART: Laskey et al., CoRL 2017). Pass it to `record_rollout`.

    noise_m, noise_rad: standard deviation of the noise on dx, dy, dz and on droll, dpitch, dyaw.
    steps: for how many steps the noise keeps its direction (its correlation falls to 1/e).
    push_m: length of a push, a step in a direction of its own on top of the noise, metres;
        push_chance: chance that one comes at a step.
    share: of the episodes, which are disturbed at all.

    Raises ValueError for settings outside their range.
    """

    def __init__(
        self,
        *,
        noise_m: float = 0.004,
        noise_rad: float = 0.02,
        steps: float = 2.0,
        push_m: float = 0.03,
        push_chance: float = 0.05,
        share: float = 0.75,
    ) -> None:
        if not (0 <= noise_m < np.inf and 0 <= noise_rad < np.inf and 0 < steps < np.inf):
            raise ValueError(
                "Disturbance: expected noise_m >= 0, noise_rad >= 0, steps > 0, "
                f"got {noise_m}, {noise_rad}, {steps}"
            )
        if not (0 <= push_m < np.inf and 0 <= push_chance <= 1 and 0 <= share <= 1):
            raise ValueError(
                "Disturbance: expected push_m >= 0, push_chance and share from 0 to 1, "
                f"got {push_m}, {push_chance}, {share}"
            )
        self._scale = np.array([noise_m] * 3 + [noise_rad] * 3)
        self._kept = float(np.exp(-1 / steps))
        self._push_m, self._push_chance = push_m, push_chance
        self._share = share
        self._episode: Episode | None = None

    def __call__(self, env: gymnasium.Env, action: np.ndarray) -> np.ndarray:
        """What to execute (7,) float32 in place of an action; call it once for each step."""
        if env.unwrapped.episode is not self._episode:
            self._begin(env.unwrapped.episode)
        if not self._disturbed:
            return action
        fresh = self._random.normal(size=6)
        self._noise = self._kept * self._noise + np.sqrt(1 - self._kept**2) * fresh
        executed = action + np.append(self._scale * self._noise, 0.0).astype(np.float32)
        if self._random.random() < self._push_chance:
            way = self._random.normal(size=3)
            executed[:3] += (self._push_m * way / np.linalg.norm(way)).astype(np.float32)
        return np.clip(executed, env.action_space.low, env.action_space.high)

    def _begin(self, episode: Episode) -> None:
        self._episode = episode
        self._random = np.random.default_rng([episode.episode_id, _DISTURBED_STREAM])
        self._disturbed = self._random.random() < self._share
        self._noise = self._random.normal(size=6)
