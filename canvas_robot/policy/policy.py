"""CanvasPolicy: what a robot, a simulator or a data set calls.

Observations in, action chunks out.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from canvas_robot.backbone.loading import Backbone, load_backbone
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.policy.imagination import Imagination
from canvas_robot.policy.model import CanvasModel, ModelInputs
from canvas_robot.policy.prompts import PromptFolder
from canvas_robot.policy.protocol import Imagined, nothing
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.schema import CanvasSchema
from canvas_robot.schema.advice import wasted_periods
from canvas_robot.signals import (
    ActionChunk,
    Binding,
    Frames,
    GoingOn,
    Observation,
    Statistics,
    TickHistory,
)

_LOG = logging.getLogger(__name__)


class NoInstructionError(RuntimeError):
    """`act` was called before `reset`."""


class CanvasPolicy:
    """One robot's policy: a model, the instruction it follows and what it has seen and computed.

    about_to_decide: called by `act` when only the head is left to compute, or, on an accelerator,
        to queue; must not raise.

    Args:
        model: the weights; it is put into evaluation mode, and they must not change while it acts.
        schema, binding: the declarations that the model was built from.
        statistics: normalisation statistics by signal name.
        source: name, folder or hub id of the backbone; sha256: its fingerprint by part.
        trained: whether any training made these weights; every output says so.
        refresh: how slow regions are computed: "inline" in their tick, "sliced" between ticks.
        fuse: torch.compile fuses the elementwise parts, see PlanRunner.fuse.
    Raises:
        RefreshError: the schema's slow regions cannot be refreshed like that.
    """

    def __init__(
        self,
        model: CanvasModel,
        schema: CanvasSchema,
        binding: Binding,
        statistics: dict[str, Statistics],
        source: str,
        sha256: dict[str, str],
        trained: bool,
        refresh: str = "inline",
        fuse: bool = False,
    ) -> None:
        self.model = model.eval()
        if fuse:
            model.runner.fuse()
        self.schema, self.binding, self.statistics = schema, binding, statistics
        self.source, self.sha256, self.trained = source, sha256, trained
        self.instruction: str | None = None
        self._ticks = TickRunner(model.runner, refresh, outputs=[model.action_region])
        for advice in wasted_periods(schema, model.plan):
            _LOG.warning(advice.text)
        self._seen = FrameCache()
        self._frames: dict[str, Frames] = {}  # by region, what its tokens were made of
        self._goal: str | None = None  # the instruction that the goal's tokens were made of
        self._own_history = TickHistory(schema, binding)
        self.about_to_decide: Callable[[], None] = nothing
        self._observation: Observation | None = None  # of the last decision
        self._imagining: Iterator[Imagined | None] | None = None

    @classmethod
    def untrained(
        cls,
        schema: CanvasSchema,
        binding: Binding,
        statistics: dict[str, Statistics],
        backbone: Backbone | str = "tiny",
        loops: int = 3,
        seed: int = 0,
        prompts: PromptFolder | None = None,
        refresh: str = "inline",
        fuse: bool = False,
    ) -> CanvasPolicy:
        """A policy whose loops, codecs and head are random, from a seed; `backbone` or its name."""
        if isinstance(backbone, str):
            backbone = load_backbone(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = CanvasModel(schema, binding, statistics, backbone, loops, prompts)
        device = next(backbone.transformer.parameters()).device
        return cls(
            model.to(device),
            schema,
            binding,
            statistics,
            backbone.source,
            backbone.sha256,
            trained=False,
            refresh=refresh,
            fuse=fuse,
        )

    @property
    def horizon(self) -> int:
        """Control ticks in one action chunk."""
        return self.model.action.horizon

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) in pixels of the pictures that it looks at, by region."""
        visual = self.binding.regions_by_codec("visual")
        return {region: self.model.codec(region).image_size for region in visual}

    def reset(self, instruction: str) -> None:
        """Starts an episode under an instruction.

        Raises SignalError for text that the binding does not accept, PromptTooLongError for more
        tokens than the backbone's text stream holds; the policy stays as it was then.
        """
        accepted = self._accepted(instruction)
        self.forget()
        self.instruction = accepted

    def instruct(self, instruction: str) -> None:
        """Another goal, in the middle of an episode: it counts from the next tick on.

        Raises what `reset` raises, and NoInstructionError before the first `reset`.
        """
        if self.instruction is None:
            raise NoInstructionError("policy: call reset(instruction) before instruct(instruction)")
        self.instruction = self._accepted(instruction)

    def forget(self) -> None:
        """Ends the episode: no instruction, no frames, nothing kept."""
        self.instruction = None
        self._start_over()
        self._seen.clear()
        self._own_history.clear()

    def act(
        self, observation: Observation | Mapping[str, np.ndarray], going_on: GoingOn | None = None
    ) -> ActionChunk:
        """Decides on one observation. What did not change since the last one is not computed anew.

        Args:
            observation: what a `History` made for this tick; or one sample by signal name (for
                example {"image": (H, W, 3) uint8, "state": (7,) float}), taken to be of the next
                control tick since `reset`: the policy then keeps the history itself. Names that no
                region samples are passed over.
            going_on: what is carried out meanwhile. A diffusion head draws a chunk that goes on
                with it; any other passes it over.
        Returns:
            The action chunk, (horizon, size) in the action signal's units.
        Raises:
            NoInstructionError before the first `reset`; SignalError, NotReadyError for samples that
                are wrong or missing; RefreshError for a tick that is not after the last one.
        """
        if self.instruction is None:
            raise NoInstructionError("policy: call reset(instruction) before act(observation)")
        if not isinstance(observation, Observation):
            observation = self._own_history.observe(observation)
        try:
            return self._decided(observation, going_on)
        except BaseException:
            self._start_over()  # what was left half done must never be acted on
            raise

    def work(self) -> None:
        """Between ticks, once the action is out: this tick's share of a sliced refresh."""
        try:
            self._ticks.work()
        except BaseException:
            self._start_over()
            raise

    def imagined(self, seconds: float) -> Imagined | None:
        """Goes on predicting the pictures that follow a decision; None until they are done.

        They are drawn anew for every decision that is asked about, from what it was made of and one
        fixed noise; no decision, and nobody's random numbers, depend on it.

        Args:
            seconds: to compute, exceeded by no more than one loop of a block, or one picture's
                decoding.
        """
        if self._imagination is None or (self._imagining is None and not self._ticks.began):
            return None
        until = time.perf_counter() + seconds
        if self._imagining is None:
            self._imagining = self._imagination.draw(self._observation, self._goal)
        try:
            with torch.inference_mode():
                for done in self._imagining:
                    if done is not None:
                        self._imagining = None
                        return done
                    if time.perf_counter() >= until:
                        return None
        except BaseException:
            self._imagining = None
            raise
        return None

    @functools.cached_property
    def _imagination(self) -> Imagination | None:
        """Made when it is first asked for."""
        if not self.model.future_regions:
            return None
        return Imagination(self.model, self.schema, self._ticks)

    def _decided(self, observation: Observation, going_on: GoingOn | None) -> ActionChunk:
        started, squash_ms = time.perf_counter(), self._seen.squash_ms
        with torch.inference_mode():
            changed = self._changed(observation)
            inputs = self.model.encode(observation.frames, self.instruction, self._seen, changed)
            encoded = time.perf_counter()
            rows = self._ticks.tick(
                self.model.tokens(inputs),
                self._events(changed),
                {region: (observation.tick, frames) for region, frames in self._frames.items()},
                observation.tick,
            )
            self.about_to_decide()
            region, modulator = self.model.action_region, self._ticks.modulator
            tokens = self.model.output_tokens(rows, region, modulator)
            head = self.model.action
            continues = going_on if head.goes_on else None
            drawn = head.decode(tokens) if continues is None else head.go_on(tokens, continues)
            values = head.to_units(drawn[0])
        done = time.perf_counter()
        self._goal, self._observation = self.instruction, observation
        acted = {region: label for region, label in self._ticks.acted_on.items() if label}
        return ActionChunk(
            self.binding.regions[self.binding.action_region()].signal,
            observation.tick,
            values,
            {
                "squash": self._seen.squash_ms - squash_ms,
                "codec": (encoded - started) * 1e3,
                "forward": (done - encoded) * 1e3,
            },
            {region: int(frames.stamps_ns[-1]) for region, (_, frames) in acted.items()},
            {region: observation.tick - tick for region, (tick, _) in acted.items()},
            continues,
        )

    @property
    def last_canvas(self) -> torch.Tensor:
        """The input tokens (1, N, D) as the last decision left them, of each region its newest."""
        return self._ticks.inputs

    def canvas(self, observation: Observation) -> torch.Tensor:
        """The input tokens (1, N, D) of an observation, all computed anew."""
        with torch.inference_mode():
            return self.model.rows(self.encode(observation))

    def encode(self, observation: Observation) -> ModelInputs:
        """Runs the codecs on all of one observation: a batch of one."""
        return self.model.encode(observation.frames, self.instruction, self._seen)

    def _start_over(self) -> None:
        """Keeps nothing that was computed: the next decision computes everything."""
        self._ticks.reset()
        self._frames, self._goal = {}, None
        self._observation = self._imagining = None

    def _changed(self, observation: Observation) -> list[str]:
        """The regions whose tokens are not those of the last tick, of those that the action needs.

        Keeps their frames.
        """
        first = not self._frames
        changed = []
        for region in sorted(self._ticks.regions):
            frames = observation.frames.get(region)
            if frames is not None:
                if not first and _same(frames, self._frames[region]):
                    continue
                self._frames[region] = frames
            elif not first and not (
                region == self.model.goal_region and self.instruction != self._goal
            ):
                continue
            changed.append(region)
        return changed

    def _events(self, changed: list[str]) -> list[str]:
        """A new goal in the middle of an episode."""
        new_goal = self._goal is not None and self.instruction != self._goal
        return [self.model.goal_region] if new_goal and self.model.goal_region in changed else []

    def _accepted(self, instruction: str) -> str:
        """The instruction, if signal and codec accept it; its embedding is remembered."""
        signal = self.binding.regions[self.binding.goal_region()].signal
        checked = self.binding.signals[signal].checked(signal, instruction)
        self.model.text.encode(checked)
        return checked


def _same(first: Frames, second: Frames) -> bool:
    return first is second or (
        np.array_equal(first.stamps_ns, second.stamps_ns)
        and np.array_equal(first.missing, second.missing)
        and np.array_equal(first.values, second.values)
    )
