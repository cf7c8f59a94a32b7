"""Environments that are decided by a number, in a module of its own: workers import it by name."""

from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class Scene:
    """Where the goals lie on a line of -1 to 1, and which one is meant."""

    target: str
    places: dict[str, float]


class Task:
    """Goals to the left and to the right."""

    def alternatives(self, episode: Scene) -> tuple[str, ...]:
        return tuple(name for name in episode.places if name != episode.target)


class Line(gymnasium.Env):
    """Walk to the place that is named, on a line; after `limit` steps it is over.

    Numbered episodes have ids, a task with two goals, and a picture.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 4}
    task = Task()

    def __init__(self, render_mode=None, limit=6, says="success"):
        self.render_mode = render_mode
        self._limit, self._says = limit, says
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-0.5, 0.5, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        options = options or {}
        drawn = int(self.np_random.integers(100))
        self._id = options.get("episode_id", drawn)
        random = np.random.default_rng(self._id)
        places = {"left": float(random.uniform(-1, -0.4)), "right": float(random.uniform(0.4, 1))}
        target = options.get("target", str(random.choice(["left", "right"])))
        self.episode = Scene(target, places)
        self._at, self._steps, self._held = 0.0, 0, False
        return self._observe(), self._info()

    def step(self, action):
        self._at = float(np.clip(self._at + action[0], -1, 1))
        self._steps += 1
        info = self._info()
        return self._observe(), float(self._there()), False, self._steps == self._limit, info

    def render(self):
        picture = np.zeros((60, 80, 3), np.uint8)
        picture[:, int(40 + 39 * self._at)] = 255
        return picture

    def _there(self):
        return abs(self._at - self.episode.places[self.episode.target]) < 0.2

    def _observe(self):
        return np.array([self._at], np.float32)

    def _info(self):
        return {
            self._says: np.array([self._there()]),
            "instruction": f"go {self.episode.target}",
            "episode_id": self._id,
        }


class Seeded(gymnasium.Env):
    """Has no ids, no words and no pictures; a coin that the seed tosses says whether it is done."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        assert options is None
        super().reset(seed=seed)
        self._done = bool(self.np_random.integers(2))
        return 0, {}

    def step(self, action):
        return 0, float("nan"), True, False, {"deep": {"done": self._done}}


class Endless(Seeded):
    """Never ends by itself."""

    def step(self, action):
        return 0, 0.0, False, False, {"success": False}


class Broken(Seeded):
    """Cannot go on."""

    def step(self, action):
        raise KeyError("joint")


NAMES = {"Line": Line, "Seeded": Seeded, "Endless": Endless, "Broken": Broken}
for name, made in NAMES.items():
    gymnasium.register(f"made_up/{name}-v0", entry_point=made)
