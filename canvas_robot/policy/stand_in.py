"""StandIn: decides nothing after a set time, and fails on purpose; to measure and test a node."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping

import numpy as np

from canvas_robot.policy.settings import PolicySettings, default_declarations
from canvas_robot.signals import ActionChunk, GoingOn, Observation

HORIZON = 4
IMAGE_SIZE = (256, 256)  # of the pictures it is shown: Bridge V2's
FAULT_EVERY = 20  # the fault of its kind comes with every so many decisions


class StandIn:
    """A policy without a model: every action is no motion and an open gripper.

    Kinds: "constant" does only that; with every FAULT_EVERYth decision "raises" raises, "hangs"
    never returns, "dies" kills its process, and "nan" decides what is not a number.

    Raises ValueError where the settings name a checkpoint, and what their declarations raise.
    """

    trained, horizon = False, HORIZON

    def __init__(self, settings: PolicySettings) -> None:
        if settings.checkpoint:
            raise ValueError(
                f"stand_in: expected no checkpoint beside {settings.stand_in!r}, got "
                f"{settings.checkpoint!r}; name a schema and a binding"
            )
        self.schema, self.binding = default_declarations(settings)
        self._kind, self._seconds = settings.stand_in, settings.stand_in_ms / 1e3
        self._signal = self.binding.regions[self.binding.action_region()].signal
        self._rows = np.zeros((HORIZON, self.binding.signals[self._signal].size), np.float32)
        self._rows[:, -1] = 1.0
        self.image_sizes = dict.fromkeys(self.binding.regions_by_codec("visual"), IMAGE_SIZE)
        self._decisions = 0

    def reset(self, instruction: str) -> None:
        """Starts an episode; SignalError for text that the binding does not accept."""
        goal = self.binding.regions[self.binding.goal_region()].signal
        self.binding.signals[goal].checked(goal, instruction)

    def forget(self) -> None:
        """Ends the episode."""

    def work(self) -> None:
        """Between ticks: nothing."""

    def imagined(self, seconds: float) -> None:
        """It predicts no pictures."""

    def act(
        self, observation: Observation | Mapping[str, np.ndarray], going_on: GoingOn | None = None
    ) -> ActionChunk:
        """No motion, after the set time, whatever goes on; or the fault."""
        started = time.perf_counter()
        self._decisions += 1
        rows = self._rows.copy()
        if self._decisions % FAULT_EVERY == 0:
            rows = self._failed(rows)
        time.sleep(self._seconds)
        frames = getattr(observation, "frames", {})
        return ActionChunk(
            self._signal,
            getattr(observation, "tick", 0),
            rows,
            {"codec": 0.0, "forward": (time.perf_counter() - started) * 1e3},
            {region: int(taken.stamps_ns[-1]) for region, taken in frames.items()},
            dict.fromkeys(frames, 0),
        )

    def _failed(self, rows: np.ndarray) -> np.ndarray:
        if self._kind == "raises":
            raise RuntimeError("the stand-in raises, as it was asked to")
        if self._kind == "hangs":
            threading.Event().wait()
        if self._kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.full_like(rows, np.nan) if self._kind == "nan" else rows
