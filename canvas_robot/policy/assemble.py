"""From names and paths to a policy: the one place where files are chosen for a run."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from canvas_robot.backbone.loading import DTYPES, load_backbone_for
from canvas_robot.policy.checkpoint import load_checkpoint
from canvas_robot.policy.checkpoint_files import CheckpointError
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.prompts import open_prompts
from canvas_robot.policy.settings import (
    DEFAULT_LOOPS,
    DEFAULT_STATISTICS,
    PolicySettings,
    declarations,
    default_declarations,
)
from canvas_robot.resources import resolve_config
from canvas_robot.signals import GoingOn, ImageSignal, VectorSignal, load_statistics


def assemble_policy(settings: PolicySettings) -> CanvasPolicy:
    """The policy of a checkpoint, or an untrained one.

    Raises CheckpointError, SchemaError, BindingError, FileNotFoundError and the like, naming the
    file.
    """
    if settings.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(
            f"device: expected cpu, as torch sees no CUDA device here; got {settings.device!r}"
        )
    schema, binding = declarations(settings)
    if settings.checkpoint:
        policy = load_checkpoint(
            settings.checkpoint,
            settings.device,
            binding,
            settings.control_rate_hz,
            DTYPES[settings.dtype],
            settings.int8,
            settings.prompts,
            settings.refresh,
            settings.fuse,
            settings.float8,
        )
        if schema is not None and schema != policy.schema:
            raise CheckpointError(
                f"checkpoint {settings.checkpoint}: its schema differs from {settings.schema}; "
                f"leave the schema out, or use a checkpoint that was trained with it"
            )
        return policy
    schema, binding = default_declarations(settings)
    backbone = load_backbone_for(
        schema,
        DEFAULT_LOOPS,
        settings.backbone,
        DTYPES[settings.dtype],
        device=settings.device,
        int8=settings.int8,
        float8=settings.float8,
        text_encoder=not settings.prompts,
        sliced=settings.refresh == "sliced",
    )
    return CanvasPolicy.untrained(
        schema,
        binding,
        load_statistics(resolve_config("statistics", DEFAULT_STATISTICS)),
        backbone,
        loops=DEFAULT_LOOPS,
        seed=settings.seed,
        prompts=open_prompts(settings.prompts, backbone) if settings.prompts else None,
        refresh=settings.refresh,
        fuse=settings.fuse,
    )


def warm_up(policy: CanvasPolicy, decisions: int = 3) -> float:
    """Runs a few decisions on grey images and mid-range vectors; milliseconds of the last one."""
    policy.reset(policy.model.text.example())
    samples = {}
    for name, signal in policy.binding.signals.items():
        if isinstance(signal, ImageSignal):
            samples[name] = np.full((*signal.sizes[0], 3), 128, np.uint8)
        elif isinstance(signal, VectorSignal):
            samples[name] = (np.float32(signal.low) + np.float32(signal.high)) / 2
    going_on = None  # a decision that goes on with the last one is what takes longest
    for _ in range(decisions):
        started = time.perf_counter()
        going_on = GoingOn(policy.act(samples, going_on).values, 1)
    elapsed = (time.perf_counter() - started) * 1e3
    policy.imagined(math.inf)  # what is compiled for it is compiled now
    policy.forget()
    return elapsed
