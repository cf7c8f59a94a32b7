"""Which episodes a checkpoint is judged on, and whether it was trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.transitions import Selection, chosen
from canvas_robot.training.export import TrainingRecord

TRAINED_ON = "trained on"


@dataclass(frozen=True)
class Seen:
    """Whether the episodes that are judged were trained on.

    answer: "no", "yes", "unknown". text: how that is known, a sentence.
    """

    answer: str
    text: str


def held_out(
    dataset: BridgeV2,
    selection: Selection,
    trained: bool,
    fingerprint: str,
    record: TrainingRecord | None,
    cameras: Sequence[str],
) -> tuple[Selection, Seen]:
    """Of the selected episodes those that were not trained on; all of them where all were.

    Episodes count as trained on where the fingerprint is that of the training's data and the
    episode is among those that it used; and, where the training's data can be read, where the same
    recording is among those, whatever data set and split it is in.

    Args:
        dataset, selection: what is to be judged.
        trained: whether the policy was trained at all; fingerprint: of its data, "" if not known.
        record: of its training; None: not known.
        cameras: whose pictures training needed.
    """
    if not trained:
        return selection, Seen("no", "the weights are untrained")
    if not fingerprint:
        return selection, Seen("unknown", "the checkpoint does not say what it was trained on")
    if fingerprint == dataset.fingerprint:
        used = _used(dataset, record, cameras)
        seen = np.isin(selection.episodes, used)
        how = "this split's fingerprint is that of the training's data"
    else:
        other = _training_data(dataset, fingerprint, record)
        if other is None:
            return selection, Seen(
                "unknown",
                "the fingerprint is another than that of the training's data, which is not here to "
                "be compared episode by episode",
            )
        seen = _copies(dataset, selection.episodes, other, _used(other, record, cameras))
        how = f"compared with its episodes ({other.dataset}/{other.split})"
    return _unseen(selection, seen, how)


def _unseen(selection: Selection, seen: np.ndarray, how: str) -> tuple[Selection, Seen]:
    count, total = int(seen.sum()), len(selection)
    if count == total:
        return selection, Seen("yes", f"{how}: all {total} episodes were trained on")
    if not count:
        return selection, Seen("no", f"{how}: none of the {total} episodes was trained on")
    left_out = {**selection.left_out, TRAINED_ON: count}
    kept = Selection(selection.episodes[~seen], selection.counts[~seen], left_out)
    return kept, Seen(
        "no", f"{how}: {count} of {total} episodes were trained on and are left out here"
    )


def some(selection: Selection, count: int) -> Selection:
    """`count` of the episodes, evenly spread; all where there are no more or `count` is 0."""
    if not 0 < count < len(selection):
        return selection
    places = np.linspace(0, len(selection) - 1, count).round().astype(int)
    return replace(selection, episodes=selection.episodes[places], counts=selection.counts[places])


def _used(dataset: BridgeV2, record: TrainingRecord | None, cameras: Sequence[str]) -> np.ndarray:
    """Numbers of the episodes of the training's data set that were trained on."""
    if record is None:
        return np.arange(len(dataset))
    return chosen(dataset, record.rules, cameras).episodes[: record.episodes]


def _training_data(
    dataset: BridgeV2, fingerprint: str, record: TrainingRecord | None
) -> BridgeV2 | None:
    """The data that was trained on: beside what is judged, or where the training found it."""
    if record is None:
        return None
    for folder in (dataset.folder, Path(record.folder)):
        try:
            found = BridgeV2(folder, record.split, skip_corrupt=True)
        except (OSError, ValueError):
            continue  # not here, or no such split
        if found.fingerprint == fingerprint:
            return found
    return None


def _copies(
    dataset: BridgeV2, episodes: np.ndarray, other: BridgeV2, used: np.ndarray
) -> np.ndarray:
    """(n,) bool: the same recording is among some episodes of another data set.

    Records of another length are other recordings: so few are read.
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for number in used.tolist():
        by_size.setdefault(_size(other, number), []).append(number)
    return np.array(
        [
            any(_same(dataset, number, other, o) for o in by_size.get(_size(dataset, number), []))
            for number in episodes.tolist()
        ]
    )


def _size(dataset: BridgeV2, number: int) -> tuple[int, int]:
    return int(dataset.steps[number]), int(dataset.index.length[number])


def _same(dataset: BridgeV2, number: int, other: BridgeV2, there: int) -> bool:
    one, two = dataset.read(number), other.read(there)
    return np.array_equal(one.states, two.states) and np.array_equal(one.actions, two.actions)
