"""Speed of training by the real trainer, and the share of time in which it waits for data."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from rich.console import Console

from canvas_robot.training.config import OFF, TrainConfig
from canvas_robot.training.launch import run_training
from canvas_robot.training.meter import MetricsRow

WARM_UP = 5  # updates: the first one starts the readers
MOST_WAITED = 0.05  # the target


def bench_train(config: TrainConfig, steps: int, console: Console) -> dict:
    """Trains for some updates of the weights in a folder that is thrown away.

    Nothing is held out, and all loops run from the first update on.

    steps: timed updates, rounded up to a multiple of WARM_UP.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        run_training(timed_config(config, steps, run), console)
        lines = (run / "metrics.jsonl").read_bytes().splitlines()
    rows = [msgspec.json.decode(line, type=MetricsRow) for line in lines]
    figures = train_figures(rows[1:])
    return {
        **figures,
        f"target: data_wait <= {MOST_WAITED:g}": figures["data_wait"] <= MOST_WAITED,
        "batch_size": config.batch_size,
        "loops": config.loops,
        "workers": config.data.workers,
        "latents": bool(config.data.latents),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
    }


def timed_config(config: TrainConfig, steps: int, run: Path) -> TrainConfig:
    """The configuration with only what is timed left in it."""
    total = WARM_UP * (1 + -(-steps // WARM_UP))
    return msgspec.structs.replace(
        config,
        data=msgspec.structs.replace(config.data, holdout=OFF),
        optimiser=msgspec.structs.replace(config.optimiser, warmup_steps=0),
        curriculum=OFF,
        steps=total,
        log_every=WARM_UP,
        checkpoint_every=total,
        evaluate_every=total,
        run=str(run),
    )


def train_figures(rows: Sequence[MetricsRow]) -> dict:
    """Of rows of metrics that sum up WARM_UP updates each."""
    seconds = [WARM_UP / row.steps_per_s for row in rows]
    waited = [row.data_wait * each for row, each in zip(rows, seconds, strict=True)]
    return {
        "train_steps": WARM_UP * len(rows),
        "train_steps_per_s": WARM_UP * len(rows) / sum(seconds),
        "data_wait": sum(waited) / sum(seconds),
        "memory_mb": rows[-1].memory_mb,
    }
