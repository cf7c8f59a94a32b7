"""An offline evaluation from names and paths: what is loaded, judged and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.index import Progress as IndexProgress
from canvas_robot.data.transitions import DataRules, Selection, chosen
from canvas_robot.evaluation.held_out import held_out, some
from canvas_robot.evaluation.offline import Evaluation, Judge, OfflineError, Progress, Recording
from canvas_robot.evaluation.offline_report import (
    motion_errors,
    summarise,
    write_offline_report,
)
from canvas_robot.policy.assemble import assemble_policy
from canvas_robot.policy.checkpoint import CheckpointConfig, fingerprint
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.training.export import TrainingRecord, read_record

DRAWN = 3  # episodes: the best, the middle and the worst one


@dataclass(frozen=True)
class OfflineSettings:
    """What is judged, and on what.

    checkpoint: folder. data, split, skip_corrupt: as of BridgeV2.
    episodes: how many, evenly spread over the split; 0: all.
    rules: `key=value` changes of the rules that the policy was trained by.
    device, dtype, prompts: as of PolicySettings.
    batch: windows that are computed at once.
    """

    checkpoint: Path
    data: Path
    split: str = "val"
    episodes: int = 0
    rules: Sequence[str] = ()
    device: str = "cpu"
    dtype: str = "float32"
    prompts: str = ""
    batch: int = 16
    skip_corrupt: bool = False


def evaluate_offline(
    settings: OfflineSettings,
    folder: Path,
    indexing: IndexProgress | None = None,
    progress: Progress | None = None,
) -> dict:
    """Judges a checkpoint and writes the report folder; returns what report.json holds.

    Args:
        folder: made if there is none.
        indexing: called while an index is made; progress: after each episode.
    Raises:
        CheckpointError, BridgeDataError, RulesError and the like, naming the file or key;
        OfflineError for rules that are none, or a policy that cannot be judged.
    """
    policy = assemble_policy(
        PolicySettings(
            checkpoint=str(settings.checkpoint),
            device=settings.device,
            dtype=settings.dtype,
            prompts=settings.prompts,
        )
    )
    config = _config(settings.checkpoint)
    record = read_record(settings.checkpoint)
    rules = _rules(config, record, settings.rules)
    dataset = BridgeV2(
        settings.data, settings.split, skip_corrupt=settings.skip_corrupt, progress=indexing
    )
    judge = Judge(policy, dataset, rules, settings.batch)
    cameras = judge.reader.cameras
    selection, seen = held_out(
        dataset, chosen(dataset, rules, cameras), config.trained, config.data, record, cameras
    )
    selection = some(selection, settings.episodes)
    evaluation = judge.evaluate(selection, progress)
    signal, scale = policy.binding.action_signal(), policy.model.action.normaliser.scale
    components = dict(zip(signal.names, signal.units, strict=True))
    skipped = {str(each): each.episodes for each in dataset.index.skipped}
    report = {
        "trained": config.trained,
        "trained_on": {"answer": seen.answer, "text": seen.text},
        "actions": rules.actions,
        "remarks": _remarks(config, record, rules),
        "rules": msgspec.to_builtins(rules),
        "data": {
            "folder": str(dataset.folder),
            "dataset": dataset.dataset,
            "version": dataset.version,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
            "cameras": list(cameras),
            "episodes": len(evaluation.episodes),
            "windows": evaluation.windows,
            "left_out": {**selection.left_out, **skipped},
        },
        "checkpoint": {
            "folder": str(settings.checkpoint),
            "weights": fingerprint(policy),
            "trained": config.trained,
            "backbone": config.backbone,
            "loops": config.loops,
            "freeze": config.freeze,
            "data": config.data,
            **({"training": msgspec.to_builtins(record)} if record is not None else {}),
        },
        **summarise(evaluation, components, scale),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_offline_report(folder, report, _drawn(judge, selection, evaluation, scale), scale)
    return report


def _config(checkpoint: Path) -> CheckpointConfig:
    """config.json of a checkpoint that was loaded."""
    return msgspec.json.decode((checkpoint / "config.json").read_bytes(), type=CheckpointConfig)


def _rules(
    config: CheckpointConfig, record: TrainingRecord | None, changes: Sequence[str]
) -> DataRules:
    """The rules of the training with changes; raises OfflineError for changes that are none."""
    trained_by = record.rules if record else DataRules(actions=config.actions or "composed")
    values = msgspec.to_builtins(trained_by)
    for change in changes:
        key, _, value = change.partition("=")
        if key not in values:
            raise OfflineError(
                f"rules: expected key=value with a key among {sorted(values)}, got {change!r}"
            )
        values[key] = value
    try:
        return msgspec.convert(values, DataRules)
    except msgspec.ValidationError as error:
        raise OfflineError(f"rules: {error}") from error


def _remarks(
    config: CheckpointConfig, record: TrainingRecord | None, rules: DataRules
) -> dict[str, str]:
    """Where what is judged differs from what was trained, by heading."""
    remarks = {}
    if not config.actions:
        remarks["Actions."] = (
            f"The checkpoint does not say what its actions mean; the targets are {rules.actions} "
            "ones."
        )
    elif rules.actions != config.actions:
        remarks["Actions."] = (
            f"The policy was trained on {config.actions} actions, the targets are {rules.actions} "
            "ones."
        )
    if record is not None and record.refresh == "sliced":
        remarks["Sliced refresh."] = (
            "The policy was trained for slow regions that are older when they are acted on; here "
            "they are as fresh as their periods allow."
        )
    return remarks


def _drawn(
    judge: Judge, selection: Selection, evaluation: Evaluation, scale: np.ndarray
) -> list[tuple[str, Recording]]:
    """The best, the middle and the worst episode, decided on anew."""
    motion = motion_errors(evaluation, scale)
    order = np.argsort(motion, kind="stable")
    places = {"best": order[0], "middle": order[len(order) // 2], "worst": order[-1]}
    drawn, known = [], set()
    for which, place in places.items():
        if place in known:
            continue
        known.add(place)
        one = replace(
            selection,
            episodes=selection.episodes[place : place + 1],
            counts=selection.counts[place : place + 1],
        )
        (recording,) = judge.recordings(one)
        said = f"{which}: {recording.episode.name}, “{recording.episode.instruction}”"
        drawn.append((f"{said}, motion error {motion[place]:.3g}", recording))
    return drawn
