"""A stored episode gives what was recorded, picture by picture, and nothing that is not there."""

import cv2
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.episode import EpisodeError
from canvas_robot.data.layout import BridgeDataError, Column, DatasetLayout
from canvas_robot.data.stored import StoredEpisode
from canvas_robot.data.tensorflow_process import tensorflow_process


@pytest.fixture(scope="module")
def dataset(bridge_sample, tmp_path_factory):
    return BridgeV2(bridge_sample, index_dir=tmp_path_factory.mktemp("index"))


LAYOUT = DatasetLayout(
    name="made up",
    state=Column("state", 7),
    action=(Column("move", 6), Column("open", 1, flag=True)),
    instruction="text",
    pictures=(("image_0", "front"), ("image_1", "side")),
)


def jpeg(*colour, size=(16, 24)):
    picture = np.full((*size, 3), colour[::-1], np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def record(**changes):
    """Three steps: states 0..20, gripper open at the second; front red, green, blue, side black."""
    values = {
        "state": np.arange(21.0).tolist(),
        "move": np.arange(18.0).tolist(),
        "open": [0, 1, 0],
        "text": [b"put it there"] * 3,
        "front": [jpeg(255, 0, 0), jpeg(0, 255, 0), jpeg(0, 0, 255)],
        "side": [jpeg(0, 0, 0)] * 3,
        **changes,
    }
    example = tf_example_pb2.Example()
    for key, items in values.items():
        feature = example.features.feature[key]
        if key in ("text", "front", "side"):
            feature.bytes_list.value.extend(items)
        elif key == "open":
            feature.int64_list.value.extend(items)
        else:
            feature.float_list.value.extend(items)
    return example.SerializeToString()


def episode(**changes):
    return StoredEpisode("made up/0", record(**changes), LAYOUT)


def test_rows_are_put_together_as_the_layout_says():
    stored = episode()
    assert len(stored) == 3 and stored.instruction == "put it there"
    assert stored.states.dtype == stored.actions.dtype == np.float32
    np.testing.assert_array_equal(stored.states, np.arange(21).reshape(3, 7))
    np.testing.assert_array_equal(stored.actions[:, :6], np.arange(18).reshape(3, 6))
    np.testing.assert_array_equal(stored.actions[:, 6], [0, 1, 0])


def test_pictures_are_rgb_and_come_in_the_order_asked():
    stored = episode()
    images = stored.images("image_0", [2, 0, -2])
    assert images.shape == (3, 16, 24, 3) and images.dtype == np.uint8
    np.testing.assert_allclose(images[:, 0, 0], [[0, 0, 255], [255, 0, 0], [0, 255, 0]], atol=2)
    for image, step in zip(images, (2, 0, 1), strict=True):
        np.testing.assert_array_equal(image, stored.image("image_0", step))


def test_an_episode_is_all_of_its_steps():
    whole = episode().episode("image_0")
    assert whole.images.shape == (3, 16, 24, 3) and whole.name == "made up/0"
    np.testing.assert_array_equal(whole.stamps_ns, [0, 200_000_000, 400_000_000])


def test_a_black_camera_has_no_picture():
    stored = episode()
    assert stored.has_picture("image_0") and not stored.has_picture("image_1")
    assert stored.image("image_1", 0).max() == 0


def test_one_bright_corner_is_a_picture():
    corner = np.zeros((64, 64, 3), np.uint8)
    corner[-8:, -8:] = 40
    encoded = cv2.imencode(".jpg", corner)[1].tobytes()
    assert episode(side=[encoded] * 3).has_picture("image_1")


def test_the_orientation_in_a_pictures_notes_is_not_followed():
    # As TensorFlow: the pixels are the picture, whatever a camera wrote beside them.
    turned = (
        b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    )
    plain = jpeg(9, 9, 9)
    assert episode(front=[plain[:2] + turned + plain[2:]] * 3).image("image_0", 0).shape == (
        16,
        24,
        3,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": [0.0] * 20}, "state: expected 7 numbers a step, got 20 numbers"),
        ({"move": [0.0] * 12}, r"one row a step in each feature, got \{'move': 2, 'open': 3\}"),
        ({"state": [0.0] * 14}, "as many states as actions.* got 2 states and 3 actions"),
        ({"state": [], "move": [], "open": []}, "one at least|expected"),
        ({"state": [0.0] * 8 + [np.nan] * 13}, "state: expected finite numbers, got others at 1"),
    ],
)
def test_a_record_that_is_no_such_episode_is_refused_by_name(changes, message):
    with pytest.raises(EpisodeError, match=f"episode 'made up/0': .*{message}|{message}"):
        episode(**changes)


def test_bytes_that_are_no_record_are_refused():
    with pytest.raises(EpisodeError, match=r"episode 'x': expected a tf\.train\.Example"):
        StoredEpisode("x", b"\xff" * 40, LAYOUT)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([b"no picture"] * 3, "JPEG or PNG picture at step 1, got 10 bytes that are none"),
        ([b""] * 3, "got 0 bytes that are none"),
        ([jpeg(9, 9, 9)] * 2, "a picture for each of 3 steps, got 2"),
    ],
)
def test_pictures_that_are_none_are_refused_when_asked_for(pictures, message):
    stored = episode(front=pictures)
    assert len(stored.states) == 3
    with pytest.raises(EpisodeError, match=f"image_0: expected .*{message}"):
        stored.image("image_0", 1)


def test_pictures_of_two_sizes_are_refused():
    stored = episode(front=[jpeg(9, 9, 9), jpeg(9, 9, 9, size=(8, 8)), jpeg(9, 9, 9)])
    with pytest.raises(EpisodeError, match=r"pictures of one size, got \(16, 24, 3\) and \(8, 8"):
        stored.episode("image_0")


def test_what_is_not_there_is_refused():
    stored = episode()
    with pytest.raises(BridgeDataError, match=r"expected one of \['image_0', 'image_1'\]"):
        stored.image("wrist", 0)
    with pytest.raises(IndexError, match="expected a step below 3, got 3"):
        stored.image("image_0", 3)


# Equal to TensorFlow's decoder.

DECODE = "[__import__('tensorflow').io.decode_jpeg(p, 3, dct_method=m).numpy() for p in pictures]"


def tensorflow_decoded(pictures, method):
    return np.stack(tensorflow_process.call(eval, DECODE, {"pictures": pictures, "m": method}))


def test_every_real_picture_decodes_bit_for_bit_as_by_tensorflows_accurate_transform(dataset):
    cameras = ("image_0", "image_1", "image_2", "image_3")
    episodes = [dataset.read(number) for number in range(len(dataset))]
    for camera in cameras:
        encoded = [bytes(e.encoded(camera, step)) for e in episodes for step in range(len(e))]
        ours = np.concatenate([e.images(camera, range(len(e))) for e in episodes])
        np.testing.assert_array_equal(ours, tensorflow_decoded(encoded, "INTEGER_ACCURATE"))


def test_tensorflows_default_transform_is_a_little_off(dataset):
    stored = dataset.read(0)
    encoded = [bytes(stored.encoded("image_0", step)) for step in range(len(stored))]
    ours = stored.images("image_0", range(len(stored))).astype(int)
    difference = np.abs(ours - tensorflow_decoded(encoded, ""))
    assert 0 < difference.mean() < 2.5 and difference.max() <= 17  # of 255
