"""PlainPolicy: behaviour cloning without canvas, backbone or loops, to compare the canvas with.

It sees what the schema lets the action read and is called as a CanvasPolicy is; see plain_model.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch

from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.policy.policy import NoInstructionError
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import (
    ActionChunk,
    Binding,
    GoingOn,
    Observation,
    Statistics,
    TickHistory,
)
from canvas_robot.signals.history import refresh_tick


class PlainPolicy:
    """One robot's policy: a model and the instruction that it follows.

    Args:
        model: the weights; it is put into evaluation mode.
        schema, binding: the declarations that the model was built from.
        statistics: normalisation statistics by signal name.
        trained: whether any training made these weights.
    """

    def __init__(
        self,
        model: PlainModel,
        schema: CanvasSchema,
        binding: Binding,
        statistics: dict[str, Statistics],
        trained: bool,
    ) -> None:
        self.model = model.eval()
        self.schema, self.binding, self.statistics = schema, binding, statistics
        self.trained = trained
        self.instruction: str | None = None
        self._own_history = TickHistory(schema, binding)

    @property
    def horizon(self) -> int:
        """Control ticks in one action chunk."""
        return self.model.horizon

    @property
    def sha256(self) -> dict[str, str]:
        """Fingerprints of the backbone that the weights belong to, by part: there is none."""
        return {}

    def reset(self, instruction: str) -> None:
        """Starts an episode under an instruction.

        Raises SignalError for text that the binding does not accept; the policy stays as it was.
        """
        signal = self.binding.regions[self.binding.goal_region()].signal
        accepted = self.binding.signals[signal].checked(signal, instruction)
        self.forget()
        self.instruction = accepted

    def work(self) -> None:
        """Between ticks nothing is left to do."""

    def forget(self) -> None:
        """Ends the episode: no instruction, nothing seen."""
        self.instruction = None
        self._own_history.clear()

    def imagined(self, seconds: float) -> None:
        """It predicts no pictures."""

    def act(
        self, observation: Observation | Mapping[str, np.ndarray], going_on: GoingOn | None = None
    ) -> ActionChunk:
        """Decides on one observation.

        Args:
            observation: what a `History` made for this tick; or one sample by signal name, taken to
                be of the next control tick since `reset`, as of CanvasPolicy.act.
            going_on: passed over: this network is a regression.
        Returns:
            The action chunk, (horizon, size) in the action signal's units.
        Raises:
            NoInstructionError before the first `reset`; SignalError, NotReadyError for samples that
                are wrong or missing.
        """
        if self.instruction is None:
            raise NoInstructionError("policy: call reset(instruction) before act(observation)")
        if not isinstance(observation, Observation):
            observation = self._own_history.observe(observation)
        started = time.perf_counter()
        seen = {region: observation.frames[region] for region in self.model.observed_regions}
        with torch.inference_mode():
            frames = {
                region: (torch.from_numpy(of.values)[None], torch.from_numpy(of.missing)[None])
                for region, of in seen.items()
            }
            inputs = self.model.encode(frames, [self.instruction])
            encoded = time.perf_counter()
            values = self.model.to_units(self.model(inputs)[0])
        done = time.perf_counter()
        return ActionChunk(
            self.binding.regions[self.model.action_region].signal,
            observation.tick,
            values,
            {"codec": (encoded - started) * 1e3, "forward": (done - encoded) * 1e3},
            {region: int(frames.stamps_ns[-1]) for region, frames in seen.items()},
            {region: self._age(region, observation.tick) for region in seen},
        )

    def _age(self, region: str, tick: int) -> int:
        """Ticks since a history refreshed a region."""
        return tick - refresh_tick(tick, self.schema.layout.region_spec(region).period)
