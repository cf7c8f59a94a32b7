"""CanvasPolicy: what a robot, a simulator or a data set calls.

Observations in, action chunks out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.policy.model import CanvasModel, ModelInputs
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import (
    ActionChunk,
    Binding,
    History,
    NotReadyError,
    Observation,
    Statistics,
)


class NoInstructionError(RuntimeError):
    """`act` was called before `reset`."""


class CanvasPolicy:
    """One robot's policy: a model, the instruction it follows and the frames it has encoded.

    Args:
        model: the weights; it is put into evaluation mode.
        schema, binding: the declarations that the model was built from.
        statistics: normalisation statistics by signal name.
        source: name, folder or hub id of the backbone; sha256: its fingerprint.
        trained: whether any training made these weights; every output says so.
    """

    def __init__(
        self,
        model: CanvasModel,
        schema: CanvasSchema,
        binding: Binding,
        statistics: dict[str, Statistics],
        source: str,
        sha256: str,
        trained: bool,
    ) -> None:
        self.model = model.eval()
        self.schema, self.binding, self.statistics = schema, binding, statistics
        self.source, self.sha256, self.trained = source, sha256, trained
        self.instruction: str | None = None
        self._seen = FrameCache()
        self._own_history = History(schema, binding)
        self._own_tick = 0

    @classmethod
    def untrained(
        cls,
        schema: CanvasSchema,
        binding: Binding,
        statistics: dict[str, Statistics],
        backbone: str = "tiny",
        loops: int = 3,
        seed: int = 0,
        device: str = "cpu",
    ) -> CanvasPolicy:
        """A policy whose loops, codecs and head are random, from a seed, on the named backbone."""
        frozen = load_backbone(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = CanvasModel(schema, binding, statistics, frozen, loops)
        return cls(
            model.to(device),
            schema,
            binding,
            statistics,
            frozen.source,
            frozen.sha256,
            trained=False,
        )

    @property
    def horizon(self) -> int:
        """Control ticks in one action chunk."""
        return self.model.action.horizon

    def reset(self, instruction: str) -> None:
        """Starts an episode under an instruction.

        Raises SignalError for text that the binding does not accept, PromptTooLongError for more
        tokens than the backbone's text stream holds; the policy stays as it was then.
        """
        signal = self.binding.regions[self.binding.goal_region()].signal
        checked = self.binding.signals[signal].checked(signal, instruction)
        self.model.text.encode(checked)
        self.forget()
        self.instruction = checked

    def forget(self) -> None:
        """Ends the episode: no instruction, no frames."""
        self.instruction = None
        self._seen.clear()
        self._own_history = History(self.schema, self.binding)
        self._own_tick = 0

    def act(self, observation: Observation | Mapping[str, np.ndarray]) -> ActionChunk:
        """Decides on one observation.

        Args:
            observation: what a `History` made for this tick; or one sample by signal name (for
                example {"image": (H, W, 3) uint8, "state": (7,) float}), taken to be of the next
                control tick since `reset`: the policy then keeps the history itself. Names that no
                region samples are passed over.
        Returns:
            The action chunk, (horizon, size) in the action signal's units.
        Raises:
            NoInstructionError before the first `reset`; SignalError, NotReadyError for samples that
                are wrong or missing.
        """
        if self.instruction is None:
            raise NoInstructionError("policy: call reset(instruction) before act(observation)")
        if not isinstance(observation, Observation):
            observation = self._observe(observation)
        started = time.perf_counter()
        with torch.inference_mode():
            inputs = self.encode(observation)
            encoded = time.perf_counter()
            normalised = self.model(self.model.rows(inputs))[0]
            values = self.model.action.to_units(normalised)
        done = time.perf_counter()
        timings = {"codec": (encoded - started) * 1e3, "forward": (done - encoded) * 1e3}
        return ActionChunk(
            self.binding.regions[self.binding.action_region()].signal,
            observation.tick,
            values,
            timings,
        )

    def canvas(self, observation: Observation) -> torch.Tensor:
        """The input tokens (1, N, D) of an observation, as the backbone would see them."""
        with torch.inference_mode():
            return self.model.rows(self.encode(observation))

    def encode(self, observation: Observation) -> ModelInputs:
        """Runs the codecs on one observation: a batch of one."""
        return self.model.encode(observation.frames, self.instruction, self._seen)

    def _observe(self, samples: Mapping[str, np.ndarray]) -> Observation:
        history, stamp_ns = self._own_history, (self._own_tick + 1) * self.binding.tick_ns
        missing = [s for s in history.signals if s not in samples and not self._own_tick]
        if missing:
            raise NotReadyError(
                f"observation: expected signals {missing} too; got {sorted(samples)}"
            )
        given = [signal for signal in history.signals if signal in samples]
        for signal in given:  # all are looked at before any is kept
            history.checked(signal, stamp_ns, samples[signal])
        for signal in given:
            history.push(signal, stamp_ns, samples[signal])
        observation = history.observe(self._own_tick, stamp_ns)
        self._own_tick += 1
        return observation
