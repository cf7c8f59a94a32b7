"""Which stored feature holds what, in Bridge V2 1.0.0 and Open X-Embodiment's bridge 0.1.0.

Found from features.json, never from the data set's name: both are called `bridge`, and the
catalogue shows the new features for the old files (tensorflow/datasets#11087). No record is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from canvas_robot.data.episode import ACTION_SIZE, STATE_SIZE

CAMERAS = ("image_0", "image_1", "image_2", "image_3")
ACHIEVED = "achieved"  # what metadata.json says of actions that are motions, not commands
DOWNLOAD = (
    "download bridge_dataset/1.0.0 from "
    "https://rail.eecs.berkeley.edu/datasets/bridge_release/data/tfds/bridge_dataset/1.0.0/"
)


class BridgeDataError(ValueError):
    """A folder is not Bridge V2 in a known layout, or lacks the asked split or camera."""


class Column(NamedTuple):
    """A stored feature with `size` numbers a step; flags are stored as the integers 0 and 1."""

    key: str
    size: int
    flag: bool = False


@dataclass(frozen=True)
class DatasetLayout:
    """Where an episode's values are stored, as keys of a serialised tf.train.Example.

    name: what the layout is called in messages.
    state: (7,) a step: x, y, z (m), roll, pitch, yaw (rad), gripper.
    action: the columns that stand side by side in a recorded action (7,) of Bridge V2.
    instruction: the goal text, once a step.
    pictures: (camera, key) of every camera; the cameras are named image_0, image_1, ...
    """

    name: str
    state: Column
    action: tuple[Column, ...]
    instruction: str
    pictures: tuple[tuple[str, str], ...]

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(camera for camera, _ in self.pictures)

    def picture_key(self, camera: str) -> str:
        """The key of a camera's pictures. Raises BridgeDataError for an unknown camera."""
        for name, key in self.pictures:
            if name == camera:
                return key
        raise BridgeDataError(f"camera: expected one of {list(self.cameras)}, got {camera!r}")


_STATE = Column("steps/observation/state", STATE_SIZE)
_BRIDGE = DatasetLayout(
    name="Bridge V2 1.0.0",
    state=_STATE,
    action=(Column("steps/action", ACTION_SIZE),),
    instruction="steps/language_instruction",
    pictures=tuple((camera, f"steps/observation/{camera}") for camera in CAMERAS),
)
# gs://gresearch/robotics/bridge/0.1.0; the action is put together as Open X-Embodiment's own users
# do. The gripper is a flag, the first camera has no number.
_OXE = DatasetLayout(
    name="Open X-Embodiment bridge 0.1.0",
    state=_STATE,
    action=(
        Column("steps/action/world_vector", 3),
        Column("steps/action/rotation_delta", 3),
        Column("steps/action/open_gripper", 1, flag=True),
    ),
    instruction="steps/observation/natural_language_instruction",
    pictures=tuple(
        (camera, f"steps/observation/{camera.removesuffix('_0')}") for camera in CAMERAS
    ),
)
_OWN_CLASSES = "tensorflow_datasets."
_MARK_OF_OXE = "steps/action/world_vector"


def read_layout(folder: str | Path) -> DatasetLayout:
    """The layout that `folder`/features.json describes, with the cameras that it has.

    Raises BridgeDataError when it is another one, naming the feature that differs.
    """
    folder = Path(folder)
    try:
        tree = json.loads((folder / "features.json").read_text())
        features = dict(_leaves(tree))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BridgeDataError(
            f"{folder}/features.json: expected the features of a TFDS data set, got {error!r}"
        ) from error
    foreign = sorted({name for name in _class_names(tree) if not name.startswith(_OWN_CLASSES)})
    if foreign:  # TFDS imports the module of each
        raise BridgeDataError(
            f"{folder}/features.json: expected features of tensorflow_datasets, got {foreign}"
        )
    layout = _OXE if _MARK_OF_OXE in features else _BRIDGE
    for key, expected in _expected(layout):
        if features.get(key) != expected:
            below = sorted(leaf for leaf in features if leaf.startswith(f"{key}/"))
            raise BridgeDataError(
                f"{folder}: {key}: expected {expected[0]} {expected[1]}, "
                f"got {below or features.get(key, 'nothing')}; this is neither Bridge V2 1.0.0 "
                f"nor Open X-Embodiment's bridge 0.1.0: {DOWNLOAD}"
            )
    pictures = tuple(item for item in layout.pictures if _is_picture(features.get(item[1])))
    if not pictures:
        raise BridgeDataError(
            f"{folder}: {layout.name}: expected pictures (height, width, 3) uint8 in one of "
            f"{[key for _, key in layout.pictures]}, got none"
        )
    return DatasetLayout(layout.name, layout.state, layout.action, layout.instruction, pictures)


def _expected(layout: DatasetLayout) -> Iterator[tuple[str, tuple[str, tuple]]]:
    for column in (*layout.action, layout.state):
        shape = (column.size,) if column.size > 1 else ()
        yield column.key, ("bool" if column.flag else "float32", shape)
    yield layout.instruction, ("string", ())


def _is_picture(leaf: tuple[str, tuple] | None) -> bool:
    return leaf is not None and leaf[0] == "uint8" and len(leaf[1]) == 3 and leaf[1][2] == 3


def _class_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("pythonClassName", "type") and isinstance(value, str):
                yield value
            yield from _class_names(value)


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
