"""Starting a run, or going on with one: from a configuration to a trainer that trains."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from accelerate import Accelerator
from accelerate.utils import (
    ProjectConfiguration,
    broadcast_object_list,
    set_seed,
)
from rich.console import Console

from canvas_robot.training.config import TrainConfig
from canvas_robot.training.config_file import differences
from canvas_robot.training.gradient_checkpointing import choose_checkpointing, set_checkpointing
from canvas_robot.training.parts import Parts, build_parts
from canvas_robot.training.progress import TrainingProgress, index_progress
from canvas_robot.training.run_folder import (
    Facts,
    RunFolder,
    RunFolderError,
    new_run_path,
    start_record,
)
from canvas_robot.training.sharing import find_unused, make_accelerator
from canvas_robot.training.trainer import Trainer

# What a run may be resumed with otherwise than it was started. All else would make it another run.
CHANGEABLE = {
    "steps",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluate_every",
    "prompts",
    "data.folder",
    "data.latents",
    "data.workers",
}


@dataclass(frozen=True)
class Ending:
    """How a run ended: at which step, and by which signal (0: none)."""

    folder: Path
    step: int
    signal: int


def run_training(
    config: TrainConfig, console: Console, report: Callable[[Path], object] | None = None
) -> Ending:
    """Trains, in the folder that the configuration names; all processes call it together.

    A folder that holds this run already is gone on with, from its newest checkpoint.

    Args:
        report: draws the run in a folder; the main process calls it at each checkpoint and at the
            end, whatever ends the run.
    Raises:
        RunFolderError: the folder holds something else, or a run with another configuration.
        ValueError and the like for parts that are missing or do not fit; CheckpointFileError for a
            damaged checkpoint; DivergedError.
    """
    accelerator = make_accelerator(config)
    (path,) = broadcast_object_list([str(config.run or new_run_path())])
    path = Path(path).expanduser()
    started = RunFolder.holds_run(path)
    run = RunFolder(path, config.keep_checkpoints)
    if started:
        _require_same_run(run, config)
        run.require_unchanged()
    else:
        _require_free(path)
    with index_progress(console, accelerator.is_main_process) as progress:
        parts = build_parts(config, accelerator, run if started else None, progress)
    checkpointing = _checkpointing(parts, accelerator, run if started else None)
    shown = TrainingProgress(console, config.steps, accelerator.is_main_process)
    find_unused(parts, accelerator)
    set_seed(config.seed, device_specific=True)
    with run.alone() if accelerator.is_main_process else contextlib.nullcontext():
        trainer = Trainer(parts, accelerator, run, checkpointing, shown, report)
        trainer.resume()
        if accelerator.is_main_process:
            _write(run, parts, accelerator, trainer.step, checkpointing)
        shown.note(f"{path}: step {trainer.step} of {config.steps}")
        try:
            with _tensorboard(accelerator, path, trainer.step), shown:
                signal = trainer.train()
        finally:
            if report is not None and accelerator.is_main_process:
                report(path)
    return Ending(path, trainer.step, signal)


def _require_same_run(run: RunFolder, config: TrainConfig) -> None:
    changed = differences(run.config(), config)
    wrong = {k: v for k, v in changed.items() if k not in {*CHANGEABLE, "run"}}
    if wrong:
        said = "; ".join(f"{key}: {then!r}, now {now!r}" for key, (then, now) in wrong.items())
        raise RunFolderError(
            f"{run.path}: holds a run with another configuration: {said}; go on with it as it is: "
            f"canvas-robot train --resume {run.path}, or name another folder: run=FOLDER"
        )


def _require_free(path: Path) -> None:
    """Nothing is there but what a start that failed may have left."""
    own = {"schema.json", "binding.yaml", "statistics.json", "run.json", "checkpoints", ".lock"}
    found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if found - own:
        raise RunFolderError(
            f"run: expected a new folder or that of a run, {path} holds other files "
            f"({', '.join(sorted(found - own)[:3])}); name another: run=FOLDER"
        )


def _checkpointing(parts: Parts, accelerator: Accelerator, run: RunFolder | None) -> bool:
    """Chosen at the start of a run, and kept: the same sums in another order round differently."""
    if run is None:
        return choose_checkpointing(parts, accelerator)
    facts, backbone = run.facts(), parts.backbone
    for what, then, now in (
        ("backbone", facts.backbone["sha256"], backbone.sha256),
        ("data", facts.data["fingerprint"], parts.data.train.dataset.fingerprint),
    ):
        if then != now:
            raise RunFolderError(
                f"{run.path}: made with another {what}: {then}, found {now}; resume with the same"
            )
    set_checkpointing(parts.objective, facts.gradient_checkpointing)
    return facts.gradient_checkpointing


def _write(
    run: RunFolder, parts: Parts, accelerator: Accelerator, step: int, checkpointing: bool
) -> None:
    """All declarations of the run, with this start added to those before it."""
    earlier = run.facts().started if RunFolder.holds_run(run.path) else []
    backbone, data = parts.backbone, parts.data
    trained, frozen = parts.counts
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts = Facts(
        started=[*earlier, start_record(step, accelerator.num_processes, name)],
        backbone={
            "source": backbone.source,
            "revision": backbone.revision,
            "sha256": backbone.sha256,
            "trained": backbone.trained,
        },
        data=data.train.facts(),
        held_out=data.held_out.facts() if data.held_out else None,
        actions=parts.config.data.rules.actions,
        gradient_checkpointing=checkpointing,
        trained=trained,
        frozen=frozen,
    )
    run.write(parts.config, parts.schema, parts.binding, parts.statistics, facts)


@contextlib.contextmanager
def _tensorboard(accelerator: Accelerator, path: Path, step: int) -> Iterator[None]:
    """Inside, the accelerator's log is TensorBoard's, in the run's folder, from a step on."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ModuleNotFoundError(
            "tensorboard: not installed; install it with: pip install 'canvas_robot[train]'"
        )
    # TensorBoard's own word for "do as if there were no TensorFlow": it would be loaded to write.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
    accelerator.project_configuration = ProjectConfiguration(str(path), str(path))
    accelerator.log_with = ["tensorboard"]
    settings = {"tensorboard": {"purge_step": step + 1}}
    accelerator.init_trackers("tensorboard", init_kwargs=settings)
    try:
        yield
    finally:
        accelerator.end_training()
