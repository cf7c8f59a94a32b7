"""Starting a plain policy's training, or going on with one; at its end the policy is exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import torch
from rich.console import Console

from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.resources import resolve_config, schema_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding
from canvas_robot.training.plain_config import PlainTrainConfig
from canvas_robot.training.plain_data import open_plain_data, statistics_for
from canvas_robot.training.plain_export import export_plain
from canvas_robot.training.plain_progress import PlainProgress
from canvas_robot.training.plain_run import PlainRun
from canvas_robot.training.plain_trainer import PlainTrainer
from canvas_robot.training.run_folder import Facts, RunFolderError, new_run_path, start_record


@dataclass(frozen=True)
class PlainEnding:
    """How a run ended: at which step, by which signal (0: none), and where its policy lies.

    policy is None where a signal ended it.
    """

    folder: Path
    step: int
    signal: int
    policy: Path | None


def run_plain_training(
    config: PlainTrainConfig, console: Console, report: Callable[[Path], object] | None = None
) -> PlainEnding:
    """Trains, in the folder that the configuration names.

    A folder that holds this run already is gone on with, from its newest checkpoint.

    Args:
        report: draws the run in a folder; called at each checkpoint and at the end, whatever ends
            the run.
    Raises:
        RunFolderError: the folder holds something else, or a run with another configuration.
        ValueError and the like for parts that are missing or do not fit; CheckpointFileError for a
            damaged checkpoint; DivergedError.
    """
    path = Path(config.run or new_run_path()).expanduser()
    run = PlainRun(path, config.keep_checkpoints)
    started = PlainRun.holds_run(path)
    if started:
        run.require_same(config)
    else:
        run.require_free()
    with run.folder.alone(), PlainProgress(console) as progress:
        trainer = _trainer(config, run, started, progress, report)
        progress.note(f"{path}: step {trainer.step}")
        try:
            signal = trainer.train()
        finally:
            if report is not None:
                report(path)
    policy = None
    if not signal:
        policy = path / "export" / f"step_{trainer.step:08d}"
        if not policy.is_dir():
            export_plain(path, policy)
    return PlainEnding(path, trainer.step, signal, policy)


def _trainer(
    config: PlainTrainConfig,
    run: PlainRun,
    started: bool,
    progress: PlainProgress,
    report: Callable[[Path], object] | None,
) -> PlainTrainer:
    """The trainer of a run, where the run is; all its declarations are written."""
    folder = run.folder
    if started:
        schema, binding = folder.schema(), folder.binding()
    else:
        schema = CanvasSchema.from_json(schema_path(config.schema))
        binding = load_binding(resolve_config("bindings", config.binding))
        rmtree(run.pictures, ignore_errors=True)  # of a start that failed, maybe of other data
    binding.check_schema(schema)
    data = open_plain_data(config, schema, binding, run.pictures, progress.told)
    earlier = folder.facts().started if started else []
    source = data.train.facts()
    if started and folder.facts().data["fingerprint"] != source["fingerprint"]:
        raise RunFolderError(
            f"{run.path}: made with other data: {folder.facts().data['fingerprint']}, found "
            f"{source['fingerprint']}; resume with the same"
        )
    statistics = folder.statistics() if started else statistics_for(config, binding, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = PlainModel(schema, binding, statistics, config.network)
    trainer = PlainTrainer(config, model, data, run, progress, report)
    trainer.resume()
    parameters = sum(p.numel() for p in trainer.trained.values())
    facts = Facts(
        started=[*earlier, start_record(trainer.step, 1, "cpu")],
        backbone={},
        data=source,
        held_out=data.held_out.facts() if data.held_out else None,
        actions=config.data.rules.actions,
        gradient_checkpointing=False,
        trained=parameters,
        frozen=0,
    )
    folder.write(config, schema, binding, statistics, facts)
    progress.note(
        f"{parameters:,} parameters, all trained; {source['windows']:,} windows of "
        f"{source['episodes']:,} episodes"
    )
    return trainer
