"""Bridge V2's RLDS layout: its features, and an episode to a stored example and a data set.

`write_rlds` keeps TensorFlow in its own process; `bridge_features` imports it where it is called.
"""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from canvas_robot.data.episode import ACTION_SIZE, STATE_SIZE, Episode
from canvas_robot.data.layout import ACHIEVED, CAMERAS
from canvas_robot.data.tensorflow_process import import_tfds, tensorflow_process

EMBEDDING_SIZE = 512
# Bridge V2 was recorded at 5 Hz and stores no stamps. Source: rail-berkeley/bridge_data_robot,
# move_duration 0.2.
STEP_NS = 200_000_000
_FURTHER = "further."  # before the name of a camera, in a file


def bridge_features(height: int = 256, width: int = 256) -> Any:
    """The features of `bridge_dataset` 1.0.0, a tfds FeaturesDict, with pictures of this size.

    The published file describes action and state as joint velocities and angles. That is wrong
    (rail-berkeley/bridge_data_v2#26), so the descriptions here are our own.
    """
    features = import_tfds().features

    def scalar(dtype: type, doc: str) -> Any:
        return features.Scalar(dtype=dtype, doc=doc)

    def vector(size: int, doc: str) -> Any:
        return features.Tensor(shape=(size,), dtype=np.float32, doc=doc)

    def picture(camera: str) -> Any:
        return features.Image(
            shape=(height, width, 3),
            dtype=np.uint8,
            encoding_format="jpeg",
            doc=f"Camera {camera[-1]}, RGB; black where the episode has no such camera.",
        )

    return features.FeaturesDict(
        {
            "steps": features.Dataset(
                {
                    "observation": {
                        **{camera: picture(camera) for camera in CAMERAS},
                        "state": vector(
                            STATE_SIZE,
                            "x, y, z (m) of the end effector in base_link; roll, pitch, yaw (rad), "
                            "zero pointing down; gripper, 0 closed to 1 open.",
                        ),
                    },
                    "action": vector(
                        ACTION_SIZE,
                        "dx, dy, dz (m) and droll, dpitch, dyaw (rad) added to the previous "
                        "target, about base_link's axes; gripper target, 0 closed to 1 open.",
                    ),
                    "discount": scalar(np.float32, "Always 1."),
                    "reward": scalar(np.float32, "1 on the last step of a demonstration, else 0."),
                    "is_first": scalar(np.bool_, "True on the first step."),
                    "is_last": scalar(np.bool_, "True on the last step."),
                    "is_terminal": scalar(np.bool_, "True on the last step of a demonstration."),
                    "language_instruction": features.Text(doc="The goal; may be empty."),
                    "language_embedding": vector(
                        EMBEDDING_SIZE, "Sentence embedding of the goal; zeros when not computed."
                    ),
                }
            ),
            "episode_metadata": {
                "file_path": features.Text(doc="Where the episode came from."),
                "episode_id": scalar(np.int32, "Number of the episode in file_path."),
                **{
                    f"has_{camera}": scalar(np.bool_, f"True if {camera} is a picture.")
                    for camera in CAMERAS
                },
                "has_language": scalar(np.bool_, "True if the instruction is not empty."),
            },
        }
    )


def example_from_episode(episode: Episode, episode_id: int) -> dict:
    """The stored example of a complete demonstration.

    Cameras of which it has no pictures are black. The stamps are not stored: Bridge V2 has none, a
    step is 200 ms. Raises ValueError for an episode without actions, or with a camera of another
    name.
    """
    _require_storable(episode)
    pictures = episode.pictures
    black = np.zeros_like(episode.images[0])
    embedding = np.zeros(EMBEDDING_SIZE, dtype=np.float32)
    last = len(episode) - 1
    return {
        "steps": [
            {
                "observation": {
                    **{c: pictures[c][step] if c in pictures else black for c in CAMERAS},
                    "state": episode.states[step],
                },
                "action": episode.actions[step],
                "discount": 1.0,
                "reward": float(step == last),
                "is_first": step == 0,
                "is_last": step == last,
                "is_terminal": step == last,
                "language_instruction": episode.instruction,
                "language_embedding": embedding,
            }
            for step in range(len(episode))
        ],
        "episode_metadata": {
            "file_path": episode.name,
            "episode_id": episode_id,
            **{f"has_{camera}": camera in pictures for camera in CAMERAS},
            "has_language": bool(episode.instruction),
        },
    }


