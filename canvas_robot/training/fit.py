"""`train --fit`: two real steps before anything else, and what a run of that size takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import floor

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from canvas_robot.backbone.memory import ROWS_ALIVE
from canvas_robot.training.attention_kernels import fast_attention
from canvas_robot.training.config import TrainConfig
from canvas_robot.training.gradient_checkpointing import (
    choose_checkpointing,
    kept_by,
    set_checkpointing,
)
from canvas_robot.training.optimisation import make_average, make_optimiser, state_bytes
from canvas_robot.training.parts import Parts, build_parts
from canvas_robot.training.progress import index_progress
from canvas_robot.training.saved_memory import tensor_bytes, weights_of
from canvas_robot.training.sharing import find_unused, keep_frozen_whole, make_accelerator

CARDS_GB = (24, 40, 80)  # of 2**30 bytes, as cards are sold
USABLE = 0.92  # of a card: CUDA's own context is 0.5 GB, and memory falls to fragments
STEPS = 2  # the first also sets up; the second is timed


@dataclass(frozen=True)
class KeptMemory:
    """Bytes of activations: `fixed` whatever the batch, `per_window`, and what lives shortly."""

    fixed: int
    per_window: int
    passing_per_window: int

    def of(self, windows: int) -> int:
        """For a batch."""
        return self.fixed + windows * (self.per_window + self.passing_per_window)


@dataclass(frozen=True)
class FitReport:
    """What a run takes, in one process.

    trained, frozen: parameters. trained_bytes, frozen_bytes: of their weights, buffers with the
    frozen ones. gradient_bytes, optimiser_bytes, average_bytes: of what belongs to trained ones.
    kept, kept_again: activations without and with gradient checkpointing. checkpointing: which of
    them the run would use. windows: of one step. seconds: of one step of all its batches, reading
    them aside.
    peak_bytes: what the device held at most in these steps; None where it is not CUDA.
    """

    batch_size: int
    steps: int
    device: str
    trained: int
    frozen: int
    trained_bytes: int
    frozen_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    average_bytes: int
    kept: KeptMemory
    kept_again: KeptMemory
    checkpointing: bool
    windows: int
    seconds: float
    peak_bytes: int | None

    @property
    def states_bytes(self) -> int:
        """All that does not depend on the batch."""
        weights = self.trained_bytes + self.frozen_bytes
        return weights + self.gradient_bytes + self.optimiser_bytes + self.average_bytes

    @property
    def hours(self) -> float:
        """To finish all steps, if data never keep them waiting."""
        return self.steps * self.seconds / 3600

    def largest_batch(self, card_gb: int, checkpointing: bool) -> int:
        """Windows of a batch that fit a card of so many GB; 0 where not one does."""
        kept = self.kept_again if checkpointing else self.kept
        free = USABLE * card_gb * 2**30 - self.states_bytes - kept.fixed
        return max(0, floor(free / (kept.per_window + kept.passing_per_window)))


def fit_training(config: TrainConfig, console: Console) -> FitReport:
    """Measures a configuration and prints a table; nothing is written but a data set's index.

    Raises what building the parts raises, and torch's OutOfMemoryError where two steps do not fit.
    """
    accelerator = make_accelerator(config)
    with index_progress(console, accelerator.is_main_process) as progress:
        parts = build_parts(config, accelerator, progress=progress)
    checkpointing = choose_checkpointing(parts, accelerator)
    kept = _kept(parts, accelerator, False)
    again = _kept(parts, accelerator, True)
    set_checkpointing(parts.objective, checkpointing)
    report = _measured(parts, accelerator, kept, again, checkpointing)
    if accelerator.is_main_process:
        console.print(fit_table(report))
        console.print("Nothing was trained. Leave --fit out to train.", highlight=False)
    return report


def fit_table(report: FitReport) -> Table:
    """The report as a table; GB are 1e9 bytes, those of cards 2**30."""
    table = Table("what", "value", title=f"one process on {report.device}")
    per_window = {False: report.kept.per_window, True: report.kept_again.per_window}
    used = "with" if report.checkpointing else "without"
    rows = {
        "parameters trained": f"{report.trained:,}",
        "parameters frozen": f"{report.frozen:,}",
        "weights trained": _gb(report.trained_bytes),
        "weights frozen": _gb(report.frozen_bytes),
        "gradients": _gb(report.gradient_bytes),
        "optimiser": _gb(report.optimiser_bytes),
        "moving average": _gb(report.average_bytes),
        "activations kept, per window": _gb(per_window[False]),
        "with gradient checkpointing": _gb(per_window[True]),
        f"this run ({used}), batch {report.batch_size}": _gb(
            report.states_bytes
            + (report.kept_again if report.checkpointing else report.kept).of(report.batch_size)
        ),
    }
    if report.peak_bytes is not None:
        rows["held at most, measured"] = _gb(report.peak_bytes)
    rows["steps/s"] = f"{1 / report.seconds:.3g}"
    rows["windows/s"] = f"{report.windows / report.seconds:.3g}"
    rows[f"hours to finish {report.steps:,} steps"] = f"{report.hours:.3g}"
    for card in CARDS_GB:
        plain, again = (report.largest_batch(card, on) for on in (False, True))
        rows[f"largest batch in {card} GB"] = f"{plain:,} ({again:,} with checkpointing)"
    for what, value in rows.items():
        table.add_row(what, value)
    return table


def _kept(parts: Parts, accelerator: Accelerator, checkpointing: bool) -> KeptMemory:
    """From one and two windows; a run's memory is taken to grow by as much for each more."""
    set_checkpointing(parts.objective, checkpointing)
    one, two = (kept_by(parts, accelerator, windows) for windows in (1, 2))
    model = parts.objective.model
    weight = model.runner.transformer.patch_embed.proj.weight
    itemsize = 2 if parts.config.precision == "bf16" else weight.element_size()
    passing = ROWS_ALIVE * model.plan.n_rows * parts.backbone.width * itemsize
    return KeptMemory(fixed=max(0, 2 * one - two), per_window=two - one, passing_per_window=passing)


