"""Export: from a run's checkpoint to the folder that a robot, a simulator or an evaluation loads.

What such a folder holds is policy/checkpoint.py's; beside it lies training.json, which says what
the weights were trained on. Nothing that is read is executed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from canvas_robot.backbone.loading import DTYPES, Backbone, load_backbone
from canvas_robot.data.transitions import DataRules
from canvas_robot.policy.checkpoint import save_checkpoint
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.prompts import open_prompts
from canvas_robot.signals import Binding
from canvas_robot.training.checkpoints import Manifest, verified
from canvas_robot.training.config import OFF, TrainConfig
from canvas_robot.training.run_folder import Facts, RunFolder
from canvas_robot.training.training_state import AVERAGE, TRAINED, read_weights

RECORD = "training.json"


class ExportError(ValueError):
    """A run has nothing to export, or is not what it was; says what and the remedy."""


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """training.json: which training an exported checkpoint is of.

    run: folder of the run. step: of the checkpoint, out of `steps`.
    weights: the moving "average", or those of the "last" step themselves.
    refresh: how slow regions are to be refreshed, as of TrainConfig.
    rules: what steps and actions meant.
    folder, split, fingerprint: the data set that was trained on; `episodes`: how many of those that
        the rules keep, the first ones.
    held_out: the split that unseen episodes are in, which may be the same; "" where none are.
    environments: of simulated data, by Gymnasium id, the settings that made them.
    """

    run: str
    step: int
    steps: int
    weights: Literal["average", "last"]
    refresh: Literal["inline", "sliced"]
    rules: DataRules
    folder: str
    split: str
    fingerprint: str
    episodes: int
    held_out: str
    environments: dict[str, dict[str, Any]] = {}


def export_run(
    run: str | Path,
    folder: str | Path | None = None,
    step: int | None = None,
    average: bool = True,
    prompts: bool = True,
    whole: bool = False,
) -> tuple[Path, TrainingRecord]:
    """Writes the deployable checkpoint of a run: whole, or not at all.

    Actions that were made from states are motions that the arm achieved, so the binding of their
    checkpoint lets them act on the measured pose.

    Args:
        run: folder of the run.
        folder: to write, new or empty; None: export/ and the step, in the run's folder.
        step: of the checkpoint; None: the newest.
        average: take the moving average of the weights where the run has one.
        prompts: bring the run's folder of prompt embeddings, if it used one; without it, whoever
            loads the checkpoint needs that folder or the text encoder.
        whole: bring the backbone, too: the folder then needs nothing beside it.
    Returns:
        The folder, and what training.json in it says.
    Raises:
        RunFolderError, ConfigError: it is no run. ExportError: it has no checkpoint (of this step),
        the folder is not empty, or the backbone, schema or statistics are not those that the
        weights were trained with. CheckpointFileError: a file of the checkpoint is damaged.
    """
    opened = RunFolder.open(run)
    config, facts = opened.config(), opened.facts()
    weights, manifest, averaged = chosen_weights(opened, config, step, average)
    record = _record(opened, config, facts, manifest.step, averaged)
    name = f"step_{manifest.step:08d}" + "_last" * (config.ema != OFF and not averaged)
    target = Path(folder).expanduser() if folder is not None else opened.path / "export" / name
    require_empty(target)
    policy = trained_policy(opened, config, facts, weights)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if config.prompts and prompts:
            source = Path(config.prompts).expanduser()
            shutil.copytree(source, part / "prompts", copy_function=_linked)
        save_checkpoint(policy, part, record.rules.actions, record.fingerprint, whole)
        (part / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target, record


def read_record(folder: Path) -> TrainingRecord | None:
    """training.json of a checkpoint; None where there is none, ExportError for another file."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainingRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: {error}") from error


def _linked(source: str, target: str) -> None:
    """A second name for a file where that can be, else a copy: prompts are many."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class _UsedBackbone(msgspec.Struct, frozen=True, kw_only=True):
    """What run.json says of the backbone."""

    source: str
    sha256: dict[str, str]


class _UsedData(msgspec.Struct, frozen=True, kw_only=True):
    """What run.json says of the data that was trained on."""

    folder: str
    split: str
    fingerprint: str
    episodes: int
    environments: dict[str, dict[str, Any]] = {}


def chosen_weights(
    run: RunFolder, config: TrainConfig, step: int | None, average: bool
) -> tuple[Path, Manifest, bool]:
    """The file of a checkpoint's weights, its manifest, and whether they are the average."""
    checkpoint, averaged = _checkpoint(run, step), average and config.ema != OFF
    name = AVERAGE if averaged else TRAINED
    return checkpoint / name, verified(checkpoint, [name]), averaged


