"""TrainConfig: everything a training run is told, checked once when it is read.

How it is read from a file, and what is said of mistakes in it, is in config_file.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from canvas_robot.data.transitions import DataRules
from canvas_robot.training.yaml_reader import write_yaml

OFF = "off"

Off = Literal["off"]
Count = Annotated[int, Meta(ge=1, le=10**9)]
Few = Annotated[int, Meta(ge=1, le=65_536)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Below1 = Annotated[float, Meta(ge=0.0, lt=1.0)]
Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(min_length=1, max_length=4096)]


class ConfigError(ValueError):
    """A configuration or an override is not valid; the text says which key."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class BackboneConfig(_Section, kw_only=True):
    """The pretrained transformer: `source`, `revision`, `dtype` and `int8` as of load_backbone."""

    source: Name = "tiny"
    revision: Text = ""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    int8: bool = False


class DataConfig(_Section, kw_only=True):
    """What is learned from.

    folder, split, skip_corrupt: as of BridgeV2.
    holdout: what is never trained on: the name of another split, a fraction of the episodes of this
        one (its last), or off. holdout_windows: how many windows of it are evaluated.
    rules: as of DataRules.
    shuffle, clips_per_visit, block_episodes, crops: as of WindowSampler.
    balance: how often an episode of a rare instruction may come in an epoch, so that instructions
        get about as many windows; 1: every episode once. Statistics know nothing of it.
    latents: folder made by `canvas-robot data encode`; "": the VAE runs in every step.
    workers: processes that read, for each training process; 0 reads in the training process.
    """

    folder: Name
    split: Name = "train"
    holdout: Annotated[float, Meta(gt=0.0, lt=1.0)] | Name = "val"
    holdout_windows: Few = 64
    rules: DataRules = DataRules()
    shuffle: Literal["none", "block", "global"] = "block"
    clips_per_visit: Few = 4
    block_episodes: Few = 256
    balance: Annotated[int, Meta(ge=1, le=1000)] = 1
    latents: Text = ""
    crops: Annotated[int, Meta(ge=1, le=1024)] = 1
    workers: Annotated[int, Meta(ge=0, le=256)] = 2
    skip_corrupt: bool = False

    def __post_init__(self) -> None:
        if self.crops > 1 and not self.latents:
            raise ConfigError(
                f"crops: pictures are read whole, others are in a latent cache alone; expected 1 "
                f"without latents, got {self.crops}"
            )
        if self.holdout == self.split:
            raise ConfigError(
                f"holdout: expected another split than the one that is trained on, got "
                f"{self.holdout!r}; a fraction (0.05) holds a part of it out"
            )


class OptimiserConfig(_Section, kw_only=True):
    """AdamW and the course of its learning rate.

    lr: the largest. It rises to it over `warmup_steps`, then stays (constant) or falls to
        min_lr_ratio * lr at the last step (cosine).
    weight_decay: of matrices and kernels; gates, norms, biases and embeddings do not decay.
    clip_norm: largest norm of the gradient; off: it is not cut.
    """

    name: Literal["adamw"] = "adamw"
    lr: Annotated[float, Meta(gt=0.0, le=10.0)] = 3e-4
    betas: tuple[Below1, Below1] = (0.9, 0.95)
    weight_decay: Share = 0.01
    warmup_steps: Annotated[int, Meta(ge=0, le=10**9)] = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    min_lr_ratio: Share = 0.1
    clip_norm: Annotated[float, Meta(gt=0.0, le=1e9)] | Off = 1.0


class CurriculumConfig(_Section, kw_only=True):
    """The number of loops rises from 1 to all of them, as of CurriculumScheduler."""

    warmup_fraction: Below1 = 0.0


class EmaConfig(_Section, kw_only=True):
    """A moving average of the trained weights, which is what is evaluated and exported."""

    decay: Below1 = 0.999


class TrainConfig(_Section, kw_only=True):
    """A training run.

    schema, binding: files, or names of shipped ones.
    loops: times each block runs, at the end of the curriculum if there is one.
    mode: "adapt" a pretrained backbone, or "pretrain" all of it on video and actions.
    freeze: what of the backbone's transformer stays as it is: "full" (all), "half" (its input
        embeddings) or "none".
    statistics: a file, the name of a shipped one, or "data": computed from the training split.
    prompts: folder made by `canvas-robot prompts`; "": the text encoder is loaded.
    start_from: folder of an exported checkpoint whose codecs, head and, where it trains,
        transformer this run begins with; "": all are drawn from the seed.
    refresh: how slow regions will be refreshed on the robot, as of CanvasPolicy: "sliced" ones are
        older when they are acted on.
    steps: updates of the weights. batch_size: windows of a process; accumulate: batches of an
        update.
    precision: "bf16" runs under torch's autocast.
    gradient_checkpointing: compute loops again in the backward pass; "auto": where memory asks
        for it.
    log_every, checkpoint_every, evaluate_every: in steps; each is also done at the end.
    keep_checkpoints: the newest ones that stay.
    run: the folder that is written; "": runs/train/ and the time.
    """

    data: DataConfig
    schema: Name = "widowx_tiny.json"
    binding: Name = "widowx.yaml"
    backbone: BackboneConfig = BackboneConfig()
    loops: Annotated[int, Meta(ge=1, le=64)] = 3
    mode: Literal["adapt", "pretrain"] = "adapt"
    freeze: Literal["full", "half", "none"] = "full"
    statistics: Name = "data"
    prompts: Text = ""
    start_from: Text = ""
    refresh: Literal["inline", "sliced"] = "inline"
    steps: Count
    batch_size: Few
    accumulate: Few = 1
    optimiser: OptimiserConfig = OptimiserConfig()
    curriculum: CurriculumConfig | Off = OFF
    ema: EmaConfig | Off = OFF
    precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    log_every: Count = 10
    checkpoint_every: Count = 500
    keep_checkpoints: Annotated[int, Meta(ge=1, le=1000)] = 2
    evaluate_every: Count = 500
    run: Text = ""

    def __post_init__(self) -> None:
        if self.freeze != "full" and (self.backbone.dtype != "float32" or self.backbone.int8):
            raise ConfigError(
                f"backbone: what trains is float32: freeze {self.freeze!r} expects dtype float32 "
                f"without int8, got {self.backbone.dtype}{' int8' * self.backbone.int8}; "
                "precision: bf16 computes in bfloat16 all the same"
            )
        if self.mode == "pretrain" and self.freeze != "none":
            raise ConfigError(
                f"freeze: mode 'pretrain' trains the whole backbone, expected 'none', "
                f"got {self.freeze!r}"
            )
        if self.optimiser.warmup_steps >= self.steps:
            raise ConfigError(
                f"optimiser.warmup_steps: expected fewer than the {self.steps} steps, "
                f"got {self.optimiser.warmup_steps}"
            )

    def to_yaml(self) -> str:
        """Every key with its value; `load_config` reads it back."""
        return write_yaml(msgspec.to_builtins(self))
