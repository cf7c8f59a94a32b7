"""BridgeV2: a split of Bridge V2 (RLDS, tensorflow-datasets) as a sequence of episodes.

Any episode is read at once, in any process, without TensorFlow: TFDS says which files there are,
an index says where in them. Cutting episodes into windows and normalising them happen elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from canvas_robot.data.episode import Episode
from canvas_robot.data.index import EpisodeIndex, Progress, SplitFiles, open_index
from canvas_robot.data.layout import ACHIEVED, DOWNLOAD, BridgeDataError, read_layout
from canvas_robot.data.records import FORMATS, CorruptRecordError, Shard, ShardFiles
from canvas_robot.data.stored import StoredEpisode, decode_images

_MOST_PLACES = 2048  # episodes, by camera, whose pictures' places are remembered; 1 kB each
_MOST_EPISODES = 10_000_000  # in one shard: no data set has as many
_MOST_LOGGED = 10  # places in one warning; `BridgeV2.index.skipped` has all
_log = logging.getLogger(__name__)


class BridgeV2:
    """The episodes of one split, in stored order; pictures of one camera, or of any by `read`.

    data_dir: the version folder (it holds features.json), or a folder up to two levels above it.
    split: as stored: "train" or "val".
    camera: "image_0" (fixed, over the shoulder) to "image_3" (wrist); black where an episode
        lacks it.
    skip_corrupt: use what is whole of data that is damaged or incomplete, instead of refusing it;
        all checksums are compared, once, when the index is made.
    index_dir: where the index is kept. progress: called while it is made. verify: compare all
        checksums first; see `open_index`.

    Read are the published TFRecord files and array_record copies of them, in the layouts of
    layout.py, whatever the data set is called. The stored `has_image_*` flags are not used: they
    are false in episodes that have pictures (rail-berkeley/bridge_data_v2#40).

    An object can be sent to another process; each opens the files when it first reads.

    Raises FileNotFoundError when there is no data set, BridgeDataError when it is another one,
    CorruptRecordError when files are missing or damaged and skip_corrupt is False.
    """

    def __init__(
        self,
        data_dir: str | Path,
        split: str = "train",
        camera: str = "image_0",
        *,
        skip_corrupt: bool = False,
        index_dir: str | Path | None = None,
        progress: Progress | None = None,
        verify: bool = False,
    ) -> None:
        self.folder = find_version_folder(data_dir)
        self.layout = read_layout(self.folder)
        self.split, self.camera = split, camera
        if camera not in self.layout.cameras:
            raise BridgeDataError(
                f"{self.folder}: camera: expected one of {list(self.layout.cameras)}, "
                f"got {camera!r}"
            )
        self.dataset, self.version, files = split_files(self.folder, split)
        self.index = open_index(
            files,
            self.layout,
            index_dir=index_dir,
            progress=progress,
            verify=verify,
            verified=skip_corrupt,
        )
        self._shards = ShardFiles(self.folder, files.file_format)
        self._last: tuple[int, StoredEpisode | None] = -1, None  # the episode that was read last
        self._places: dict[tuple[int, str], np.ndarray] = {}  # of pictures, by episode and camera
        _report_skipped(self.folder, self.index, skip_corrupt)

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.layout.cameras

    @property
    def steps(self) -> np.ndarray:
        """(N,) int32, steps of each episode."""
        return self.index.steps

    @property
    def has_language(self) -> np.ndarray:
        """(N,) bool, whether the instruction is not blank."""
        return self.index.has_language

    @property
    def pictures(self) -> np.ndarray:
        """(N, cameras) bool, whether the camera's first frame is not black."""
        return self.index.pictures

    @property
    def environments(self) -> dict[str, dict[str, Any]]:
        """By Gymnasium id, the settings a simulator made the episodes with; {} of recordings.

        Raises BridgeDataError for a metadata.json that says something else under that name.
        """
        said = _said(self.folder, "environments", dict[str, dict[str, Any]])
        return {} if said is None else said

    @property
    def achieved(self) -> bool:
        """Whether its actions are said to be motions that were reached, not commands.

        Raises BridgeDataError as `environments`.
        """
        return _said(self.folder, "actions", str) == ACHIEVED

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of which data this is: name, version, split, shards and offsets."""
        index = self.index
        facts = [self.dataset, self.version, self.split, index.files, index.sizes.tolist()]
        digest = hashlib.sha256(json.dumps(facts).encode())
        digest.update(index.shard.astype("<i4").tobytes())
        digest.update(index.offset.astype("<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.index)

    def name(self, index: int) -> str:
        """Data set, split, and the number of the episode in the split as published."""
        return f"{self.dataset}/{self.split}/{self.index.number[self._place(index)]}"

    def read(self, index: int) -> StoredEpisode:
        """Episode `index` with all its cameras, nothing decoded; negative counts from the end.

        Raises IndexError outside the split, CorruptRecordError where the stored bytes are damaged.
        """
        place = self._place(index)
        record = self._shard(place).read(
            int(self.index.offset[place]), int(self.index.length[place])
        )
        stored = StoredEpisode(self.name(place), record, self.layout)
        self._last = place, stored
        return stored

    def images(self, index: int, camera: str, steps: Sequence[int]) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB of some steps of an episode, in the order asked; at least one.

        Where this process has read the episode before, only these pictures are read: 13 kB each
        instead of 2 MB. Raises as `read` and `StoredEpisode.image` do.
        """
        place = self._place(index)
        places = self._places.get((place, camera))
        if places is None:
            last, stored = self._last
            if last != place:
                stored = self.read(place)
            self._places[place, camera] = stored.places(camera)
            if len(self._places) > _MOST_PLACES:
                del self._places[next(iter(self._places))]  # of the episode that came first
            return stored.images(camera, steps)
        shard, offset = self._shard(place), int(self.index.offset[place])
        encoded = [shard.part(offset, *places[step].tolist()) for step in steps]
        if None in encoded:
            return self.read(place).images(camera, steps)
        return decode_images(encoded, self.name(place), camera, steps)

    def __getitem__(self, index: int) -> Episode:
        """Episode `index` by this camera. Raises as `read` and `StoredEpisode.image` do."""
        return self.read(index).episode(self.camera)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"BridgeV2({str(self.folder)!r}, split={self.split!r}, camera={self.camera!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": (-1, None), "_places": {}}

    def _shard(self, place: int) -> Shard:
        return self._shards[self.index.files[self.index.shard[place]]]

    def _place(self, index: int) -> int:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self!r}: expected an index below {len(self)} episodes, got {index}")
        return index % len(self)


