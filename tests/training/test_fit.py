"""Laws of --fit: what is counted is what is there, and checkpointing comes where memory asks."""

import io

import pytest
import torch
from rich.console import Console

from canvas_robot.backbone.freeze import is_looped
from canvas_robot.training.fit import FitReport, KeptMemory, fit_table, fit_training
from canvas_robot.training.gradient_checkpointing import (
    choose_checkpointing,
    kept_by,
    set_checkpointing,
)
from canvas_robot.training.parts import build_parts
from canvas_robot.training.sharing import make_accelerator

GB = 2**30


@pytest.fixture(scope="module")
def built(make_config):
    """A configuration's parts, and the accelerator that they are on."""
    config = make_config("ema.decay=0.9", "data.holdout=off", "steps=3600")
    accelerator = make_accelerator(config)
    return build_parts(config, accelerator), accelerator


@pytest.fixture(scope="module")
def report(make_config):
    return fit_training(
        make_config("ema.decay=0.9", "data.holdout=off", "steps=3600"), Console(quiet=True)
    )


def test_bytes_are_those_of_the_parameters(report, built):
    trained, frozen = built[0].counts
    assert (report.trained, report.frozen) == (trained, frozen)
    assert report.trained_bytes == report.gradient_bytes == report.average_bytes == 4 * trained
    tensors = len(built[0].objective.trained())
    assert report.optimiser_bytes == 8 * trained + 4 * tensors
    assert report.frozen_bytes >= 4 * frozen


def test_steps_were_timed_and_hours_follow(report):
    assert report.seconds > 0 and report.peak_bytes is None
    assert report.hours == pytest.approx(report.seconds)  # 3600 steps


def test_what_a_batch_keeps_grows_by_as_much_for_every_window(built, report):
    parts, accelerator = built
    set_checkpointing(parts.objective, False)
    three = kept_by(parts, accelerator, 3)
    assert three == pytest.approx(report.kept.fixed + 3 * report.kept.per_window, rel=0.02)


def test_checkpointing_keeps_much_less(report):
    assert report.kept_again.per_window < 0.3 * report.kept.per_window


def test_counting_leaves_random_numbers_and_weights_as_they_were(built):
    parts, accelerator = built
    before = torch.get_rng_state()
    kept_by(parts, accelerator, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in parts.objective.parameters())


@pytest.mark.parametrize("asked, on", [("true", True), ("false", False), ("auto", False)])
def test_checkpointing_is_as_asked_or_off_where_memory_is_plenty(make_config, built, asked, on):
    parts, accelerator = built
    config = make_config(f"gradient_checkpointing={asked}")
    changed = type(parts)(**{**vars(parts), "config": config})
    assert choose_checkpointing(changed, accelerator) is on
    blocks = [block for block in parts.objective.modules() if is_looped(block)]
    assert blocks and all(block.use_gradient_checkpointing is on for block in blocks)


def test_checkpointing_is_on_where_a_batch_does_not_fit(make_config, built):
    """65,536 windows of 9 MB each."""
    parts, accelerator = built
    changed = type(parts)(**{**vars(parts), "config": make_config("batch_size=65536")})
    assert choose_checkpointing(changed, accelerator) is True


def test_with_and_without_checkpointing_the_loss_is_the_same(built):
    parts, _ = built
    batch, losses = parts.data.largest(2), []
    for on in (False, True):
        set_checkpointing(parts.objective, on)
        loss = parts.objective(batch)["loss"]
        loss.backward()
        gradients = [p.grad.clone() for p in parts.objective.trained().values()]
        parts.objective.zero_grad()
        losses.append((loss.detach(), *gradients))
    for one, other in zip(*losses, strict=True):
        torch.testing.assert_close(one, other)


def made_up(**changes) -> FitReport:
    fields = {
        "batch_size": 4,
        "steps": 1000,
        "device": "a test",
        "trained": 10**6,
        "frozen": 10**9,
        "trained_bytes": 4 * 10**6,
        "frozen_bytes": 2 * GB,
        "gradient_bytes": 0,
        "optimiser_bytes": 0,
        "average_bytes": 0,
        "kept": KeptMemory(fixed=0, per_window=GB, passing_per_window=GB // 2),
        "kept_again": KeptMemory(fixed=0, per_window=GB // 10, passing_per_window=GB // 10),
        "checkpointing": False,
        "windows": 8,
        "seconds": 3.6,
        "peak_bytes": 5 * 10**9,
    }
    return FitReport(**fields | changes)


def test_the_largest_batch_fits_and_one_window_more_does_not():
    report = made_up()
    for card in (24, 40, 80):
        for on, per_window in ((False, 1.5 * GB), (True, 0.2 * GB)):
            batch = report.largest_batch(card, on)
            used = report.states_bytes + batch * per_window
            assert used <= 0.92 * card * GB < used + per_window
    assert made_up(frozen_bytes=30 * GB).largest_batch(24, True) == 0


def test_the_table_says_it_all():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(fit_table(made_up()))
    text = console.export_text()
    for said in (
        "one process on a test",
        "1,000,000",
        "2.147 GB",
        "held at most, measured",
        "5.000 GB",
        "0.278",
        "2.22",
        "hours to finish 1,000 steps",
        "largest batch in 24 GB",
        "13 (100 with checkpointing)",
    ):
        assert said in text
