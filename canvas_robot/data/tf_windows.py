"""Windows by tf.data, as others read RLDS: what `canvas-robot bench data` sets our loader beside.

Everything here imports TensorFlow where it is called and belongs into a process of its own; see
evaluation/data_contenders.py. Both give the windows that a WindowReader gives, without masks' names
and stamps: `picture` (F, H, W, 3) uint8, `state` (S, 7) and `action` (A, 7) float32, where the past
or the future is `missing`, and the `instruction`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from canvas_robot.data.layout import DatasetLayout, read_layout
from canvas_robot.data.tensorflow_process import import_tfds
from canvas_robot.data.transitions import (
    CLOSED_BELOW,
    OPEN_ABOVE,
    DataRules,
    transitions,
)

# As Octo relabels Bridge V2. Blank instructions stay: leaving them out costs each side alike.
RULES = DataRules(actions="naive", language="keep")
OCTO_BUFFER, OCTO_FRAMES = 500_000, 2_195_527  # frames in Octo's buffer, and of Bridge V2 for Octo
_MOST_STEPS = 100_000  # longer than any episode

Order = Literal["decode_last", "decode_first", "decode_last_and_resize"]


class WindowShape(NamedTuple):
    """Frames at consecutive ticks, up to now: of the camera, and of the state; actions from now."""

    camera: str
    pictures: int
    states: int
    actions: int


def tfds_windows(
    folder: Path, shape: WindowShape, threads: int, *, whole_episodes: bool
) -> Iterator[dict[str, Any]]:
    """One window after another, endlessly, in stored order, by `as_dataset`.

    whole_episodes: steps are gathered to episodes in tf.data; else they are iterated one by one, as
    RLDS's own examples do.
    """
    tfds, layout = import_tfds(), read_layout(folder)
    dataset = tfds.builder_from_directory(folder).as_dataset(
        split="train",
        decoders={"steps": {"observation": _skipped(tfds, layout, shape.camera)}},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    if whole_episodes:

        def steps_of(example):
            return example["steps"].batch(_MOST_STEPS).get_single_element()

        dataset = dataset.map(steps_of, num_parallel_calls=threads)
    dataset = dataset.with_options(_options(threads)).prefetch(1)
    while True:
        for example in tfds.as_numpy(dataset):
            recorded = (
                _whole(example, shape.camera)
                if whole_episodes
                else _gathered(example["steps"], shape.camera)
            )
            yield from _windows(recorded, shape)


class _Recorded(NamedTuple):
    """The steps of one episode, as columns: what `transitions` needs, and the rest."""

    name: str
    instruction: str
    pictures: Sequence[np.ndarray]
    states: np.ndarray
    actions: np.ndarray


def _whole(steps: dict[str, Any], camera: str) -> _Recorded:
    """Of steps that tf.data gathered."""
    instruction, observed = steps["language_instruction"][0].decode(), steps["observation"]
    return _Recorded("", instruction, observed[camera], observed["state"], steps["action"])


def _gathered(steps: Iterable[dict[str, Any]], camera: str) -> _Recorded:
    """Of steps that come one by one."""
    rows = list(steps)
    return _Recorded(
        name="",
        instruction=rows[0]["language_instruction"].decode(),
        pictures=[row["observation"][camera] for row in rows],
        states=np.stack([row["observation"]["state"] for row in rows]),
        actions=np.stack([row["action"] for row in rows]),
    )


def _windows(episode: _Recorded, shape: WindowShape) -> Iterator[dict[str, Any]]:
    rows = transitions(episode, RULES)
    for tick in range(len(rows)):
        pictures = np.arange(tick - shape.pictures + 1, tick + 1)
        states = np.arange(tick - shape.states + 1, tick + 1)
        actions = np.arange(tick, tick + shape.actions)
        shown = rows.steps[np.maximum(pictures, 0)]
        yield {
            "picture": np.stack([episode.pictures[step] for step in shown]),
            "picture_missing": pictures < 0,
            "state": rows.states[np.maximum(states, 0)],
            "state_missing": states < 0,
            "action": rows.actions[np.minimum(actions, len(rows) - 1)],
            "action_missing": actions >= len(rows),
            "instruction": episode.instruction,
        }


def octo_batches(
    folder: Path,
    shape: WindowShape,
    batch_size: int,
    buffer: int,
    threads: int,
    *,
    order: Order = "decode_last",
    seed: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of shuffled windows, endlessly, as Octo's loader makes them.

    Trajectories are relabelled and cut into windows, these are thrown together in a buffer of so
    many frames, then batched. Written after the design of octo/data/dataset.py (Octo, 2024), which
    keeps pictures encoded in the buffer and then decodes and resizes them.

    order: "decode_last": pictures wait encoded; "decode_first": decoded, at 15 times the memory;
        "decode_last_and_resize": as Octo ships, which resamples to the size that pictures have.
    """
    tfds = import_tfds()
    import tensorflow as tf  # after it: quiet, and on the CPU

    read = tfds.ReadConfig(
        skip_prefetch=True,
        num_parallel_calls_for_interleave_files=threads,
        interleave_cycle_length=threads,
        shuffle_seed=seed,
    )
    trajectories = tfds.builder_from_directory(folder).as_dataset(
        split="train",
        decoders={"steps": tfds.decode.SkipDecoding()},
        shuffle_files=True,
        read_config=read,
    )

    def decoded_one(encoded):
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)

    def decoded(pictures):
        return tf.map_fn(decoded_one, pictures, fn_output_signature=tf.uint8)

    def trajectory(example):
        steps = example["steps"]
        pictures = steps["observation"][shape.camera][1:]
        if order == "decode_first":
            pictures = decoded(pictures)
        return _chunked(steps, pictures, shape)

    def frame(window):
        pictures = decoded(window["picture"])
        if order == "decode_last_and_resize":
            size = tf.shape(pictures)[1:3]
            resized = tf.image.resize(pictures, size, method="lanczos3", antialias=True)
            pictures = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
        return {**window, "picture": pictures}

    windows = trajectories.repeat().map(trajectory, num_parallel_calls=threads)
    if order == "decode_first":
        windows = windows.unbatch()
    else:
        # As Octo flattens. Slices share memory: a trajectory is kept until its last frame leaves
        # the buffer, about four times as long as a frame. Decoded ones would take 13 GB that way.
        windows = windows.interleave(
            tf.data.Dataset.from_tensor_slices, cycle_length=threads, num_parallel_calls=threads
        )
    windows = windows.shuffle(buffer, seed=seed)
    if order != "decode_first":
        windows = windows.map(frame, num_parallel_calls=threads)
    options = _options(threads)
    options.autotune.ram_budget = 1  # Octo's way to keep tf.data from buffering more
    return windows.batch(batch_size).with_options(options).as_numpy_iterator()


