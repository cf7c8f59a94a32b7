"""Export of a plain policy's run: to the folder that an evaluation loads.

What such a folder holds is policy/plain_checkpoint.py's; beside it lies training.json, as beside
every exported checkpoint. Nothing that is read is executed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import torch

from canvas_robot.policy.plain import PlainPolicy
from canvas_robot.policy.plain_checkpoint import save_plain
from canvas_robot.policy.plain_model import PlainModel
from canvas_robot.training.config import OFF
from canvas_robot.training.export import (
    RECORD,
    TrainingRecord,
    anchored,
    chosen_weights,
    load_trained,
    require_empty,
)
from canvas_robot.training.plain_run import PlainRun


def export_plain(
    run: str | Path,
    folder: str | Path | None = None,
    step: int | None = None,
    average: bool = True,
) -> tuple[Path, TrainingRecord]:
    """Writes the deployable checkpoint of a run: whole, or not at all.

    Args and what it raises are as of `export_run`; a plain policy has no backbone and no prompts.

    Returns:
        The folder, and what training.json in it says.
    """
    opened = PlainRun.open(run)
    config, facts = opened.config(), opened.facts()
    weights, manifest, averaged = chosen_weights(opened.folder, config, step, average)
    name = f"step_{manifest.step:08d}" + "_last" * (config.ema != OFF and not averaged)
    target = Path(folder).expanduser() if folder is not None else opened.path / "export" / name
    require_empty(target)
    record = TrainingRecord(
        run=str(opened.path.absolute()),
        step=manifest.step,
        steps=config.steps if config.minutes == OFF else manifest.step,
        weights="average" if averaged else "last",
        refresh="inline",
        rules=config.data.rules,
        folder=str(facts.data["folder"]),
        split=str(facts.data["split"]),
        fingerprint=str(facts.data["fingerprint"]),
        episodes=int(facts.data["episodes"]),
        held_out=str((facts.held_out or {}).get("split", "")),
        environments=dict(facts.data.get("environments", {})),
    )
    opened.folder.require_unchanged()
    schema, statistics = opened.folder.schema(), opened.folder.statistics()
    binding = anchored(opened.folder.binding(), config.data.rules)
    with torch.random.fork_rng(devices=[]):
        model = PlainModel(schema, binding, statistics, config.network)
    load_trained(model, weights, opened.folder)
    policy = PlainPolicy(model, schema, binding, statistics, trained=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        save_plain(policy, part, record.rules.actions, record.fingerprint)
        (part / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target, record
