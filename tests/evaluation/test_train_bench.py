"""Laws of the bench of training: what is timed, how rows are summed up, what is left over."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from rich.console import Console

from canvas_robot.data.synthetic import SyntheticCopy, write_synthetic
from canvas_robot.evaluation.train_bench import (
    MOST_WAITED,
    WARM_UP,
    bench_train,
    timed_config,
    train_figures,
)
from canvas_robot.resources import config_path
from canvas_robot.training.config_file import load_config
from canvas_robot.training.meter import MetricsRow


@pytest.fixture(autouse=True)
def alone():
    """One thread; Accelerate keeps one state for a process, which ends here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def config(*overrides):
    return load_config(config_path("train", "tiny_sim.yaml"), overrides)


def row(step, steps_per_s, data_wait):
    return MetricsRow(
        step=step,
        epoch=0,
        loss=1.0,
        parts={},
        lr=1e-3,
        loops=1,
        grad_norm=1.0,
        steps_per_s=steps_per_s,
        data_wait=data_wait,
        memory_mb=500.0,
        time=0.0,
    )


def test_rows_are_weighted_by_how_long_they_took():
    # WARM_UP updates in 1 s, all of it waiting, and in 4 s without: 2 * WARM_UP in 5 s.
    figures = train_figures([row(5, WARM_UP / 1, 1.0), row(10, WARM_UP / 4, 0.0)])
    assert figures == {
        "train_steps": 2 * WARM_UP,
        "train_steps_per_s": pytest.approx(2 * WARM_UP / 5),
        "data_wait": pytest.approx(1 / 5),
        "memory_mb": 500.0,
    }


@pytest.mark.parametrize("steps, total", [(1, 10), (5, 10), (6, 15), (30, 35)])
def test_what_is_not_timed_is_left_out(steps, total):
    timed = timed_config(config(), steps, Path("somewhere"))
    assert timed.steps == timed.checkpoint_every == timed.evaluate_every == total
    assert timed.log_every == WARM_UP and timed.data.holdout == "off" and timed.run == "somewhere"
    assert timed.curriculum == "off" and timed.optimiser.warmup_steps == 0
    assert timed.batch_size == config().batch_size and timed.ema == config().ema


def test_the_real_trainer_is_timed_on_data_of_bridges_layout(tmp_path, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    folder = write_synthetic(tmp_path / "copy", SyntheticCopy(episodes=2, size=64), frames)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = config(
        f"data.folder={folder}",
        "data.workers=0",
        "data.rules.language=keep",
        "batch_size=1",
        "loops=1",
    )
    before = set(tmp_path.iterdir())
    figures = json.loads(json.dumps(bench_train(own, 3, Console(quiet=True))))
    assert figures["train_steps"] == WARM_UP and figures["train_steps_per_s"] > 0
    assert 0 <= figures["data_wait"] < 1
    assert figures[f"target: data_wait <= {MOST_WAITED}"] == (figures["data_wait"] <= MOST_WAITED)
    assert (figures["batch_size"], figures["loops"], figures["workers"]) == (1, 1, 0)
    assert set(tmp_path.iterdir()) == before  # nothing of the run is left
