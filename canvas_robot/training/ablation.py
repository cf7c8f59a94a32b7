"""Ablation: one configuration, trained for each number of loops and each freeze, one after another.

Each is a run with a folder of its own. How a finished run is judged is passed in; the table of all
results is evaluation/ablation_report.py's.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import torch
from rich.console import Console

from canvas_robot.training.config import OFF, TrainConfig
from canvas_robot.training.config_file import differences
from canvas_robot.training.launch import CHANGEABLE, run_training
from canvas_robot.training.meter import MetricsRow
from canvas_robot.training.run_folder import RunFolder
from canvas_robot.training.trainer import DivergedError

LOOPS = (1, 2, 3, 4)
FREEZES = ("full", "half", "none")
RESULT = "result.json"


class AblationError(ValueError):
    """An ablation cannot be run or gone on with as asked; says why."""


class Cell(NamedTuple):
    """One run of an ablation."""

    loops: int
    freeze: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"loops_{self.loops}_freeze_{self.freeze}"


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measure, and where it lies with 95% confidence, None where that is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a finished run is worth on held-out episodes.

    motion: mean absolute error of the normalised motion; previous_action, zero_action: those of the
        baselines. gripper: share of right gripper targets.
    episodes, windows: how many. trained_on: whether they were trained on: "no", "yes", "unknown".
    """

    motion: Interval
    previous_action: Interval
    zero_action: Interval
    gripper: Interval
    episodes: int
    windows: int
    trained_on: str


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """result.json of a finished run.

    action_loss, loss: on held-out windows at the last step, of the action alone and in all.
    trained, frozen: parameters. steps_per_s: median of the rows. memory_mb: at most.
    """

    loops: int
    freeze: str
    steps: int
    action_loss: float
    loss: float
    trained: int
    frozen: int
    steps_per_s: float
    memory_mb: float
    judgement: Judgement


@dataclass(frozen=True)
class Ablation:
    """What became of it. failed: by cell, why it has no result. signal: that ended it, or 0."""

    results: dict[Cell, Result]
    failed: dict[Cell, str]
    signal: int = 0


Judge = Callable[[Path, TrainConfig], Judgement]
"""Given the folder of a finished run and its configuration."""


def grid(loops: Iterable[int] = LOOPS, freezes: Iterable[str] = FREEZES) -> list[Cell]:
    """Cells in the order they are run."""
    return [Cell(number, freeze) for freeze in freezes for number in loops]


def configurations(
    config: TrainConfig, cells: Iterable[Cell], folder: Path
) -> dict[Cell, TrainConfig]:
    """The configuration of each cell: the one given but for loops, freeze and folder.

    Raises ConfigError where it does not allow a cell, AblationError where nothing is held out.
    """
    if config.data.holdout == OFF:
        raise AblationError(
            "data.holdout: an ablation is judged by held-out episodes; expected a split or a "
            "fraction, got off"
        )
    return {
        cell: msgspec.structs.replace(
            config, loops=cell.loops, freeze=cell.freeze, run=str(folder / cell.name)
        )
        for cell in cells
    }


def run_ablation(runs: dict[Cell, TrainConfig], judge: Judge, console: Console) -> Ablation:
    """Trains and judges what is not finished; what is finished is read from its folder.

    A run that diverges or does not fit the device has no result, the others go on; a signal ends
    all, state saved.

    Raises:
        AblationError: a folder holds another run, or this is one of several processes.
        What training and judging raise.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise AblationError(
            "ablate: runs one training after another in one process, there are "
            f"{os.environ['WORLD_SIZE']}; start it without accelerate launch"
        )
    for cell, config in runs.items():
        _require_same(cell, config)
    results, failed = {}, {}
    for number, (cell, config) in enumerate(runs.items(), start=1):
        done = _result(config)
        state = "finished" if done else "training"
        console.print(f"{number}/{len(runs)} {cell.name}: {state}", highlight=False, markup=False)
        if done:
            results[cell] = done
            continue
        try:
            ending = run_training(config, console)
        except (DivergedError, torch.OutOfMemoryError) as error:
            failed[cell] = str(error)
            console.print(f"{cell.name}: {error}", highlight=False, markup=False)
            continue
        finally:
            _release()
        if ending.signal:
            return Ablation(results, failed, ending.signal)
        results[cell] = _judged(cell, config, judge)
        _release()
    return Ablation(results, failed)


def _require_same(cell: Cell, config: TrainConfig) -> None:
    """Raises AblationError where the cell's folder holds a run with another configuration."""
    path = Path(config.run)
    if not RunFolder.holds_run(path):
        return
    run = RunFolder.open(path)
    changed = differences(run.config(), config)
    wrong = {key: pair for key, pair in changed.items() if key not in CHANGEABLE | {"run"}}
    said = [f"{key}: {then!r}, now {now!r}" for key, (then, now) in wrong.items()]
    newest = max(run.checkpoints.steps(), default=0)
    if newest > config.steps:
        said.append(f"steps: it is at {newest}, now {config.steps}")
    if said:
        raise AblationError(
            f"{path}: holds a run with another configuration: {'; '.join(said)}; name another "
            "folder with -o"
        )


def _result(config: TrainConfig) -> Result | None:
    """That of a finished run; None where it is not finished, or was judged at another step."""
    path = Path(config.run) / RESULT
    if not path.is_file():
        return None
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AblationError(f"{path}: {error}; remove it, and it is made anew") from error
    return result if result.steps == config.steps else None


def _judged(cell: Cell, config: TrainConfig, judge: Judge) -> Result:
    """Judges a run that was trained to its end, and keeps what came of it."""
    run = RunFolder.open(config.run)
    rows, facts = _rows(run), run.facts()
    last = rows[-1]
    result = Result(
        loops=cell.loops,
        freeze=cell.freeze,
        steps=config.steps,
        action_loss=last.held_out_parts[run.binding().action_region()],
        loss=last.held_out,
        trained=facts.trained,
        frozen=facts.frozen,
        steps_per_s=median(row.steps_per_s for row in rows),
        memory_mb=max(row.memory_mb for row in rows),
        judgement=judge(run.path, config),
    )
    path = run.path / RESULT
    part = path.with_name(f".{RESULT}.{os.getpid()}.part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    os.replace(part, path)
    return result


def _rows(run: RunFolder) -> list[MetricsRow]:
    """All rows of a run's metrics; the last one is of its last step, which is evaluated."""
    lines = run.metrics.read_bytes().splitlines()
    try:
        return [msgspec.json.decode(line, type=MetricsRow) for line in lines]
    except msgspec.DecodeError as error:
        raise AblationError(f"{run.metrics}: expected rows of metrics; {error}") from error


def _release() -> None:
    """Gives the memory of one run back before the next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
