"""Bridge V2 as published (RLDS, tensorflow-datasets), read episode by episode.

The folder is checked without TensorFlow; the first read starts it, in a process of its own.
Cutting episodes into windows and normalising them happen elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from canvas_robot.data.episode import Episode
from canvas_robot.data.rlds import CAMERAS, episode_from_example
from canvas_robot.data.tensorflow_process import import_tfds, tensorflow_process

_DOWNLOAD = (
    "download bridge_dataset/1.0.0 from "
    "https://rail.eecs.berkeley.edu/datasets/bridge_release/data/tfds/bridge_dataset/1.0.0/"
)
# What is read from a step, and the type that tells this layout from others of the same name.
_EXPECTED = {
    "steps/action": ("float32", (7,)),
    "steps/observation/state": ("float32", (7,)),
    "steps/language_instruction": ("string", ()),
}
# Longer than any episode: the batch that gathers the steps of one episode.
_MOST_STEPS = 100_000
# Episodes fetched at a time while iterating: 8 of Bridge V2's are about 60 MB.
_EPISODES_AT_A_TIME = 8


class BridgeDataError(ValueError):
    """A folder is not Bridge V2 in the published layout, or lacks the asked split or camera."""


class BridgeV2:
    """The episodes of one split and one camera, in stored order.

    data_dir: the version folder (it holds features.json), or the folder above it.
    split: as stored: "train" or "val".
    camera: "image_0" (fixed, over the shoulder) to "image_3" (wrist); black where an episode
        lacks it.

    The layout is recognised by features.json, never by the dataset's name: the older `bridge` 0.1.0
    of Open X-Embodiment has other features and is refused. The stored `has_image_*` flags are not
    used: they are false in episodes that have pictures (rail-berkeley/bridge_data_v2#40).

    Raises FileNotFoundError when there is no dataset, BridgeDataError when it is another one.
    """

    def __init__(self, data_dir: str | Path, split: str = "train", camera: str = "image_0") -> None:
        self.folder = find_version_folder(data_dir)
        self.split = split
        self.camera = camera
        _check_schema(self.folder, camera)
        self._length = _split_length(self.folder, split)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Episode:
        """Episode `index`; negative counts from the end. Raises IndexError outside the split."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self!r}: expected an index below {len(self)} episodes, got {index}")
        start = index % len(self)
        return self._read(start, start + 1)[0]

    def __iter__(self) -> Iterator[Episode]:
        for start in range(0, len(self), _EPISODES_AT_A_TIME):
            yield from self._read(start, min(start + _EPISODES_AT_A_TIME, len(self)))

    def __repr__(self) -> str:
        return f"BridgeV2({str(self.folder)!r}, split={self.split!r}, camera={self.camera!r})"

    def _read(self, start: int, stop: int) -> list[Episode]:
        return tensorflow_process.call(
            _read_episodes, self.folder, self.split, self.camera, start, stop
        )


def _read_episodes(folder: Path, split: str, camera: str, start: int, stop: int) -> list[Episode]:
    tfds = import_tfds()
    builder = tfds.builder_from_directory(folder)
    others = {name: tfds.decode.SkipDecoding() for name in CAMERAS if name != camera}
    dataset = builder.as_dataset(
        split=f"{split}[{start}:{stop}]",
        decoders={"steps": {"observation": others}},
        # One shard after another, so that iterating and indexing agree.
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        shuffle_files=False,
    ).map(lambda example: example["steps"].batch(_MOST_STEPS).get_single_element())
    return [
        episode_from_example(f"{builder.name}/{split}/{index}", steps, camera)
        for index, steps in enumerate(tfds.as_numpy(dataset), start=start)
    ]


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
            f"or {_DOWNLOAD}"
        )
    if len(found) > 1:
        raise BridgeDataError(
            f"{data_dir}: expected one version, got {[folder.name for folder in found]}; "
            "give one of these folders"
        )
    return found[0]


def _is_version_folder(folder: Path) -> bool:
    return (folder / "features.json").is_file() and (folder / "dataset_info.json").is_file()


def _check_schema(folder: Path, camera: str) -> None:
    features = dict(_leaves(json.loads((folder / "features.json").read_text())))
    for name, expected in _EXPECTED.items():
        if features.get(name) != expected:
            below = sorted(leaf for leaf in features if leaf.startswith(f"{name}/"))
            raise BridgeDataError(
                f"{folder}: {name}: expected {expected[0]} {expected[1]}, "
                f"got {below or features.get(name, 'nothing')}; this is not Bridge V2 1.0.0 "
                f"(Open X-Embodiment's bridge 0.1.0 has a dictionary here): {_DOWNLOAD}"
            )
    cameras = [name for name in CAMERAS if f"steps/observation/{name}" in features]
    if camera not in cameras:
        raise BridgeDataError(f"{folder}: camera: expected one of {cameras}, got {camera!r}")


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, tuple[str, tuple]]]:
    """(path, (dtype, shape)) of every leaf of a features.json tree; paths are joined by slashes."""
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            yield from _leaves(child, f"{path}/{name}" if path else name)
    elif "sequence" in node:
        yield from _leaves(node["sequence"]["feature"], path)
    elif "text" in node:
        yield path, ("string", ())
    else:
        leaf = node.get("tensor") or node.get("image") or {}
        shape = tuple(int(size) for size in leaf.get("shape", {}).get("dimensions", ()))
        yield path, (leaf.get("dtype", "unknown"), shape)


def _split_length(folder: Path, split: str) -> int:
    info = json.loads((folder / "dataset_info.json").read_text())
    lengths = {
        entry["name"]: sum(int(length) for length in entry["shardLengths"])
        for entry in info["splits"]
    }
    if split not in lengths:
        raise BridgeDataError(f"{folder}: split: expected one of {sorted(lengths)}, got {split!r}")
    return lengths[split]