def find_version_folder(data_dir: str | Path) -> Path:
    """The folder with features.json: `data_dir` itself or one up to two levels below it.

    Raises FileNotFoundError when there is none, BridgeDataError when there are several.
    """
    data_dir = Path(data_dir)
    if _is_version_folder(data_dir):
        return data_dir
    below = [*data_dir.glob("*/features.json"), *data_dir.glob("*/*/features.json")]
    found = sorted(path.parent for path in below)
    found = [folder for folder in found if _is_version_folder(folder)]
    if not found:
        raise FileNotFoundError(
            f"{data_dir}: expected features.json and dataset_info.json in it or up to two "
            f"levels below, got none; give the version folder (.../bridge_dataset/1.0.0), "
            f"or {DOWNLOAD}"
        )
    if len(found) > 1:
        raise BridgeDataError(
            f"{data_dir}: expected one version, got {[folder.name for folder in found]}; "
            "give one of these folders"
        )
    return found[0]


def _is_version_folder(folder: Path) -> bool:
    return (folder / "features.json").is_file() and (folder / "dataset_info.json").is_file()


def splits_of(folder: Path) -> tuple[str, ...]:
    """The splits that the dataset_info.json of a version folder names."""
    return tuple(_tfds_info(folder).splits)


def split_files(folder: Path, split: str) -> tuple[str, str, SplitFiles]:
    """Name and version of the data set, and the files of a split, as TFDS understands them.

    Raises BridgeDataError for an unknown split and for files of another format.
    """
    info = _tfds_info(folder)
    if split not in info.splits:
        raise BridgeDataError(
            f"{folder}: split: expected one of {sorted(info.splits)}, got {split!r}"
        )
    if Path(split).name != split:  # it names a file
        raise BridgeDataError(f"{folder}: split: expected a plain name, got {split!r}")
    file_format = info.file_format.file_suffix
    if file_format not in FORMATS:
        raise BridgeDataError(f"{folder}: expected files of {FORMATS}, got {file_format!r}")
    names = tuple(Path(path).name for path in info.splits[split].filepaths)
    lengths = tuple(int(length) for length in info.splits[split].shard_lengths)
    if not all(0 <= length <= _MOST_EPISODES for length in lengths):
        wrong = next(length for length in lengths if not 0 <= length <= _MOST_EPISODES)
        raise BridgeDataError(
            f"{folder / 'dataset_info.json'}: split {split!r}: expected 0 to {_MOST_EPISODES:,} "
            f"episodes in a shard, got {wrong}"
        )
    return info.name, str(info.version), SplitFiles(folder, split, file_format, names, lengths)


def _tfds_info(folder: Path) -> Any:
    """TFDS's DatasetInfo of a folder; TFDS loads TensorFlow only when records are read by it."""
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"RLDS data: expected tensorflow-datasets, got: {error}; "
            "install it with: pip install 'canvas_robot[rlds]'"
        ) from error
    try:
        return tfds.builder_from_directory(folder).info
    except Exception as error:
        raise BridgeDataError(
            f"{folder}: expected dataset_info.json and features.json as TFDS writes them, "
            f"got {error!r}"
        ) from error


def _said(folder: Path, name: str, kind: Any) -> Any:
    """What TFDS keeps of the builder's own facts under a name; None where it said nothing."""
    path = folder / "metadata.json"
    if not path.is_file():
        return None
    try:
        said = msgspec.convert(json.loads(path.read_text(encoding="utf-8")), dict[str, Any])
        return msgspec.convert(said[name], kind) if name in said else None
    except (ValueError, msgspec.ValidationError) as error:
        raise BridgeDataError(f"{path}: {name}: {error}") from error


def _report_skipped(folder: Path, index: EpisodeIndex, skip_corrupt: bool) -> None:
    """Raises CorruptRecordError for the first of what cannot be read, or logs all of it."""
    if not index.skipped:
        return
    first = index.skipped[0]
    lost, places = index.episodes_skipped, len(index.skipped)
    count = f"{lost} of {lost + len(index)} episodes cannot be read, in {places} places"
    if not skip_corrupt:
        raise CorruptRecordError.at(
            folder / first.file, first.offset, f"{first.problem}; in all, {count}"
        )
    listed = [f"\n  {skipped}" for skipped in index.skipped[:_MOST_LOGGED]]
    more = f"\n  and {places - _MOST_LOGGED} more" if places > _MOST_LOGGED else ""
    _log.warning("%s: skipped: %s%s%s", folder, count, "".join(listed), more)
