"""From names and paths to a policy: the one place where files are chosen for a run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from canvas_robot.backbone.loading import DTYPES, load_backbone_for
from canvas_robot.policy.checkpoint import load_checkpoint
from canvas_robot.policy.checkpoint_files import CheckpointError
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.prompts import open_prompts
from canvas_robot.resources import resolve_config
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import ImageSignal, VectorSignal, load_binding, load_statistics

DEFAULT_SCHEMA, DEFAULT_BINDING, DEFAULT_STATISTICS = (
    "widowx_tiny.json",
    "widowx.yaml",
    "bridge_v2.json",
)

# Of a node. With two busy programs beside it on two cores, 95% of decisions came within 307 ms with
# one thread and within 3,531 ms with two (canvas-robot bench policy): each waits for the other.
DEFAULT_THREADS = 1
DEFAULT_LOOPS = 3
DEFAULT_SEED = 8  # of an untrained policy: one whose aimless drift stays in the camera's view


@dataclass(frozen=True)
class PolicySettings:
    """What to run.

    Empty strings and 0 mean the checkpoint's own, or the default where there is no checkpoint.

    dtype: of the frozen weights, one of DTYPES; int8, float8: their linear layers in 8
        bits, as whole numbers or e4m3 floats.
    prompts: folder made by `canvas-robot prompts`; the text encoder is not loaded then.
    refresh: "inline" or "sliced"; fuse: torch.compile the elementwise parts; as of CanvasPolicy.
    """

    checkpoint: str = ""
    schema: str = ""
    binding: str = ""
    backbone: str = "tiny"
    device: str = "cpu"
    control_rate_hz: float = 0.0
    seed: int = DEFAULT_SEED
    dtype: str = "float32"
    int8: bool = False
    float8: bool = False
    prompts: str = ""
    refresh: str = "inline"
    fuse: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {sorted(DTYPES)}, got {self.dtype!r}")


def assemble_policy(settings: PolicySettings) -> CanvasPolicy:
    """The policy of a checkpoint, or an untrained one.

    Raises CheckpointError, SchemaError, BindingError, FileNotFoundError and the like, naming the
    file.
    """
    if settings.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(
            f"device: expected cpu, as torch sees no CUDA device here; got {settings.device!r}"
        )
    binding = (
        load_binding(resolve_config("bindings", settings.binding)) if settings.binding else None
    )
    schema = (
        CanvasSchema.from_json(resolve_config("schemas", settings.schema))
        if settings.schema
        else None
    )
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
    binding = binding or load_binding(resolve_config("bindings", DEFAULT_BINDING))
    if settings.control_rate_hz:
        binding = binding.with_control_rate(settings.control_rate_hz)
    schema = schema or CanvasSchema.from_json(resolve_config("schemas", DEFAULT_SCHEMA))
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
    for _ in range(decisions):
        started = time.perf_counter()
        policy.act(samples)
    elapsed = (time.perf_counter() - started) * 1e3
    policy.forget()
    return elapsed
