"""A synthetic copy of Bridge V2 for measuring: its layout and sizes, pictures of other origin.

Nothing can be learned from it: states and actions are random walks, and instructions say nothing of
the pictures. What is alike is what reading costs: features, file sizes, JPEGs of Bridge's size,
episode lengths, blank instructions, black cameras.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import cv2
import msgspec
import numpy as np

from canvas_robot.data.layout import CAMERAS
from canvas_robot.data.record_writer import Feature, example, write_records
from canvas_robot.data.rlds import EMBEDDING_SIZE, bridge_features
from canvas_robot.data.tensorflow_process import tensorflow_process

# Of the published data: 60,064 episodes in 1,024 shards, 37.6 steps each.
EPISODES_PER_SHARD = 59
MEAN_STEPS, STEPS_DEVIATION, FEWEST_STEPS, MOST_STEPS = 37.6, 10.0, 12, 90
BLANK_SHARE = 0.3
BLACK_SHARE = 0.75  # of episodes, for the last camera
_VIEW = 0.8  # of a source frame's width and height that a picture shows
_NAME, _VERSION, _SPLIT = "bridge_dataset", "1.0.0", "train"
_NOTE = "synthetic.json"

Progress = Callable[[int, int], None]
"""Called with the episodes that are done and those of the whole copy."""


class SyntheticError(ValueError):
    """A folder holds something else than the copy that was asked for."""


class SyntheticCopy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a copy holds; equal ones are equal byte for byte if their source frames are.

    picture_bytes: of a JPEG, on average: Bridge's 13 kB at 256x256.
    """

    episodes: int = 2000
    size: int = 256
    picture_bytes: int = 13_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("episodes", "size", "picture_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    @property
    def shards(self) -> int:
        return -(-self.episodes // EPISODES_PER_SHARD)

    def episodes_of(self, shard: int) -> range:
        first = shard * EPISODES_PER_SHARD
        return range(first, min(first + EPISODES_PER_SHARD, self.episodes))


def write_synthetic(
    folder: str | Path,
    copy: SyntheticCopy,
    frames: np.ndarray,
    threads: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Writes the copy, or what is missing of it; returns its version folder.

    Args:
        folder: the copy becomes `folder`/bridge_dataset/1.0.0.
        frames: (n, H, W, 3) uint8 RGB, one after another in time: pictures are parts of them,
            shifted, mirrored, brightened.
        threads: that write shards.
    Raises:
        SyntheticError: the folder holds another copy.
    """
    target = Path(folder) / _NAME / _VERSION
    source = _Source(frames, copy.size)
    note = {**msgspec.to_builtins(copy), "frames": source.sha256}
    _claim(target, note)
    missing = [shard for shard in range(copy.shards) if not _path(target, copy, shard).is_file()]
    done = copy.episodes - sum(len(copy.episodes_of(shard)) for shard in missing)
    if progress is not None:
        progress(done, copy.episodes)
    if missing:
        quality = quality_for(source.sample(), copy.picture_bytes)
        with ThreadPoolExecutor(threads) as pool:
            coming = {
                pool.submit(_write_shard, target, copy, shard, source, quality): shard
                for shard in missing
            }
            for written in as_completed(coming):
                written.result()
                done += len(copy.episodes_of(coming[written]))
                if progress is not None:
                    progress(done, copy.episodes)
    _describe(target, [len(copy.episodes_of(shard)) for shard in range(copy.shards)])
    tensorflow_process.call(_save_features, target, copy.size)
    return target


def link_part(version_folder: Path, target: Path, shards: int) -> Path:
    """The first shards of a copy as a data set of their own, by links; returns its folder.

    Raises SyntheticError where there are fewer.
    """
    info = json.loads((version_folder / "dataset_info.json").read_text())
    lengths = [int(length) for length in info["splits"][0]["shardLengths"]]
    if not 0 < shards <= len(lengths):
        raise SyntheticError(f"shards: expected 1 to {len(lengths)}, got {shards}")
    target.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        link = target / _file_name(shard, shards)
        if not link.exists():
            link.symlink_to((version_folder / _file_name(shard, len(lengths))).resolve())
    _describe(target, lengths[:shards])
    _replace(target / "features.json", (version_folder / "features.json").read_text())
    return target


def quality_for(pictures: Sequence[np.ndarray], picture_bytes: int) -> int:
    """The JPEG quality, 1 to 100, at which pictures (H, W, 3) take about so many bytes each."""

    def mean_bytes(quality: int) -> float:
        return float(np.mean([len(_jpeg(picture, quality)) for picture in pictures]))

    low, high = 1, 100
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if mean_bytes(middle) < picture_bytes else (low, middle)
    return min((low, max(1, low - 1)), key=lambda quality: abs(mean_bytes(quality) - picture_bytes))


class _Source:
    """Frames that pictures are cut from, BGR as OpenCV encodes them."""

    def __init__(self, frames: np.ndarray, size: int) -> None:
        side = round(size / _VIEW)
        self.size, self.sha256 = size, hashlib.sha256(frames.tobytes()).hexdigest()
        self._frames = [
            cv2.cvtColor(
                cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR
            )
            for frame in frames
        ]
        self._room = side - size

    def pictures(self, random: np.random.Generator, count: int) -> Iterator[np.ndarray]:
        """What one camera shows in an episode: (size, size, 3) each, moving little by little."""
        start, mirrored = int(random.integers(len(self._frames))), random.random() < 0.5
        brightness = random.uniform(0.7, 1.2)
        place = random.uniform(0, self._room, 2)
        for step in range(count):
            place = np.clip(place + random.normal(scale=0.02 * self.size, size=2), 0, self._room)
            top, left = place.astype(int)
            frame = self._frames[_back_and_forth(start + step, len(self._frames))]
            picture = frame[top : top + self.size, left : left + self.size]
            if mirrored:
                picture = cv2.flip(picture, 1)
            yield cv2.convertScaleAbs(
                picture, alpha=brightness * (1 + 0.01 * np.sin(step)), beta=0.0
            )

    def sample(self) -> list[np.ndarray]:
        """Some pictures, as episodes have them."""
        return [
            picture
            for number in range(8)
            for picture in self.pictures(np.random.default_rng(number), 4)
        ]


def _back_and_forth(step: int, count: int) -> int:
    """0, 1, ..., count - 1, count - 2, ..., 0, 1, ..."""
    around = step % max(1, 2 * (count - 1))
    return min(around, 2 * (count - 1) - around) if count > 1 else 0


def _write_shard(
    target: Path, copy: SyntheticCopy, shard: int, source: _Source, quality: int
) -> None:
    records = (
        example(_episode(copy, number, source, quality)) for number in copy.episodes_of(shard)
    )
    write_records(_path(target, copy, shard), records)


def _episode(copy: SyntheticCopy, number: int, source: _Source, quality: int) -> dict[str, Feature]:
    """The stored features of one episode, which depend on the seed and its number alone."""
    random = np.random.default_rng([copy.seed, number])
    steps = int(np.clip(random.normal(MEAN_STEPS, STEPS_DEVIATION), FEWEST_STEPS, MOST_STEPS))
    states, actions = _walk(random, steps)
    instruction = _instruction(random)
    embedding = random.normal(scale=0.05, size=EMBEDDING_SIZE).astype(np.float32)
    last = np.arange(steps) == steps - 1
    features: dict[str, Feature] = {
        "steps/action": actions.ravel(),
        "steps/discount": np.ones(steps, np.float32),
        "steps/is_first": np.arange(steps) == 0,
        "steps/is_last": last,
        "steps/is_terminal": last,
        "steps/language_embedding": np.tile(embedding, steps),
        "steps/language_instruction": [instruction.encode()] * steps,
        "steps/observation/state": states.ravel(),
        "steps/reward": last.astype(np.float32),
        "episode_metadata/episode_id": np.array([number]),
        "episode_metadata/file_path": [f"synthetic/{copy.seed}/{number}".encode()],
        "episode_metadata/has_language": np.array([bool(instruction)]),
    }
    black = [_jpeg(np.zeros((copy.size, copy.size, 3), np.uint8), quality)] * steps
    for camera in CAMERAS:
        dark = camera == CAMERAS[-1] and random.random() < BLACK_SHARE
        shown = source.pictures(random, steps)
        features[f"steps/observation/{camera}"] = (
            black if dark else [_jpeg(picture, quality) for picture in shown]
        )
        # False where there are pictures, as published (rail-berkeley/bridge_data_v2#40).
        features[f"episode_metadata/has_{camera}"] = np.array([False])
    return features


def _walk(random: np.random.Generator, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """States (steps, 7) that wander through Bridge's workspace, and actions that led there."""
    deviation = [0.01, 0.013, 0.012, 0.028, 0.03, 0.076]  # of Bridge's actions
    moves = np.cumsum(random.normal(scale=deviation, size=(steps, 6)), axis=0)
    low, high = [0.15, -0.2, -0.05, -0.4, -0.5, -1.5], [0.45, 0.25, 0.3, 0.4, 0.5, 1.5]
    poses = np.clip(np.array([0.3, 0.03, 0.07, 0.0, -0.08, 0.1]) + moves, low, high)
    opens = (np.cumsum(random.random(steps) < 0.06) % 2).astype(float)
    gripper = np.convolve(opens, np.ones(3) / 3, mode="same")[:, None]
    changes = np.diff(poses, axis=0, append=poses[-1:])
    states = np.concatenate([poses, gripper], axis=1)
    return states.astype(np.float32), np.concatenate([changes, gripper], axis=1).astype(np.float32)


def _instruction(random: np.random.Generator) -> str:
    if random.random() < BLANK_SHARE:
        return ""
    things = ("cup", "spoon", "carrot", "pot lid", "towel", "green block", "banana", "knife")
    places = ("plate", "stove", "table", "drying rack", "sink", "counter", "basket", "tray")
    verb = ("put", "move", "place", "take")[random.integers(4)]
    return f"{verb} the {things[random.integers(8)]} to the {places[random.integers(8)]}"


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    return data.tobytes()


def _claim(target: Path, note: dict) -> None:
    """Notes what the folder holds. Raises SyntheticError where it holds something else."""
    target.mkdir(parents=True, exist_ok=True)
    path = target / _NOTE
    found = json.loads(path.read_text()) if path.is_file() else None
    if found is None and any(target.iterdir()):
        raise SyntheticError(f"{target}: expected an empty folder or a synthetic copy; use another")
    if found is not None and found != note:
        differing = {
            key: (found.get(key), note[key]) for key in note if found.get(key) != note[key]
        }
        raise SyntheticError(
            f"{target}: holds another copy, (there, asked for): {differing}; "
            "use another folder, or delete this one"
        )
    _replace(path, json.dumps(note, indent=2) + "\n")


def _describe(target: Path, lengths: list[int]) -> None:
    shards = len(lengths)
    total = sum((target / _file_name(shard, shards)).stat().st_size for shard in range(shards))
    info = {
        "description": "Made for measuring: Bridge V2's layout, pictures of other origin.",
        "fileFormat": "tfrecord",
        "moduleName": "bridge_dataset.bridge_dataset_dataset_builder",
        "name": _NAME,
        "releaseNotes": {_VERSION: "Initial release."},
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": _SPLIT,
                "numBytes": str(total),
                "shardLengths": [str(length) for length in lengths],
            }
        ],
        "version": _VERSION,
    }
    _replace(target / "dataset_info.json", json.dumps(info, indent=2) + "\n")


def _save_features(target: Path, size: int) -> None:
    """Writes features.json; TFDS needs TensorFlow for it."""
    bridge_features(size, size).save_config(target)


def _path(target: Path, copy: SyntheticCopy, shard: int) -> Path:
    return target / _file_name(shard, copy.shards)


def _file_name(shard: int, shards: int) -> str:
    return f"{_NAME}-{_SPLIT}.tfrecord-{shard:05d}-of-{shards:05d}"


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    os.replace(part, path)
