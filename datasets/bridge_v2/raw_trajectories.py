"""Bridge V2's raw recordings: finding trajectories and reading them, without TensorFlow.

The rules are those by which `bridge_dataset` 1.0.0 was made; README.md says where they are from.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from .raw_pickle import load_plain_pickle

CAMERAS = 4  # The little data with more views keeps the first four.
PICTURE_SIZE = (256, 256)
VAL_SHARE = 0.1
# Older recordings show what the camera saw a step before.
LATE_PICTURES_BEFORE = datetime(2021, 7, 23)
_DATE = "%Y-%m-%d_%H-%M-%S"
_STATE_SIZE = 7
_MOST_PIXELS = 1 << 24


class RawDataError(ValueError):
    """A folder is no raw Bridge data."""


class DamagedTrajectoryError(ValueError):
    """A trajectory lacks files, or they do not fit together."""


@dataclass(frozen=True)
class RawTrajectory:
    """A recorded trajectory: its folder, and its name below the data's root."""

    folder: Path
    name: str
    recorded: datetime


@dataclass(frozen=True, eq=False)
class RawEpisode:
    """What a trajectory becomes, T steps.

    pictures: camera number -> (T, 256, 256, 3) uint8. states, actions: (T, 7) float32.
    """

    instruction: str
    pictures: dict[int, np.ndarray]
    states: np.ndarray
    actions: np.ndarray


def find_collections(root: Path) -> Iterator[list[RawTrajectory]]:
    """The trajectories of each dated folder below `root`, in the order of their names.

    A dated folder is called as 2022-01-31_12-00-00 and holds raw/traj_group*/traj*.
    Raises RawDataError for a folder with trajectories that has no such name.
    """
    for path, folders, _ in os.walk(root):
        if "raw" in folders and (found := sorted(Path(path, "raw").glob("traj_group*/traj*"))):
            folders.clear()
            if "lmdb" in Path(path).name:  # an older copy; the publisher leaves it out as well
                continue
            recorded = _date_of(Path(path))
            yield [
                RawTrajectory(folder, folder.relative_to(root).as_posix(), recorded)
                for folder in found
                if folder.is_dir()
            ]
        folders.sort()


def split_collection(
    trajectories: list[RawTrajectory],
) -> tuple[list[RawTrajectory], list[RawTrajectory]]:
    """(train, val): 10% of a dated folder, rounded up, go to val, the same ones every time.

    A single trajectory goes to train.
    """

    def drawn(trajectory: RawTrajectory) -> bytes:
        return hashlib.sha256(trajectory.name.encode()).digest()

    shuffled = sorted(trajectories, key=drawn)
    train = max(1, int(len(shuffled) * (1 - VAL_SHARE)))
    return shuffled[:train], shuffled[train:]


def read_trajectory(trajectory: RawTrajectory) -> RawEpisode:
    """One episode: step k has picture, state and action k; the last picture and state are left out.

    In recordings before 2021-07-23 step k has picture and state k + 1, and one step less.

    Raises DamagedTrajectoryError; raw_pickle.UnsafePickleError for a pickle that is not plain data.
    """
    folder = trajectory.folder
    states, actions = _states(folder), _actions(folder)
    files = {
        camera: _picture_files(folder / f"images{camera}")
        for camera in range(CAMERAS)
        if camera == 0 or (folder / f"images{camera}").is_dir()
    }
    seen = {f"images{camera}": len(found) for camera, found in files.items()}
    seen["full_state"] = len(states)
    late = int(trajectory.recorded < LATE_PICTURES_BEFORE)
    steps = len(actions) - late
    if min(seen.values()) != len(actions) + 1 or steps < 1:
        raise DamagedTrajectoryError(
            f"{folder}: expected one more picture and state than the {len(actions)} actions, "
            f"got {seen}"
        )
    return RawEpisode(
        instruction=_instruction(folder),
        pictures={
            camera: np.stack([squash(file) for file in found[late : late + steps]])
            for camera, found in files.items()
        },
        states=states[late : late + steps],
        actions=actions[:steps],
    )


