"""The plain tf.data path through tensorflow-datasets: slow, in TensorFlow's process, for comparing.

`BridgeV2` must give what this gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from canvas_robot.data.bridge import find_version_folder
from canvas_robot.data.episode import Episode
from canvas_robot.data.layout import DatasetLayout, read_layout
from canvas_robot.data.rlds import STEP_NS
from canvas_robot.data.tensorflow_process import import_tfds, tensorflow_process

# Longer than any episode: the batch that gathers the steps of one episode.
_MOST_STEPS = 100_000
# Episodes fetched at a time: 8 of Bridge V2's are about 60 MB.
_EPISODES_AT_A_TIME = 8


def tfds_episodes(
    data_dir: str | Path, split: str = "train", camera: str = "image_0"
) -> Iterator[Episode]:
    """Every episode of a split in stored order, as TFDS reads and TensorFlow decodes it.

    Pictures are decoded with TensorFlow's accurate transform, not with its faster default; see
    `stored.decode_bgr`.
    """
    folder = find_version_folder(data_dir)
    layout = read_layout(folder)
    count = tensorflow_process.call(_count, folder, split)
    for start in range(0, count, _EPISODES_AT_A_TIME):
        numbers = range(start, min(start + _EPISODES_AT_A_TIME, count))
        yield from tensorflow_process.call(_read, folder, layout, split, camera, numbers)


def _count(folder: Path, split: str) -> int:
    return import_tfds().builder_from_directory(folder).info.splits[split].num_examples


def _read(
    folder: Path, layout: DatasetLayout, split: str, camera: str, numbers: range
) -> list[Episode]:
    tfds = import_tfds()
    import tensorflow as tf  # after it: quiet, and on the CPU

    @tfds.decode.make_decoder()
    def accurate(encoded, feature):
        return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")

    shown = layout.picture_key(camera)
    decoders = {
        key.rsplit("/")[-1]: accurate() if key == shown else tfds.decode.SkipDecoding()
        for _, key in layout.pictures
    }
    builder = tfds.builder_from_directory(folder)
    dataset = builder.as_dataset(
        split=f"{split}[{numbers.start}:{numbers.stop}]",
        decoders={"steps": {"observation": decoders}},
        # One shard after another, so that the order is the stored one.
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        shuffle_files=False,
    ).map(lambda example: example["steps"].batch(_MOST_STEPS).get_single_element())
    return [
        _episode(f"{builder.name}/{split}/{number}", steps, layout, camera)
        for number, steps in zip(numbers, tfds.as_numpy(dataset), strict=True)
    ]


def _episode(name: str, steps: dict, layout: DatasetLayout, camera: str) -> Episode:
    def value(key: str) -> np.ndarray:
        node = steps
        for part in key.removeprefix("steps/").split("/"):
            node = node[part]
        return node

    images = value(layout.picture_key(camera))
    action = [value(column.key).reshape(len(images), -1) for column in layout.action]
    return Episode(
        name=name,
        instruction=value(layout.instruction)[0].decode("utf-8"),
        images=images,
        states=value(layout.state.key),
        actions=np.concatenate([part.astype(np.float32) for part in action], axis=1),
        stamps_ns=np.arange(len(images), dtype=np.int64) * STEP_NS,
        camera=camera,
    )