def _chunked(steps, pictures, shape: WindowShape):
    """The windows of one trajectory, each in a row; the pictures are those behind the first step.

    The first step is dropped, and the last, which has no action: it shows in no window.
    """
    import tensorflow as tf

    states, count = steps["observation"]["state"], tf.shape(steps["action"])[0] - 2
    moves = states[2:, :6] - states[1:-1, :6]
    gripper = _settled(steps["action"][:, 6])[1:-1]
    actions = tf.concat([moves, gripper[:, None]], axis=1)
    ticks = tf.range(count)[:, None]
    shown = ticks + tf.range(1 - shape.pictures, 1)
    felt = ticks + tf.range(1 - shape.states, 1)
    done = ticks + tf.range(shape.actions)
    return {
        "picture": tf.gather(pictures, tf.maximum(shown, 0)),
        "picture_missing": shown < 0,
        "state": tf.gather(states[1:], tf.maximum(felt, 0)),
        "state_missing": felt < 0,
        "action": tf.gather(actions, tf.minimum(done, count - 1)),
        "action_missing": done >= count,
        "instruction": steps["language_instruction"][:count],
    }


def _settled(targets):
    """`transitions.settled_gripper` in TensorFlow: each target as the next settled one."""
    import tensorflow as tf

    is_open, is_closed = targets > OPEN_ABOVE, targets < CLOSED_BELOW
    settled = tf.where(is_open, 1.0, tf.where(is_closed, 0.0, targets))
    places = tf.where(is_open | is_closed)[:, 0]
    following = tf.searchsorted(places, tf.range(tf.size(targets, tf.int64), dtype=tf.int64))
    values = tf.concat([tf.gather(settled, places), targets[-1:]], axis=0)
    return tf.gather(values, following)


def _skipped(tfds: Any, layout: DatasetLayout, shown: str) -> dict[str, Any]:
    """Decoders that leave the pictures of all cameras but one as they are stored."""
    others: Sequence[str] = [camera for camera in layout.cameras if camera != shown]
    return {
        layout.picture_key(camera).rsplit("/")[-1]: tfds.decode.SkipDecoding() for camera in others
    }


def _options(threads: int):
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return options