def _require_storable(episode: Episode) -> None:
    if unknown := sorted(episode.pictures.keys() - set(CAMERAS)):
        raise ValueError(
            f"episode {episode.name!r}: expected cameras of {list(CAMERAS)}, got {unknown}"
        )
    if episode.actions is None:
        raise ValueError(
            f"episode {episode.name!r}: expected actions (T, 7), got None; "
            "a recording without actions cannot be stored as demonstrations"
        )


def write_rlds(
    episodes: Iterable[Episode],
    data_dir: str | Path,
    split: str = "train",
    name: str = "recorded",
    version: str = "1.0.0",
    achieved: bool = False,
) -> Path:
    """Store episodes, in order, as a TFDS dataset that BridgeV2 reads; returns its folder.

    That folder is `data_dir/name/version`. Every episode is stored as a complete demonstration:
    its last step is terminal with reward 1. One episode at a time is in memory: until all are
    there, they lie on the disk, as large as they are in memory.

    achieved: their actions are motions that were reached, not commands; the data set says so.

    Raises ValueError without episodes, for one that `example_from_episode` refuses, or when their
    pictures differ in size, FileExistsError when the folder exists.
    """
    folder = Path(data_dir) / name / version
    if folder.exists():
        raise FileExistsError(
            f"write_rlds: {folder} already exists; store into another folder than {data_dir}, or "
            f"remove it"
        )
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".episodes_", dir=data_dir) as spool:
        files, sizes = [], set()
        for episode in episodes:
            _require_storable(episode)
            sizes.update(images.shape[1:3] for images in episode.pictures.values())
            files.append(_spooled(episode, Path(spool) / f"{len(files)}.npz"))
            del episode  # before the next one is made
        if len(sizes) != 1:
            raise ValueError(
                f"write_rlds {folder}: expected episodes with pictures of one size, "
                f"got {len(files)} episodes with sizes {sorted(sizes)}"
            )
        said = {"actions": ACHIEVED} if achieved else {}
        tensorflow_process.call(_write, files, *sizes, Path(data_dir), split, name, version, said)
    return folder


def _spooled(episode: Episode, file: Path) -> Path:
    """The inverse of `_read`."""
    fields = {field.name: getattr(episode, field.name) for field in dataclasses.fields(episode)}
    further = {f"{_FURTHER}{camera}": images for camera, images in fields.pop("further").items()}
    kept = {name: value for name, value in fields.items() if value is not None}
    np.savez(file, **kept, **further)
    return file


def _read(file: Path) -> Episode:
    with np.load(file) as fields:
        arrays = {name: fields[name] for name in fields}
    words = {name: str(arrays.pop(name)) for name in ("name", "instruction", "camera")}
    further = {
        name.removeprefix(_FURTHER): arrays.pop(name)
        for name in list(arrays)
        if name.startswith(_FURTHER)
    }
    return Episode(**{"actions": None, **arrays, **words, "further": further})


def _write(
    files: list[Path],
    size: tuple[int, int],
    data_dir: Path,
    split: str,
    name: str,
    version: str,
    said: dict[str, str],
) -> None:
    tfds = import_tfds()
    tfds.disable_progress_bar()

    class Recorded(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=self._description,
                features=self._feature_spec,
                disable_shuffling=self._disable_shuffling,
                metadata=tfds.core.MetadataDict(said) if said else None,
            )

    builder = Recorded(
        name=name,
        version=version,
        features=bridge_features(*size),
        # The keys are the order: tfds sorts by them when it does not shuffle.
        split_datasets={
            split: ((i, example_from_episode(_read(file), i)) for i, file in enumerate(files))
        },
        data_dir=data_dir,
        description="Recorded episodes in the layout of Bridge V2.",
        disable_shuffling=True,
    )
    # Nothing is downloaded, but tfds makes a folder for it, and says that it downloads.
    with tempfile.TemporaryDirectory() as unused, redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=unused)