def _measured(
    parts: Parts,
    accelerator: Accelerator,
    kept: KeptMemory,
    again: KeptMemory,
    checkpointing: bool,
) -> FitReport:
    config, objective, device = parts.config, parts.objective, accelerator.device
    find_unused(parts, accelerator)
    keep_frozen_whole(objective, accelerator)
    optimiser = make_optimiser(objective, objective.trained(), config.optimiser)
    prepared, optimiser = accelerator.prepare(objective, optimiser)
    trained = objective.trained()
    average = make_average(trained, config.ema)
    batch = parts.data.largest(config.batch_size).to(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(STEPS):
        started = time.perf_counter()
        for _ in range(config.accumulate):
            with accelerator.accumulate(prepared), fast_attention(accelerator):
                accelerator.backward(prepared(batch)["loss"])
        gradients = tensor_bytes(p.grad for p in trained.values() if p.grad is not None)
        optimiser.step()
        optimiser.zero_grad()
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    count, frozen = parts.counts
    own = tensor_bytes(trained.values())
    return FitReport(
        batch_size=config.batch_size,
        steps=config.steps,
        device=torch.cuda.get_device_name(device) if on_gpu else "the CPU",
        trained=count,
        frozen=frozen,
        trained_bytes=own,
        frozen_bytes=tensor_bytes(weights_of(objective)) - own,
        gradient_bytes=gradients,
        optimiser_bytes=state_bytes(optimiser),
        average_bytes=0 if average is None else tensor_bytes(average.shadow_params),
        kept=kept,
        kept_again=again,
        checkpointing=checkpointing,
        windows=config.batch_size * config.accumulate,
        seconds=seconds,
        peak_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3f} GB"
