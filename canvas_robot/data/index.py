"""EpisodeIndex: where each episode of a split lies, and what is known of it without decoding it.

Made in one pass over the shards that passes over pictures and embeddings; stored beside the data,
or in a cache folder where that is read-only. Made again when a shard, its size or its time changes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from canvas_robot.data.episode import EpisodeError
from canvas_robot.data.index_store import load_arrays, places_of, store_made
from canvas_robot.data.layout import DatasetLayout
from canvas_robot.data.records import CorruptRecordError, open_shard
from canvas_robot.data.stored import StoredEpisode

# Called after each record with the bytes that are done and those of the whole split.
Progress = Callable[[int, int], None]

_FORMAT = 1  # of the stored arrays; part of their key
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitFiles:
    """The shards of a split as dataset_info.json says: names in `folder`, episodes in each."""

    folder: Path
    split: str
    file_format: str
    names: tuple[str, ...]
    episodes: tuple[int, ...]


class Skipped(NamedTuple):
    """What cannot be read: `episodes` from `offset` of a file on; offset -1: the whole file."""

    file: str
    offset: int
    episodes: int
    problem: str

    def __str__(self) -> str:
        where = f"{self.file}: record at {self.offset}" if self.offset >= 0 else self.file
        return f"{where}: {self.problem} ({self.episodes} lost)"


@dataclass(frozen=True, eq=False)
class EpisodeIndex:
    """The N readable episodes of a split, in stored order.

    files, sizes: names of the shards and their bytes, -1 where one is missing.
    shard, offset, length: (N,) which shard, and where in it; see records.py.
    number: (N,) its number in the split as published; it differs from the place in this index
        only behind what was skipped.
    steps: (N,) int32. has_language: (N,) the instruction is not blank.
    pictures: (N, cameras) the first frame of the camera is not black.
    skipped: what was damaged or missing.
    verified: the checksums of the data were compared too; else that is done at each reading.
    seconds: what making it took.
    """

    files: tuple[str, ...]
    sizes: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    number: np.ndarray
    steps: np.ndarray
    has_language: np.ndarray
    pictures: np.ndarray
    cameras: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    verified: bool
    seconds: float

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def gigabytes(self) -> float:
        """Of the shards that are there."""
        return float(self.sizes[self.sizes > 0].sum()) / 1e9

    @property
    def episodes_skipped(self) -> int:
        return sum(skipped.episodes for skipped in self.skipped)


def open_index(
    files: SplitFiles,
    layout: DatasetLayout,
    *,
    index_dir: str | Path | None = None,
    progress: Progress | None = None,
    verify: bool = False,
    verified: bool = False,
) -> EpisodeIndex:
    """The stored index of a split if it fits the files as they are, else a new one, then stored.

    index_dir: where it is kept; by default beside the data, else in the cache folder. Processes
        that need it at once wait for the first of them to make it.
    verify: make it anew, comparing the checksums of the data too; what is damaged is left out,
        then and whenever this index is opened again.
    verified: a stored index serves only if it was made so.
    """
    key = _key(files, layout)
    places = places_of(files.folder, f"{files.split}.index.npz", index_dir)

    def stored() -> EpisodeIndex | None:
        for place in places if not verify else ():
            index = _from_arrays(load_arrays(place, key), files, layout)
            if index is not None and (index.verified or not verified):
                return index
        return None

    found = stored()
    if found is not None:
        return found
    return store_made(
        places,
        key,
        stored,
        lambda: build_index(files, layout, progress, verify or verified),
        _to_arrays,
    )


def build_index(
    files: SplitFiles,
    layout: DatasetLayout,
    progress: Progress | None = None,
    verify: bool = False,
) -> EpisodeIndex:
    """Goes through all shards once. Damage does not stop it: see `EpisodeIndex.skipped`."""
    started = time.monotonic()
    sizes = [_size(files.folder / name) for name in files.names]
    total, done, first = sum(max(0, size) for size in sizes), 0, 0
    rows: list[tuple[int, _Row]] = []
    skipped: list[Skipped] = []
    for shard, (size, episodes) in enumerate(zip(sizes, files.episodes, strict=True)):
        for item in _scan(files, shard, first, layout, verify):
            if isinstance(item, Skipped):
                skipped.append(item)
                continue
            rows.append((shard, item))
            if progress is not None:
                progress(done + size * (item.number - first) // episodes, total)
        first += episodes
        done += max(0, size)
    if progress is not None:
        progress(total, total)
    return EpisodeIndex(
        files=files.names,
        sizes=np.array(sizes, np.int64),
        shard=np.array([shard for shard, _ in rows], np.int32),
        offset=np.array([row.offset for _, row in rows], np.int64),
        length=np.array([row.length for _, row in rows], np.int64),
        number=np.array([row.number for _, row in rows], np.int64),
        steps=np.array([row.steps for _, row in rows], np.int32),
        has_language=np.array([row.has_language for _, row in rows], bool),
        pictures=np.array([row.pictures for _, row in rows], bool).reshape(
            len(rows), len(layout.cameras)
        ),
        cameras=layout.cameras,
        skipped=tuple(skipped),
        verified=verify,
        seconds=time.monotonic() - started,
    )


class _Row(NamedTuple):
    offset: int
    length: int
    number: int
    steps: int
    has_language: bool
    pictures: tuple[bool, ...]


def _scan(
    files: SplitFiles, shard: int, first: int, layout: DatasetLayout, verify: bool
) -> Iterator[_Row | Skipped]:
    """The rows of one shard, whose first episode is number `first`, and what it lacks."""
    name, expected = files.names[shard], files.episodes[shard]
    path = files.folder / name
    if not path.is_file():
        if expected:
            yield Skipped(name, -1, expected, "the file is missing")
        return
    seen, damage = 0, None
    for seen, item in enumerate(open_shard(path, files.file_format).records(verify), start=1):
        if damage:
            yield damage
        damage = None
        if isinstance(item, CorruptRecordError):
            damage = Skipped(name, item.offset, 1, item.problem)
        elif seen <= expected:
            try:
                episode = StoredEpisode(f"{name}@{item.offset}", item.data, layout)
                pictures = tuple(episode.has_picture(camera) for camera in layout.cameras)
            except EpisodeError as error:
                damage = Skipped(name, item.offset, 1, str(error))
            else:
                language = bool(episode.instruction.strip())
                number = first + seen - 1
                yield _Row(item.offset, item.length, number, len(episode), language, pictures)
    missing = expected - seen
    if damage:  # behind the last damage, what is missing could not be found
        yield damage._replace(episodes=damage.episodes + max(0, missing))
    elif missing > 0:
        problem = f"expected {expected} records as dataset_info.json says, got {seen}"
        yield Skipped(name, path.stat().st_size, missing, f"{problem}: the file is cut")
    if missing < 0:
        problem = f"expected {expected} records as dataset_info.json says, got {seen}"
        yield Skipped(name, -1, -missing, problem)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _key(files: SplitFiles, layout: DatasetLayout) -> str:
    """Digest of all that the index follows from; it is stale when this differs."""
    shards = []
    for name, episodes in zip(files.names, files.episodes, strict=True):
        path = files.folder / name
        stat = path.stat() if path.is_file() else None
        shards.append([name, episodes, stat and stat.st_size, stat and stat.st_mtime_ns])
    facts = [_FORMAT, files.split, files.file_format, repr(layout), shards]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _to_arrays(index: EpisodeIndex) -> dict[str, np.ndarray]:
    return {
        **{name: getattr(index, name) for name in _ROWS},
        "sizes": index.sizes,
        "verified": np.array(index.verified),
        "seconds": np.array(index.seconds),
        "skipped": np.array(json.dumps(index.skipped)),
    }


# Of the stored arrays with one row an episode: their type.
_ROWS = {
    "shard": np.int32,
    "offset": np.int64,
    "length": np.int64,
    "number": np.int64,
    "steps": np.int32,
    "has_language": bool,
    "pictures": bool,
}


def _from_arrays(
    arrays: dict[str, np.ndarray] | None, files: SplitFiles, layout: DatasetLayout
) -> EpisodeIndex | None:
    """The inverse of `_to_arrays`; None when the arrays are not such an index."""
    if arrays is None:
        return None
    try:
        index = EpisodeIndex(
            files=files.names,
            cameras=layout.cameras,
            sizes=arrays["sizes"],
            skipped=tuple(Skipped(*item) for item in json.loads(str(arrays["skipped"]))),
            verified=bool(arrays["verified"]),
            seconds=float(arrays["seconds"]),
            **{name: arrays[name] for name in _ROWS},
        )
    except (KeyError, TypeError, ValueError) as error:
        _log.warning("%s: a stored index is made again: %r", files.folder, error)
        return None
    return index if _consistent(index, files) else None


def _consistent(index: EpisodeIndex, files: SplitFiles) -> bool:
    """Whether arrays from a file fit together and point into the shards."""
    n, shards = len(index), len(files.names)
    for name, dtype in _ROWS.items():
        array = getattr(index, name)
        shape = (n, len(index.cameras)) if name == "pictures" else (n,)
        if array.dtype != dtype or array.shape != shape:
            return False
    if index.sizes.shape != (shards,) or ((index.shard < 0) | (index.shard >= shards)).any():
        return False
    ends = np.zeros(n) if files.file_format == "array_record" else index.offset + index.length
    inside = (index.offset >= 0) & (index.length >= 0) & (ends <= index.sizes[index.shard])
    return bool(inside.all() and (index.steps > 0).all())
