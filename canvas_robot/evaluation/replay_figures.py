"""How closely replayed episodes follow their record: errors by reading and by episode.

Two things lie between the recorded arm and ours, and are estimated from all episodes together: how
much later it moves (its driver and its servos), and how far its weight bends it (ours is
compensated). Errors are given as they are, and with that lag and that constant offset taken out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.evaluation.replay_conventions import RIGHT
from canvas_robot.evaluation.replay_tracking import ROW_S, ROWS_PER_STEP, Replayed, Track

LATEST_ROWS = 2 * ROWS_PER_STEP  # a lag of up to two control steps is looked for


@dataclass(frozen=True, eq=False)
class Fit:
    """By how many rows of its track the simulated arm is early, and its constant offset (3,) m."""

    late: int
    offset: np.ndarray

    @property
    def lag_s(self) -> float:
        return self.late * ROW_S


AS_IT_IS = Fit(0, np.zeros(3))


def fit(episodes: Sequence[Replayed], reading: str) -> Fit:
    """The lag and the offset that leave the smallest median of position errors."""
    fits = []
    for late in range(LATEST_ROWS + 1):
        offsets = np.concatenate([each.offsets(reading, late) for each in episodes])
        middle = np.median(offsets, axis=0)
        fits.append((np.median(np.linalg.norm(offsets - middle, axis=1)), Fit(late, middle)))
    return min(fits, key=lambda each: each[0])[1]


def tracking_figures(dataset: BridgeV2, episodes: Sequence[Replayed]) -> dict:
    """All figures by name.

    readings: of each, position_mm, rotation_deg and gripper (Bridge's state scale), as they are;
    and `fitted`, the same with its own lag_s and offset_mm taken out. motion: how far from its
    start the recorded hand was. episodes: one by one, as recorded, nothing taken out.
    """
    motions = [_motion(each.recorded) for each in episodes]
    return {
        "dataset": dataset.dataset,
        "split": dataset.split,
        "fingerprint": dataset.fingerprint,
        "steps": sum(len(each.recorded) - 1 for each in episodes),
        "motion": {
            "position_mm": _spread(np.concatenate([way for way, _ in motions])),
            "rotation_deg": _spread(np.concatenate([turn for _, turn in motions])),
        },
        "readings": {name: _reading(episodes, name) for name in episodes[0].tracks},
        "episodes": [_episode(each) for each in episodes],
    }


def position_errors(episodes: Sequence[Replayed], reading: str, taken: Fit) -> np.ndarray:
    """(steps,) mm of all episodes, that lag and that offset taken out."""
    offsets = np.concatenate([each.offsets(reading, taken.late) for each in episodes])
    return np.linalg.norm(offsets - taken.offset, axis=1) * 1e3


def rotation_errors(episodes: Sequence[Replayed], reading: str, taken: Fit) -> np.ndarray:
    """(steps,) degrees of all episodes, that lag taken out."""
    return np.degrees(np.concatenate([each.angles(reading, taken.late) for each in episodes]))


def _reading(episodes: Sequence[Replayed], reading: str) -> dict:
    fitted = fit(episodes, reading)
    taken = {"lag_s": fitted.lag_s, "offset_mm": (fitted.offset * 1e3).tolist()}
    return {
        **_errors(episodes, reading, AS_IT_IS),
        "fitted": {**taken, **_errors(episodes, reading, fitted)},
    }


def _episode(episode: Replayed) -> dict:
    way, turn = _motion(episode.recorded)
    return {
        "episode": episode.number,
        "name": episode.name,
        "instruction": episode.instruction,
        "steps": len(way),
        "motion": {"position_mm": float(way.max()), "rotation_deg": float(turn.max())},
        **_errors([episode], RIGHT, AS_IT_IS),
    }


def _errors(episodes: Sequence[Replayed], reading: str, taken: Fit) -> dict:
    gripper = np.concatenate([each.gripper_errors(reading, taken.late) for each in episodes])
    return {
        "position_mm": _spread(position_errors(episodes, reading, taken)),
        "rotation_deg": _spread(rotation_errors(episodes, reading, taken)),
        "gripper": _spread(np.abs(gripper)),
    }


def _motion(track: Track) -> tuple[np.ndarray, np.ndarray]:
    """(n - 1,) mm and degrees, each from where and how the hand began."""
    way = np.linalg.norm(track.positions[1:] - track.positions[0], axis=1)
    rotations = Rotation.from_matrix(track.rotations)
    return way * 1e3, np.degrees((rotations[0].inv() * rotations[1:]).magnitude())


def _spread(values: np.ndarray) -> dict[str, float]:
    median, p90 = np.percentile(values, (50, 90))
    return {"median": float(median), "p90": float(p90), "max": float(values.max())}
