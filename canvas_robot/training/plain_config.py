"""PlainTrainConfig: everything a training of a plain policy is told, checked when it is read."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from canvas_robot.policy.plain_network import PlainShape
from canvas_robot.training.config import (
    OFF,
    ConfigError,
    Count,
    DataConfig,
    EmaConfig,
    Few,
    Name,
    Off,
    OptimiserConfig,
    Text,
)
from canvas_robot.training.yaml_reader import write_yaml


class PlainTrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training of a plain policy.

    Keys that a TrainConfig has too mean the same: one `data` section serves both. Pictures are
    squashed once, before the first step, to files in the run's folder, and read from there.

    policy: "plain". network: what it is made like.
    shift: pictures are moved by up to this many pixels, another way each time they are seen.
    steps, minutes: the run ends after so many updates, or so much time in the loop, all its starts
        together; whichever comes first, where both are given. The learning rate falls with the
        share that is used up.
    pictures_gb: how large the squashed pictures may be in all, in 1e9 bytes.
    """

    policy: Literal["plain"]
    data: DataConfig
    schema: Name = "widowx_tiny.json"
    binding: Name = "widowx.yaml"
    network: PlainShape = PlainShape()
    shift: Annotated[int, Meta(ge=0, le=256)] = 4
    statistics: Name = "data"
    pictures_gb: Annotated[float, Meta(gt=0.0, le=1e4)] = 8.0
    steps: Count | Off = OFF
    minutes: Annotated[float, Meta(gt=0.0, le=1e5)] | Off = OFF
    batch_size: Few
    optimiser: OptimiserConfig = OptimiserConfig()
    ema: EmaConfig | Off = OFF
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    log_every: Count = 50
    checkpoint_every: Count = 1000
    keep_checkpoints: Annotated[int, Meta(ge=1, le=1000)] = 2
    evaluate_every: Count = 1000
    run: Text = ""

    def __post_init__(self) -> None:
        if self.data.latents:
            raise ConfigError(
                f"data.latents: a plain policy sees pictures, expected none, got "
                f"{self.data.latents!r}"
            )
        if self.steps == self.minutes == OFF:
            raise ConfigError("steps: expected how many, or minutes, got neither: it never ends")
        if self.steps != OFF and self.optimiser.warmup_steps >= self.steps:
            raise ConfigError(
                f"optimiser.warmup_steps: expected fewer than the {self.steps} steps, "
                f"got {self.optimiser.warmup_steps}"
            )

    def used(self, steps: int, seconds: float) -> float:
        """The share of the run that so many steps and so much time are; 1 and more: it is over."""
        of_steps = 0.0 if self.steps == OFF else steps / self.steps
        of_time = 0.0 if self.minutes == OFF else seconds / (60 * self.minutes)
        return max(of_steps, of_time)

    def to_yaml(self) -> str:
        """Every key with its value; `load_config` reads it back."""
        return write_yaml(msgspec.to_builtins(self))
