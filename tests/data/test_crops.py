"""Laws of crops: boxes lie in the picture, keep its aspect, and follow from what they are of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.data.crops import RULE, SMALLEST_AREA, Box, crop_box

DATA = "0123456789abcdef" * 4
fingerprints = st.text("0123456789abcdef", min_size=64, max_size=64)
sizes = st.tuples(st.integers(8, 2000), st.integers(8, 2000))


@given(fingerprints, st.integers(0, 10**6), st.integers(0, 100), sizes)
def test_a_box_lies_in_the_picture_and_has_its_aspect_and_most_of_its_area(data, episode, k, size):
    box = crop_box(data, episode, k, size)
    assert box.top >= 0 and box.top + box.height <= size[0]
    assert box.left >= 0 and box.left + box.width <= size[1]
    sides = np.array([box.height / size[0], box.width / size[1]])
    rounding = 0.5 / min(size)
    assert abs(sides[0] - sides[1]) <= 2 * rounding
    assert (sides >= np.sqrt(SMALLEST_AREA) - rounding).all()


@given(fingerprints, st.integers(0, 10**6), sizes)
def test_crop_0_is_the_whole_picture(data, episode, size):
    assert crop_box(data, episode, 0, size) == (0, 0, *size)


def test_every_data_set_episode_and_crop_has_a_box_of_its_own():
    keys = [(d, e, k) for d in (DATA, DATA[::-1]) for e in range(10) for k in range(1, 6)]
    assert len({crop_box(*key, (10_000, 10_000)) for key in keys}) == len(keys)


def test_areas_and_places_are_spread_evenly():
    boxes = np.array([crop_box(DATA, e, 1, (1000, 1000)) for e in range(2000)])
    area = (boxes[:, 2] / 1000) ** 2
    assert abs(area.mean() - 0.9) < 0.005 and area.min() < 0.805 and area.max() > 0.995
    down = boxes[:, 0] / np.maximum(1, 1000 - boxes[:, 2])
    right = boxes[:, 1] / np.maximum(1, 1000 - boxes[:, 3])
    assert abs(down.mean() - 0.5) < 0.03 and abs(right.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.1


def test_boxes_stay_what_they_were_in_caches_that_are_in_use():
    """Golden values of this file's first version, NumPy 2.4: another rule needs another RULE."""
    assert crop_box(DATA, 0, 1, (256, 256)) == (3, 3, 253, 253)
    assert crop_box(DATA, 7, 3, (480, 640)) == (2, 0, 478, 637)
    assert RULE.startswith("crop 0: the whole picture. crop k > 0: a box with the picture's aspect")


@pytest.mark.parametrize("frames", [(), (3,)])
def test_a_box_is_a_view_of_one_picture_or_of_many(frames):
    images = np.arange(np.prod((*frames, 6, 8, 3))).reshape(*frames, 6, 8, 3)
    part = Box(1, 2, 4, 5).of(images)
    assert part.shape == (*frames, 4, 5, 3) and np.shares_memory(part, images)
    assert np.array_equal(part, images[..., 1:5, 2:7, :])
