"""Objective: what a CanvasModel is trained to do, as one number for a batch.

The action's error, and the diffusion loss of the video that it predicts, position by position. The
loop that minimises it is trainer.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from canvas_robot.data.batches import Batch
from canvas_robot.policy.cache import JointCache
from canvas_robot.policy.codecs.native import video_latents
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.modulation import Modulator
from canvas_robot.policy.passes import CompiledPass
from canvas_robot.policy.video_noise import NoisyVideo, VideoNoise, with_drawn_timesteps
from canvas_robot.schema import CanvasSchema, compile_plan
from canvas_robot.training.held import HeldCache, RecordingCache

Mode = Literal["adapt", "pretrain"]


class ObjectiveError(ValueError):
    """A schema has nothing to learn, or a batch lacks what it would be learned from."""


class Objective(nn.Module):
    """The loss of a model on batches of recorded windows.

    Every output position of a sample weighs as its region's loss_weight says; canvas steps that
    recordings do not have weigh nothing. All samples weigh the same.

    Args:
        model: its own parameters are what is trained.
        schema: the one that the model was built from.
        mode: "adapt" (the backbone is frozen) or "pretrain" (it learns too).
        noise: how video to predict is made noisy.
    Raises:
        ObjectiveError: the action is no output, held regions have several periods, or a mode that
            does not fit what the model froze.
    """

    def __init__(
        self,
        model: CanvasModel,
        schema: CanvasSchema,
        mode: Mode = "adapt",
        noise: VideoNoise | None = None,
    ) -> None:
        super().__init__()
        self.model, self._noise = model, noise or VideoNoise()
        specs = {region: schema.layout.region_spec(region) for region in schema.layout.regions}
        decoded = [region for region, role in model.roles.items() if role in ("action", "reward")]
        self._outputs = [region for region in decoded if specs[region].is_output]
        self._future = sorted(model.future_regions)
        self._weights = {r: specs[r].loss_weight for r in (*self._outputs, *self._future)}
        self._held = sorted(region for region, spec in specs.items() if spec.hold)
        _require_learnable(model, specs, mode, self._outputs, self._held)
        drawn = with_drawn_timesteps(schema, self._future)
        self._timesteps = {r: drawn.layout.region_spec(r).timestep for r in specs}
        self.passes = nn.ModuleList(
            TrainingPass(drawn, loops, model, self._held)
            for loops in range(1, model.plan.loops + 1)
        )
        self.set_loops(model.plan.loops)

    @property
    def loops(self) -> int:
        """Times that each block runs at present."""
        return self._loops

    def set_loops(self, loops: int) -> None:
        """Lets each block run that often, as a curriculum does: from 1 to the model's loops."""
        if not 1 <= loops <= len(self.passes):
            raise ObjectiveError(f"loops: expected 1 to {len(self.passes)}, got {loops}")
        self._loops = loops

    def trained(self) -> dict[str, nn.Parameter]:
        """What is trained, by the names that a checkpoint gives them."""
        return {n: p for n, p in self.model.own_parameters().items() if p.requires_grad}

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The loss, a scalar under "loss", and each output region's own mean under its name.

        Raises ObjectiveError for a batch without frames or targets of a region.
        """
        noisy = {region: self._drawn(batch, region) for region in self._future}
        given = self._tokens(self._encoded(batch, batch.frames, self.model.given_regions), noisy)
        rows = self._rows(given)
        earlier = rows
        if self._held and batch.past:
            before = self._encoded(batch, batch.past, list(batch.past))
            earlier = self._rows(given | self.model.tokens(before))
        running = self.passes[self._loops - 1]
        timesteps = {self._timesteps[r]: video.timesteps for r, video in noisy.items()}
        modulator = Modulator(self.model.runner.transformer, running.plan, timesteps)
        modulator.make()
        out = running(self.model, rows, earlier, modulator)
        errors = {}
        for region in self._outputs:
            tokens = self._finished(out, region, modulator)
            errors[region] = self._decoded_error(batch, region, tokens)
        for region, video in noisy.items():
            tokens = self._finished(out, region, modulator)
            errors[region] = self._video_error(video, tokens)
        return self._weighed(batch, errors)

    def _encoded(
        self, batch: Batch, frames: Mapping, regions: list[str]
    ) -> dict[str, torch.Tensor]:
        """What the codecs of some regions make of the batch; nothing of it is trained."""
        size, device, encoded = len(batch.instructions), self.model.canvas.empty_token.device, {}
        with torch.no_grad():
            for region in regions:
                codec, role = self.model.codec(region), self.model.roles[region]
                if role == "frames":
                    encoded[region] = codec.encode_batch(*_of(frames, region, "frames"))
                elif role == "instruction":
                    made = {text: codec.encode(text) for text in set(batch.instructions)}
                    encoded[region] = torch.stack([made[text] for text in batch.instructions])
                else:
                    encoded[region] = codec.encode(None).expand(size, -1)
                encoded[region] = encoded[region].to(device)
        return encoded

    def _drawn(self, batch: Batch, region: str) -> NoisyVideo:
        with torch.no_grad():
            clean = self.model.codec(region).encode_batch(*_of(batch.targets, region, "targets"))
            return self._noise.draw(clean.float())

    def _tokens(
        self, encoded: dict[str, torch.Tensor], noisy: dict[str, NoisyVideo]
    ) -> dict[str, torch.Tensor]:
        return self.model.tokens(encoded | {r: video.latents for r, video in noisy.items()})

    def _rows(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([tokens[region.name] for region in self.model.plan.regions], dim=1)

    def _finished(self, out: torch.Tensor, region: str, modulator: Modulator) -> torch.Tensor:
        placed = self.model.plan.region(region)
        return modulator.finish(out[:, placed.start : placed.stop], self._timesteps[region])

    def _decoded_error(self, batch: Batch, region: str, tokens: torch.Tensor) -> torch.Tensor:
        """(B, t): the codec's own loss at each step."""
        codec, (values, _) = self.model.codec(region), _of(batch.targets, region, "targets")
        return codec.loss(tokens, codec.from_units(values.cpu().numpy()).to(tokens.device))

    def _video_error(self, video: NoisyVideo, tokens: torch.Tensor) -> torch.Tensor:
        """(B, F): squared error of the predicted velocity."""
        transformer = self.model.runner.transformer
        _, frames, _, height, width = video.velocity.shape
        predicted = video_latents(
            transformer.proj_out(tokens), (frames, height, width), transformer.config.patch_size
        )
        return (predicted.float() - video.velocity).square().mean(dim=(2, 3, 4))

    def _weighed(self, batch: Batch, errors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Means over a sample's positions, then over samples: so a batch may be split anyhow."""
        total = weight = 0.0
        result = {}
        for region, error in errors.items():
            _, missing = _of(batch.targets, region, "targets")
            known = (~missing).to(error.device, error.dtype)
            summed, count = (error * known).sum(dim=1), known.sum(dim=1)  # (B,)
            result[region] = (summed / count.clamp(min=1)).mean()
            cells = self.model.codec(region).token_count / error.shape[1]
            total = total + self._weights[region] * cells * summed
            weight = weight + self._weights[region] * cells * count
        return {"loss": (total / weight.clamp(min=1e-12)).mean(), **result}


class TrainingPass(nn.Module):
    """All rows of a plan, each block run `loops` times; held rows as of their own last refresh."""

    def __init__(
        self, schema: CanvasSchema, loops: int, model: CanvasModel, held: list[str]
    ) -> None:
        super().__init__()
        counts = {region: model.codec(region).token_count for region in schema.layout.regions}
        self.plan = compile_plan(schema, loops, counts)
        names = [region.name for region in self.plan.regions]
        self.everything = CompiledPass(self.plan, names)
        self._held = held
        self.others = CompiledPass(self.plan, set(names) - set(held)) if held else None

    def forward(
        self, model: CanvasModel, rows: torch.Tensor, earlier: torch.Tensor, modulator: Modulator
    ) -> torch.Tensor:
        """The last block's output (B, N, D).

        Args:
            rows: input tokens (B, N, D) as of now.
            earlier: as of the held regions' last refresh.
        """
        if not self._held:
            cache = JointCache(self.plan)
            return _last(model.runner.steps(rows, self.everything, cache, modulator))
        recorded = RecordingCache(self.plan)
        before = _last(model.runner.steps(earlier, self.everything, recorded, modulator))
        cache = HeldCache(self.plan, self._held, recorded.kept)
        now = rows.index_select(1, self.others.rows)
        after = _last(model.runner.steps(now, self.others, cache, modulator))
        return before.index_copy(1, self.others.rows, after)


def _last(steps) -> torch.Tensor:
    (last,) = deque(steps, maxlen=1)
    return last


def _of(
    by_region: Mapping[str, tuple[torch.Tensor, torch.Tensor]], region: str, what: str
) -> tuple[torch.Tensor, torch.Tensor]:
    if region not in by_region:
        raise ObjectiveError(
            f"batch: expected {what} of region {region!r}, got those of {sorted(by_region)}"
        )
    return by_region[region]


def _require_learnable(
    model: CanvasModel, specs: Mapping, mode: str, outputs: list[str], held: list[str]
) -> None:
    if model.action_region not in outputs:
        raise ObjectiveError(
            f"schema: region {model.action_region!r} holds the action and is no output; "
            "set is_output to true"
        )
    if not sum(specs[region].loss_weight for region in (*outputs, *model.future_regions)):
        raise ObjectiveError("schema: every output has loss_weight 0; nothing would be learned")
    periods = {specs[region].period for region in held}
    if len(periods) > 1:
        raise ObjectiveError(
            f"schema: regions {held} hold and have periods {sorted(periods)}; what each read at "
            "its own last refresh cannot be trained together: give them one period"
        )
    if mode not in ("adapt", "pretrain"):
        raise ObjectiveError(f"mode: expected 'adapt' or 'pretrain', got {mode!r}")
    if mode == "pretrain" and model.freeze != "none":
        raise ObjectiveError(
            f"mode 'pretrain' trains the whole backbone: expected freeze 'none', got "
            f"{model.freeze!r}"
        )
    if mode == "pretrain" and not model.future_regions:
        raise ObjectiveError(
            "mode 'pretrain' learns video and actions together: expected a visual region with "
            "is_output true, the frames to come; got none"
        )
