"""PlainTrainer: the loop of a plain policy, in one process.

What a run reads and writes is chosen before the first step, in plain_launch.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from math import cos, inf, isfinite, pi
from pathlib import Path

import numpy as np
import torch

from canvas_robot.data.batches import Batch
from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.training.checkpoints import CheckpointFileError, Manifest, verified
from canvas_robot.training.config import OFF, OptimiserConfig
from canvas_robot.training.meter import Meter, MetricsRow, Sums, memory_mb
from canvas_robot.training.optimisation import averaged, make_average, make_optimiser
from canvas_robot.training.plain_config import PlainTrainConfig
from canvas_robot.training.plain_objective import PlainObjective
from canvas_robot.training.plain_progress import PlainProgress
from canvas_robot.training.plain_run import PlainRun
from canvas_robot.training.plain_state import PlainState
from canvas_robot.training.stop import StopSignals, UndisturbedWorkers
from canvas_robot.training.trainer import DivergedError
from canvas_robot.training.training_data import TrainingData


class PlainTrainer:
    """Trains a model, from the run's newest checkpoint on if it has one.

    Args:
        config, model, data: of the run.
        run: the folder that is written.
        progress: what is shown.
        report: is called with the run's folder when a checkpoint is written.
    """

    def __init__(
        self,
        config: PlainTrainConfig,
        model: PlainModel,
        data: TrainingData,
        run: PlainRun,
        progress: PlainProgress,
        report: Callable[[Path], object] | None = None,
    ) -> None:
        self.config, self.model, self._run = config, model, run
        self._progress, self._report = progress, report
        self._fingerprint = data.train.dataset.fingerprint
        self._objective = PlainObjective(model, config.shift)
        self.trained = model.own_parameters()
        self._optimiser = make_optimiser(model, self.trained, config.optimiser)
        self._average = make_average(self.trained, config.ema)
        self._loader = data.loader(config.batch_size, config.seed, 0, 1, pin_memory=False)
        self._held_out = data.held_out_batches(config.batch_size, 0, 1)
        self._state = PlainState(self.trained, self._optimiser, self._average, self._loader)
        self._meter, self._rate, self.step, self._before = Meter(), 0.0, 0, 0.0

    @property
    def seconds(self) -> float:
        """Time in the loop, that of earlier starts included."""
        return self._before + time.perf_counter() - self._started

    def train(self) -> int:
        """Runs until steps or time are used up; returns 0, or the signal that ended it before."""
        config, self._started = self.config, time.perf_counter()
        self._workers, batches = UndisturbedWorkers(), self._endless()
        with StopSignals() as stop, closing(self._workers):
            while config.used(self.step, self.seconds) < 1:
                self._update(batches)
                stopped, used = int(stop.received), config.used(self.step, self.seconds)
                self._progress.told("training", min(used, 1), 1)
                evaluates = used >= 1 or self.step % config.evaluate_every == 0
                if evaluates or self.step % config.log_every == 0:
                    self._log(evaluates)
                if stopped or used >= 1 or self.step % config.checkpoint_every == 0:
                    self.save()
                if stopped:
                    return stopped
        return 0

    def save(self) -> None:
        """Writes a checkpoint of this step."""
        folders = self._run.checkpoints
        self._run.folder.sync_metrics()
        self._state.save(folders.begin(self.step), self.step, self.seconds, self._meter.sums)
        manifest = Manifest(
            step=self.step,
            processes=1,
            data_fingerprint=self._fingerprint,
            gradient_checkpointing=False,
        )
        folders.finish(self.step, manifest)
        if self._report is not None:
            self._report(self._run.path)

    def resume(self) -> None:
        """Goes on from the newest checkpoint; does nothing where there is none.

        Raises CheckpointFileError, naming the file, for one that is damaged or of another training.
        """
        folder = self._run.checkpoints.newest()
        if folder is not None:
            manifest = verified(folder, self._state.files)
            if manifest.data_fingerprint != self._fingerprint:
                raise CheckpointFileError(
                    f"{folder}: written by a training with data {manifest.data_fingerprint}, this "
                    f"one has {self._fingerprint}; resume with the same"
                )
            place = self._state.load(folder)
            self.step, self._before, self._meter.sums = place.step, place.seconds, place.sums
        self._run.folder.go_back(self.step)

    def evaluate(self) -> dict[str, float]:
        """Mean losses on the held-out windows, by name; {} where nothing is held out.

        They are of the moving average where there is one; no picture is moved.
        """
        sums: dict[str, float] = {}
        with averaged(self._average, self.trained.values()), torch.no_grad():
            for batch in self._held_out:
                for name, loss in self._objective.losses(batch).items():
                    sums[name] = sums.get(name, 0.0) + loss.item() * len(batch)
        return {name: total / sum(map(len, self._held_out)) for name, total in sums.items()}

    def _update(self, batches: Iterator[Batch]) -> None:
        """One update of the weights.

        Raises DivergedError, and changes nothing, where a loss or the gradient is not finite.
        """
        config, started = self.config, time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        losses = self._objective.losses(batch, np.random.default_rng((config.seed, self.step)))
        self._optimiser.zero_grad()
        losses["loss"].backward()
        limit = config.optimiser.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), inf if limit == OFF else limit)
        values = {name: loss.item() for name, loss in losses.items()} | {"grad_norm": norm.item()}
        if not all(map(isfinite, values.values())):
            raise self._diverged(values, batch)
        self._rate = rate(config.optimiser, self.step, config.used(self.step, self.seconds))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate
        self._optimiser.step()
        if self._average is not None:
            self._average.step(self.trained.values())
        self.step += 1
        self._meter.add(values, time.perf_counter() - started, waited)

    def _diverged(self, values: dict[str, float], batch: Batch) -> DivergedError:
        said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        steps = zip(batch.names, batch.steps.tolist(), strict=True)
        windows = ", ".join(f"{name} step {step}" for name, step in steps)
        return DivergedError(
            f"step {self.step + 1}: expected finite losses and gradients; this step changed "
            f"nothing; look at these windows, or lower optimiser.lr\n{said}; windows: {windows}"
        )

    def _log(self, evaluates: bool) -> None:
        """Writes a row of metrics."""
        held_out = self.evaluate() if evaluates else {}
        sums, self._meter.sums = self._meter.sums, Sums()
        means = {name: total / sums.updates for name, total in sums.values.items()}
        row = MetricsRow(
            step=self.step,
            epoch=self._loader.state_dict()["epoch"],
            loss=means.pop("loss"),
            lr=self._rate,
            loops=0,
            grad_norm=means.pop("grad_norm"),
            steps_per_s=sums.updates / sums.seconds,
            data_wait=sums.waited / sums.seconds,
            memory_mb=memory_mb(torch.device("cpu")),
            time=time.time(),
            held_out=held_out.pop("loss", None),
            held_out_parts=held_out,
            parts=means,
        )
        self._run.folder.append(row)
        self._progress.row(row, self.config.batch_size)

    def _endless(self) -> Iterator[Batch]:
        """Batches of one epoch after the other, from where the loader is."""
        while True:
            batches = iter(self._loader)
            with self._workers.starting():  # with the first one
                first = next(batches)
            yield first
            yield from batches


def rate(config: OptimiserConfig, step: int, used: float) -> float:
    """The learning rate of the update after `step` others, when a share `used` of the run is over.

    It rises over the warm-up's steps; the cosine's half wave spans the whole run.
    """
    rising = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant":
        return config.lr * rising
    falling = (1 + cos(pi * min(used, 1.0))) / 2
    return config.lr * rising * (config.min_lr_ratio + (1 - config.min_lr_ratio) * falling)
