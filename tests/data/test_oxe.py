"""Open X-Embodiment's bridge 0.1.0 is known by its features and gives Bridge V2's episodes."""

from pathlib import Path

import numpy as np
import pytest

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.reference import tfds_episodes
from canvas_robot.data.tensorflow_process import tensorflow_process

WRITER = Path(__file__).with_name("write_oxe.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three episodes of 2, 3 and 4 steps; the second has no instruction, image_1 is black."""
    data_dir = tmp_path_factory.mktemp("oxe")
    tensorflow_process.call(exec, WRITER.read_text(), {"data_dir": str(data_dir)})
    return data_dir / "bridge" / "0.1.0"


@pytest.fixture(scope="module")
def dataset(folder):
    return BridgeV2(folder)


def test_it_is_known_by_its_features(dataset):
    assert dataset.layout.name == "Open X-Embodiment bridge 0.1.0"
    assert dataset.cameras == ("image_0", "image_1")


def test_the_index_knows_its_episodes(dataset):
    assert dataset.steps.tolist() == [2, 3, 4]
    assert dataset.has_language.tolist() == [True, False, True]
    assert dataset.pictures.tolist() == [[True, False]] * 3


def test_the_action_is_put_together_in_bridges_order(dataset):
    # As written: world_vector 1, 2, 3; rotation_delta 4, 5, 6, all + step; open at even steps.
    actions = dataset.read(2).actions
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions[:, :6], np.arange(1, 7) + np.arange(4)[:, None])
    np.testing.assert_array_equal(actions[:, 6], [1, 0, 1, 0])


def test_states_and_instructions_are_found(dataset):
    stored = dataset.read(0)
    assert stored.instruction == "move 0"
    np.testing.assert_array_equal(stored.states[:, 0], [0, 1])


@pytest.mark.parametrize("camera", ["image_0", "image_1"])
def test_every_step_is_equal_to_tfds(folder, camera):
    ours, theirs = list(BridgeV2(folder, camera=camera)), list(tfds_episodes(folder, camera=camera))
    assert len(ours) == len(theirs) == 3
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine.name, mine.instruction) == (reference.name, reference.instruction)
        for field in ("images", "states", "actions"):
            np.testing.assert_array_equal(getattr(mine, field), getattr(reference, field))
