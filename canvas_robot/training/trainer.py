"""Trainer: the loop. Accelerate runs it on one device or many; what it minimises is objective.py's.

What a run reads and writes is chosen before the first step, in launch.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from math import inf, isfinite
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor

from canvas_robot.backbone.schedules import CurriculumScheduler
from canvas_robot.data.batches import Batch
from canvas_robot.training.attention_kernels import fast_attention
from canvas_robot.training.checkpoints import CheckpointFileError, Manifest, verified
from canvas_robot.training.config import OFF
from canvas_robot.training.meter import Meter, MetricsRow, memory_mb
from canvas_robot.training.optimisation import (
    averaged,
    make_average,
    make_optimiser,
    make_schedule,
    set_rates,
)
from canvas_robot.training.parts import Parts
from canvas_robot.training.progress import TrainingProgress
from canvas_robot.training.run_folder import RunFolder
from canvas_robot.training.sharing import keep_frozen_whole
from canvas_robot.training.stop import SIGNALS, StopSignals, UndisturbedWorkers
from canvas_robot.training.training_state import TrainingState


class DivergedError(RuntimeError):
    """A loss or a gradient is not finite; says where, and of which episodes."""


class Trainer:
    """Trains the parts of a run, from its newest checkpoint on if it has one.

    Args:
        parts: of the run; their objective is on the accelerator's device.
        accelerator: of launch.py's making.
        run: the folder that is written by the main process.
        checkpointing: whether loops are computed again in the backward pass; already set.
        progress: what is shown.
        report: is called with the run's folder when a checkpoint is written.
    """

    def __init__(
        self,
        parts: Parts,
        accelerator: Accelerator,
        run: RunFolder,
        checkpointing: bool,
        progress: TrainingProgress,
        report: Callable[[Path], object] | None = None,
    ) -> None:
        config, objective = parts.config, parts.objective
        self.config, self.objective, self._run = config, objective, run
        self._accelerator, self._progress, self._report = accelerator, progress, report
        self._checkpointing, self._fingerprint = checkpointing, parts.data.train.dataset.fingerprint
        keep_frozen_whole(objective, accelerator)
        optimiser = make_optimiser(objective, objective.trained(), config.optimiser)
        schedule = make_schedule(optimiser, config.optimiser, config.steps)
        prepared = accelerator.prepare(objective, optimiser, schedule)
        self._prepared, self._optimiser, self._schedule = prepared
        self.trained = objective.trained()
        self._average = make_average(self.trained, config.ema)
        rank, processes = accelerator.process_index, accelerator.num_processes
        on_gpu = accelerator.device.type == "cuda"
        self._loader = parts.data.loader(config.batch_size, config.seed, rank, processes, on_gpu)
        self._held_out = parts.data.held_out_batches(config.batch_size, rank, processes)
        self._state = TrainingState(
            accelerator, self._prepared, self.trained, self._optimiser, self._average, self._loader
        )
        self._curriculum = None
        if config.curriculum != OFF:
            self._curriculum = CurriculumScheduler(
                config.loops, config.steps, config.curriculum.warmup_fraction
            )
        self._meter, self._lr, self.step = Meter(), 0.0, 0

    def train(self) -> int:
        """Runs to the last step; returns 0, or the signal that ended it before, state saved."""
        config = self.config
        self._workers, self._batches = UndisturbedWorkers(), self._endless()
        with StopSignals() as stop, closing(self._workers), fast_attention(self._accelerator):
            while self.step < config.steps:
                if self._curriculum is not None:
                    self.objective.set_loops(self._curriculum.get_loops(self.step))
                stopped = self._update(stop)
                self.step += 1
                self._progress.step(self.step)
                ends = stopped or self.step == config.steps
                evaluates = self.step == config.steps or self.step % config.evaluate_every == 0
                if evaluates or self.step % config.log_every == 0:
                    self._log(evaluates)
                if ends or self.step % config.checkpoint_every == 0:
                    self.save()
                if stopped:
                    return stopped
        return 0

    def save(self) -> None:
        """Writes a checkpoint of this step; all processes call it together."""
        folders, accelerator = self._run.checkpoints, self._accelerator
        if folders.folder(self.step).is_dir():  # resumed here, and stopped at once
            return
        if accelerator.is_main_process:
            self._run.sync_metrics()
            folders.begin(self.step)
        accelerator.wait_for_everyone()
        self._state.save(folders.part(self.step), self._meter.sums)
        if accelerator.is_main_process:
            manifest = Manifest(
                step=self.step,
                processes=accelerator.num_processes,
                data_fingerprint=self._fingerprint,
                gradient_checkpointing=self._checkpointing,
            )
            folders.finish(self.step, manifest)
            if self._report is not None:
                self._report(self._run.path)
        accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Goes on from the newest checkpoint; does nothing where there is none.

        Raises CheckpointFileError, naming the file, for one that is damaged or of another training.
        """
        folder, accelerator = self._run.checkpoints.newest(), self._accelerator
        if folder is not None:
            manifest = verified(folder, self._state.files)
            _require_same(folder, "processes", manifest.processes, accelerator.num_processes)
            _require_same(folder, "data", manifest.data_fingerprint, self._fingerprint)
            self._meter.sums = self._state.load(folder)
            self.step = manifest.step
            # Those of this schedule: it may have more steps now.
            set_rates(self._schedule.scheduler, self.config.optimiser.lr)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            self._run.go_back(self.step)
        accelerator.wait_for_everyone()

    def evaluate(self) -> dict[str, float]:
        """Mean losses on the held-out windows, by name; {} where nothing is held out.

        They are of the moving average where there is one, and of the same windows with the same
        noise every time. Training's own random numbers stay as they are. All processes call it.
        """
        if not self._held_out:
            return {}
        device, sums = self._accelerator.device, {}
        with (
            averaged(self._average, self.trained.values()),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.no_grad(),
        ):
            torch.manual_seed(self.config.seed)
            for batch in self._held_out:
                for name, loss in self.objective(batch.to(device)).items():
                    sums[name] = sums.get(name, 0.0) + loss.item() * len(batch)
        windows = sum(map(len, self._held_out))
        means = torch.tensor([total / windows for total in sums.values()], device=device)
        return dict(zip(sums, self._accelerator.reduce(means, "mean").tolist(), strict=True))

    def _update(self, stop: StopSignals) -> int:
        """One update of the weights; returns the signal that came to any process, or 0.

        Raises DivergedError, and changes nothing, where a loss or the gradient is not finite.
        """
        accelerator, started = self._accelerator, time.perf_counter()
        batches = [next(self._batches) for _ in range(self.config.accumulate)]
        waited, values = time.perf_counter() - started, {}
        for batch in batches:
            with accelerator.accumulate(self._prepared):
                losses = self._prepared(batch.to(accelerator.device))
                accelerator.backward(losses["loss"])
            for name, loss in losses.items():
                values[name] = values.get(name, 0.0) + loss.item() / len(batches)
        limit = self.config.optimiser.clip_norm
        norm = accelerator.clip_grad_norm_(self.trained.values(), inf if limit == OFF else limit)
        values["grad_norm"] = (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
        stopped = self._agreed(values, batches, stop)
        self._optimiser.step()
        self._optimiser.zero_grad()
        (self._lr, *_) = self._schedule.get_last_lr()
        self._schedule.step()
        if self._average is not None:
            self._average.step(self.trained.values())
        self._meter.add(values, time.perf_counter() - started, waited)
        return stopped

    def _agreed(self, values: dict[str, float], batches: list[Batch], stop: StopSignals) -> int:
        """What all processes know of this update: whether it is finite, which signal came."""
        bad = not all(map(isfinite, values.values()))
        own = [float(bad), *(float(stop.received == number) for number in SIGNALS)]
        flags = torch.tensor(own, device=self._accelerator.device)
        any_bad, *came = self._accelerator.reduce(flags, "sum").tolist()
        if any_bad:
            raise self._diverged(values, batches)
        return next((int(n) for n, flag in zip(SIGNALS, came, strict=True) if flag), 0)

    def _diverged(self, values: dict[str, float], batches: list[Batch]) -> DivergedError:
        windows = [
            f"{name} step {step}"
            for batch in batches
            for name, step in zip(batch.names, batch.steps.tolist(), strict=True)
        ]
        said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        everywhere = gather_object([f"{said}; windows: {', '.join(windows)}"])
        newest = self._run.checkpoints.newest()
        kept = f"the last checkpoint is {newest}" if newest else "there is no checkpoint yet"
        return DivergedError(
            f"step {self.step + 1}: expected finite losses and gradients; this step changed "
            f"nothing, {kept}; look at these windows, or lower optimiser.lr\n"
            + "\n".join(f"process {n}: {text}" for n, text in enumerate(everywhere))
        )

    def _log(self, evaluates: bool) -> None:
        """Writes a row of metrics."""
        held_out = self.evaluate() if evaluates else {}
        means = self._meter.means(self._accelerator)
        row = MetricsRow(
            step=self.step,
            epoch=self._loader.state_dict()["epoch"],
            loss=means.pop("loss"),
            lr=self._lr,
            loops=self.objective.loops,
            grad_norm=means.pop("grad_norm"),
            steps_per_s=means.pop("steps_per_s"),
            data_wait=means.pop("data_wait"),
            memory_mb=memory_mb(self._accelerator.device),
            time=time.time(),
            held_out=held_out.pop("loss", None),
            held_out_parts=held_out,
            parts=means,
        )
        if self._accelerator.is_main_process:
            self._run.append(row)
        self._accelerator.log(row.scalars(), step=self.step)
        self._progress.row(row)

    def _endless(self) -> Iterator[Batch]:
        """Batches of one epoch after the other, from where the loader is."""
        while True:
            batches = iter(self._loader)
            with self._workers.starting():  # with the first one
                first = next(batches)
            yield first
            yield from batches


def _require_same(folder: Path, what: str, then: object, now: object) -> None:
    if then != now:
        raise CheckpointFileError(
            f"{folder}: written by a training with {what} {then}, this one has {now}; resume with "
            "the same"
        )