def _checkpoint(run: RunFolder, step: int | None) -> Path:
    steps = run.checkpoints.steps()
    if not steps:
        raise ExportError(
            f"{run.path}: expected a checkpoint, there is none yet; go on with: "
            f"canvas-robot train --resume {run.path}"
        )
    if step is not None and step not in steps:
        raise ExportError(f"{run.path}: step: expected one of {steps}, got {step}")
    return run.checkpoints.folder(steps[-1] if step is None else step)


def _record(
    run: RunFolder, config: TrainConfig, facts: Facts, step: int, averaged: bool
) -> TrainingRecord:
    data, actions = _said(run, facts.data, _UsedData), config.data.rules.actions
    if actions != facts.actions:
        raise ExportError(
            f"{run.path}: config.yaml says data.rules.actions {actions!r}, run.json says that it "
            f"was trained on {facts.actions!r} ones; put back the files of the run"
        )
    return TrainingRecord(
        run=str(run.path.absolute()),
        step=step,
        steps=config.steps,
        weights="average" if averaged else "last",
        refresh=config.refresh,
        rules=config.data.rules,
        folder=data.folder,
        split=data.split,
        fingerprint=data.fingerprint,
        episodes=data.episodes,
        held_out=str((facts.held_out or {}).get("split", "")),
        environments=data.environments,
    )


def _said(run: RunFolder, part: dict[str, object], as_type):
    try:
        return msgspec.convert(part, as_type)
    except msgspec.ValidationError as error:
        raise ExportError(f"{run.path / 'run.json'}: {error}") from error


def require_empty(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ExportError(
            f"{folder}: expected a new or empty folder, there is something; remove it, or name "
            "another with -o"
        )


def trained_policy(
    run: RunFolder, config: TrainConfig, facts: Facts, weights: Path
) -> CanvasPolicy:
    """The run's declarations with the weights of a file, ready to act."""
    used = _said(run, facts.backbone, _UsedBackbone)
    run.require_unchanged()
    schema, statistics = run.schema(), run.statistics()
    binding = anchored(run.binding(), config.data.rules)
    backbone = load_backbone(
        used.source, DTYPES[config.backbone.dtype], text_encoder=not config.prompts
    )
    _require_same_backbone(run, used, backbone)
    prompts = open_prompts(config.prompts, backbone) if config.prompts else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # what no training changes is as it began there
        model = CanvasModel(
            schema, binding, statistics, backbone, config.loops, prompts, config.freeze
        )
    load_trained(model, weights, run)
    return CanvasPolicy(
        model, schema, binding, statistics, backbone.source, used.sha256, trained=True
    )


def anchored(binding: Binding, rules: DataRules) -> Binding:
    if not rules.relabelled or binding.robot is None:
        return binding
    robot = msgspec.structs.replace(binding.robot, anchor="measured")
    return msgspec.structs.replace(binding, robot=robot)


def _require_same_backbone(run: RunFolder, used: _UsedBackbone, found: Backbone) -> None:
    for part, sha256 in found.sha256.items():
        recorded = used.sha256.get(part, "none")
        if sha256 != recorded:
            raise ExportError(
                f"{run.path}: trained on backbone {used.source!r} whose {part} has sha256 "
                f"{recorded[:12]}..., the one found has {sha256[:12]}...; install the backbone it "
                "was trained on"
            )


def load_trained(model: CanvasModel, path: Path, run: RunFolder) -> None:
    """Puts a file's weights into the model: just those that train."""
    weights = read_weights(path)
    own = {name: p for name, p in model.own_parameters().items() if p.requires_grad}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()}
    wanted = {name: (tuple(p.shape), p.dtype) for name, p in own.items()}
    wrong = sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
    if wrong:
        name = wrong[0]
        raise ExportError(
            f"{path}: weights of another model than {run.path / 'schema.json'}, binding.yaml and "
            f"config.yaml declare: {len(wrong)} differ, {name}: expected "
            f"{wanted.get(name, 'none')}, got {found.get(name, 'none')}; put back the files of "
            "the run"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            if not torch.isfinite(weights[name]).all():
                raise ExportError(f"{path}: {name}: expected finite weights, got NaN or infinity")
            parameter.copy_(weights[name])
