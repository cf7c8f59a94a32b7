"""The windows that tf.data delivers for comparison are those that a WindowReader delivers."""

import pickle

import numpy as np
import pytest

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.synthetic import SyntheticCopy, write_synthetic
from canvas_robot.data.tensorflow_process import tensorflow_process
from canvas_robot.data.tf_windows import RULES, WindowShape
from canvas_robot.data.windows import Draw, WindowReader
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding

SHAPE = WindowShape("image_0", pictures=1, states=2, actions=4)  # of widowx_tiny.json
BATCH = 5
# TensorFlow's decoder takes a faster transform than ours, see stored.py.
DECODER_DIFFERS = 20

TAKE_ONE_BY_ONE = """
import pickle
from itertools import islice
from canvas_robot.data.tf_windows import tfds_windows
windows = islice(tfds_windows(folder, shape, 1, whole_episodes=whole), count)
with open(out, "wb") as file:
    pickle.dump(list(windows), file)
"""
TAKE_BATCHES = """
import pickle
from itertools import islice
from canvas_robot.data.tf_windows import octo_batches
batches = octo_batches(folder, shape, batch_size, buffer, 1, order=order, seed=0)
with open(out, "wb") as file:
    pickle.dump(list(islice(batches, count)), file)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).repeat(6, 1).repeat(6, 2)
    copy = SyntheticCopy(episodes=3, size=64, picture_bytes=1500)
    return write_synthetic(tmp_path_factory.mktemp("copy"), copy, frames.astype(np.uint8))


@pytest.fixture(scope="module")
def expected(folder):
    """By what it holds beside the picture, the picture of each window, in stored order."""
    dataset = BridgeV2(folder)
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    reader = WindowReader(
        dataset, schema, load_binding(config_path("bindings", "widowx.yaml")), RULES
    )
    windows = [
        window
        for episode in range(len(dataset))
        for window in reader.windows([Draw(episode, t) for t in range(dataset.steps[episode] - 2)])
    ]
    return {
        identity(
            {
                "state": window.frames["proprio"].values,
                "state_missing": window.frames["proprio"].missing,
                "action": window.targets["action"].values,
                "action_missing": window.targets["action"].missing,
                "picture_missing": window.frames["visual"].missing,
                "instruction": window.instruction,
            }
        ): window.frames["visual"].values
        for window in windows
    }


def identity(window):
    text = window["instruction"]
    arrays = ("state", "state_missing", "action", "action_missing", "picture_missing")
    return (
        text.decode() if isinstance(text, bytes) else text,
        *(window[name].dtype.str for name in arrays),
        *(window[name].tobytes() for name in arrays),
    )


def taken(code, tmp_path, **names):
    out = tmp_path / "windows"
    tensorflow_process.call(exec, code, {"out": out, "shape": SHAPE, **names})
    return pickle.loads(out.read_bytes())


def assert_same(windows, expected):
    for window in windows:
        mine = expected[identity(window)]
        assert window["picture"].shape == mine.shape and window["picture"].dtype == mine.dtype
        assert np.abs(window["picture"].astype(int) - mine).max() <= DECODER_DIFFERS


@pytest.mark.parametrize("whole", [False, True])
def test_as_dataset_gives_all_windows_in_stored_order(folder, expected, tmp_path, whole):
    windows = taken(TAKE_ONE_BY_ONE, tmp_path, folder=folder, whole=whole, count=len(expected) + 1)
    assert [identity(window) for window in windows[:-1]] == list(expected)
    assert identity(windows[-1]) == identity(windows[0])  # it goes on with the next epoch
    assert_same(windows, expected)


@pytest.mark.parametrize("order", ["decode_last", "decode_first", "decode_last_and_resize"])
def test_the_octo_style_pipeline_gives_windows_in_random_order(folder, expected, tmp_path, order):
    count = len(expected) // BATCH
    batches = taken(
        TAKE_BATCHES, tmp_path, folder=folder, batch_size=BATCH, buffer=30, order=order, count=count
    )
    windows = [
        {name: column[row] for name, column in batch.items()}
        for batch in batches
        for row in range(BATCH)
    ]
    assert_same(windows, expected)
    places = [list(expected).index(identity(window)) for window in windows]
    assert places != sorted(places)


def test_a_buffer_of_one_window_shuffles_nothing(folder, expected, tmp_path):
    names = {"batch_size": BATCH, "buffer": 1, "order": "decode_last", "count": 1}
    (batch,) = taken(TAKE_BATCHES, tmp_path, folder=folder, **names)
    rows = [{name: column[row] for name, column in batch.items()} for row in range(BATCH)]
    assert [identity(window) for window in rows] == list(expected)[:BATCH]
