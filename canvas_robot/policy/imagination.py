"""Imagination: the pictures to come that a model predicts, from what one of its ticks computed.

Regions of the future learn to take noise off the pictures that came, at every noise level
(training/objective.py), whether the backbone is frozen or not. So they are drawn as CogVideoX draws
videos: from noise, in a few passes, in small pieces that fit between ticks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch

from canvas_robot.policy.cache import RowCache
from canvas_robot.policy.codecs.native import video_latents
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.modulation import Modulator
from canvas_robot.policy.passes import CompiledPass
from canvas_robot.policy.protocol import Imagined
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.policy.video_noise import VideoNoise, with_drawn_timesteps
from canvas_robot.schema import CanvasSchema, Plan, compile_plan, needed_for
from canvas_robot.signals import Observation

# Passes from noise to picture. On the demo policy's second stage (demo_pretrain.yaml) one leaves
# noise, as so high a level is seldom drawn in training; two show the scene; ten little more than
# four.
STEPS = 4

Latents = dict[str, torch.Tensor]
"""By region, (1, F, C, h, w) float32."""


class Imagination:
    """Draws all future regions of a model together, always from the same noise.

    They read a copy of the keys and values that a decision was made of, and no decision reads them.

    Args:
        model, schema: with future regions.
        ticks: runs the model's plan for its action.
    """

    def __init__(self, model: CanvasModel, schema: CanvasSchema, ticks: TickRunner) -> None:
        self._model, self._ticks = model, ticks
        self._future = sorted(model.future_regions)
        drawn = with_drawn_timesteps(schema, self._future)
        counts = {region: model.codec(region).token_count for region in schema.layout.regions}
        plan = compile_plan(drawn, model.plan.loops, counts)
        computed = needed_for(plan, self._future) - ticks.regions
        self._others = sorted(computed - model.future_regions)  # no action reads them
        self._order = [region.name for region in plan.regions if region.name in computed]
        self._device = model.canvas.empty_token.device
        self._pass = CompiledPass(plan, computed).to(self._device)
        self._timesteps = {r: drawn.layout.region_spec(r).timestep for r in self._future}
        self._noise = VideoNoise()
        self._levels = self._noise.levels(STEPS)
        self._modulators = [self._folded(plan, level) for level in self._levels]
        random = torch.Generator().manual_seed(0)
        self._begin = {
            region: torch.randn(self._size(schema, region), generator=random).to(self._device)
            for region in self._future
        }
        self._cache: RowCache | None = None

    def draw(self, observation: Observation, instruction: str) -> Iterator[Imagined | None]:
        """What follows the last tick: None after each piece of the work, at last the pictures.

        What it reads is copied when the first piece is asked for. In inference mode.

        Args:
            observation, instruction: that the tick was made of.
        """
        self._cache = self._ticks.copied(self._cache)
        encoded = self._model.encode(observation.frames, instruction, regions=self._others)
        tokens, latents = self._model.tokens(encoded), self._begin
        for level, then, modulator in zip(
            self._levels, [*self._levels[1:], None], self._modulators, strict=True
        ):
            now = tokens | self._model.tokens(latents)
            rows = torch.cat([now[region] for region in self._order], dim=1)
            steps = self._model.runner.steps(rows, self._pass, self._cache, modulator)
            out = yield from self._in_pieces(steps)
            velocities = self._velocities(out, latents, modulator)
            latents = {
                region: self._noise.less_noisy(latents[region], velocity, level, then)
                for region, velocity in velocities.items()
            }
        frames = {}
        for region, clean in latents.items():
            pictures = []
            for latent in clean[0]:
                pictures.append(self._model.codec(region).decode(latent[None]))
                yield None
            frames[region] = np.concatenate(pictures)
        yield Imagined(observation.tick, frames)

    def _in_pieces(self, steps: Iterator[torch.Tensor]) -> Generator[None, None, torch.Tensor]:
        """None after each step, once it has been computed; returns the last."""
        for step in steps:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            last = step
            yield None
        return last

    def _velocities(self, out: torch.Tensor, latents: Latents, modulator: Modulator) -> Latents:
        """Of the noisy latents, by the last block's output (1, n, D) of the pass."""
        transformer, velocities, start = self._model.runner.transformer, {}, 0
        for region in self._order:
            stop = start + self._model.codec(region).token_count
            if region in latents:
                tokens = modulator.finish(out[:, start:stop], self._timesteps[region])
                _, frames, _, height, width = latents[region].shape
                velocities[region] = video_latents(
                    transformer.proj_out(tokens),
                    (frames, height, width),
                    transformer.config.patch_size,
                ).float()
            start = stop
        return velocities

    def _folded(self, plan: Plan, level: int) -> Modulator:
        """The norms where all of the future is at one noise level."""
        at = torch.tensor([level], device=self._device)
        drawn = dict.fromkeys(self._timesteps.values(), at)
        modulator = Modulator(self._model.runner.transformer, plan, drawn)
        modulator.fold()
        return modulator

    def _size(self, schema: CanvasSchema, region: str) -> tuple[int, ...]:
        patch = self._model.runner.transformer.config.patch_size
        channels = self._model.codec(region).encoder.latent_channels
        t, h, w = schema.layout.region_size(region)
        return 1, t, channels, h * patch, w * patch