def squash(file: Path) -> np.ndarray:
    """The picture as (256, 256, 3) uint8; the ratio of its sides is not kept."""
    try:
        with Image.open(file) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise DamagedTrajectoryError(
                    f"{file}: expected a camera's picture, got {picture.width}x{picture.height}"
                )
            return np.asarray(picture.convert("RGB").resize(PICTURE_SIZE, Image.Resampling.LANCZOS))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedTrajectoryError(f"{file}: expected a picture, got: {error}") from error


def _date_of(folder: Path) -> datetime:
    try:
        return datetime.strptime(folder.name, _DATE)
    except ValueError as error:
        raise RawDataError(
            f"{folder}: expected a name such as 2022-01-31_12-00-00 for a folder with raw/"
            "traj_group*/traj*; the date decides whether its pictures came late"
        ) from error


def _picture_files(folder: Path) -> list[Path]:
    """im_0.jpg, im_1.jpg, ... as long as there is a next one."""
    numbers = {
        int(match[1]): folder / name
        for name in (os.listdir(folder) if folder.is_dir() else ())
        if (match := re.fullmatch(r"im_(\d{1,6})\.jpg", name, re.ASCII))
    }
    if sorted(numbers) != list(range(len(numbers))) or not numbers:
        raise DamagedTrajectoryError(
            f"{folder}: expected im_0.jpg and all after it, got {len(numbers)} files"
        )
    return [numbers[number] for number in range(len(numbers))]


def _states(folder: Path) -> np.ndarray:
    observed = _load(folder / "obs_dict.pkl")
    if not isinstance(observed, dict) or "full_state" not in observed:
        raise DamagedTrajectoryError(f"{folder}/obs_dict.pkl: expected full_state in a dictionary")
    return _rows(f"{folder}/obs_dict.pkl: full_state", observed["full_state"])


def _actions(folder: Path) -> np.ndarray:
    file = folder / "policy_out.pkl"
    steps = _load(file)
    if not isinstance(steps, list) or not steps:
        raise DamagedTrajectoryError(f"{file}: expected a list of actions, got {type(steps)}")
    if isinstance(steps[0], dict):
        if not all(isinstance(step, dict) and "actions" in step for step in steps):
            raise DamagedTrajectoryError(f"{file}: expected `actions` at every step")
        steps = [step["actions"] for step in steps]
    return _rows(f"{file}: actions", steps)


def _load(file: Path) -> object:
    if not file.is_file():
        raise DamagedTrajectoryError(f"{file}: expected this file, got none")
    try:
        return load_plain_pickle(file)
    except ValueError as error:
        raise DamagedTrajectoryError(str(error)) from error


def _rows(name: str, value: object) -> np.ndarray:
    """(T, 7) float32 from such an array, or from a list of arrays (7,)."""
    if isinstance(value, list) and all(isinstance(row, np.ndarray) for row in value):
        shapes = {row.shape for row in value}
        value = np.stack(value) if shapes == {(_STATE_SIZE,)} else value
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    if not is_array or value.ndim != 2 or value.shape[1] != _STATE_SIZE or not len(value):
        got = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value)
        raise DamagedTrajectoryError(f"{name}: expected (T, 7) numbers, got {got}")
    if not np.isfinite(value).all():
        raise DamagedTrajectoryError(f"{name}: expected finite numbers")
    return value.astype(np.float32)


def _instruction(folder: Path) -> str:
    """The first line of lang.txt that is not an annotator's confidence; "" where there is none."""
    file = folder / "lang.txt"
    if not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8", errors="replace")[:10_000]
    lines = [line.strip() for line in text.splitlines() if "confidence" not in line]
    return lines[0] if lines else ""
