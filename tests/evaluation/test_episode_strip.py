"""The picture of an episode shows each camera that has pictures, and all fourteen curves."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from canvas_robot.data.layout import Column, DatasetLayout
from canvas_robot.data.stored import StoredEpisode
from canvas_robot.evaluation.episode_strip import (
    draw_episode,
    episode_figure,
    panels,
    shown_steps,
    spread,
)

LAYOUT = DatasetLayout(
    name="made up",
    state=Column("state", 7),
    action=(Column("action", 7),),
    instruction="text",
    pictures=(("image_0", "front"), ("image_1", "side"), ("image_2", "wrist")),
)


def episode(steps=12, text="put the $5 carrot on the $7 plate"):
    """Frame k of image_0 is red with strength 20 k, image_1 is black, image_2 green."""

    def jpegs(colours):
        pictures = (np.full((32, 48, 3), colour, np.uint8) for colour in colours)
        return [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]

    example = tf_example_pb2.Example()
    lists = {
        "text": [text.encode()] * steps,
        "front": jpegs((0, 0, 20 * (k + 1)) for k in range(steps)),
        "side": jpegs((0, 0, 0) for _ in range(steps)),
        "wrist": jpegs((0, 200, 0) for _ in range(steps)),
    }
    for key, values in lists.items():
        example.features.feature[key].bytes_list.value.extend(values)
    rows = np.arange(7 * steps).reshape(steps, 7) / 100
    example.features.feature["state"].float_list.value.extend(rows.ravel())
    example.features.feature["action"].float_list.value.extend(-rows.ravel())
    return StoredEpisode("made_up/train/5", example.SerializeToString(), LAYOUT)


def texts(figure):
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


@given(st.integers(1, 200), st.integers(1, 16))
def test_shown_steps_are_evenly_spaced_and_each_is_shown_once(steps, frames):
    shown = shown_steps(steps, frames)
    assert len(shown) == min(steps, frames) == len(set(shown))
    assert 0 <= shown[0] and shown[-1] < steps and shown == sorted(shown)
    gaps = np.diff(shown)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_all_seven_values_of_state_and_action_are_drawn_once_with_their_unit():
    recorded = episode()
    drawn = [curve.values for panel in panels(recorded) for curve in panel.curves]
    expected = [*recorded.states.T, *recorded.actions.T]
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, expected)) and len(drawn) == 14
    assert [panel.unit for panel in panels(recorded)] == [
        "m", "rad", "m per step", "rad per step", "0 closed\n1 open"
    ]  # fmt: skip


def test_a_strip_is_drawn_for_each_camera_that_is_not_black():
    figure = episode_figure(episode(), frames=4)
    pictures = [image.get_array() for axes in figure.axes for image in axes.images]
    assert len(pictures) == 2 * 4
    reds = [int(picture[0, 0, 0]) for picture in pictures[:4]]
    np.testing.assert_allclose(reds, [20 * (step + 1) for step in (1, 4, 7, 10)], atol=5)
    assert {"image_0", "image_2"} <= texts(figure) and "image_1" not in texts(figure)


def test_the_title_says_what_and_how_long():
    found = texts(episode_figure(episode()))
    assert "put the $5 carrot on the $7 plate" in found
    assert "made_up/train/5   ·   12 steps, 2.2 s at 5 Hz   ·   black: image_1" in found
    assert "no instruction" in texts(episode_figure(episode(text=" ")))


def test_an_instruction_in_letters_that_no_font_has_is_told_all_the_same():
    unassigned = "\U000e0fff"  # of no script
    found = texts(episode_figure(episode(text=f"put {unassigned} away\n" * 20)))
    (title,) = (text for text in found if text.startswith("put "))
    assert "\\U000e0fff" in title and unassigned not in title and len(title) <= 70


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_any_episode_can_be_drawn(tmp_path, steps, suffix):
    path = tmp_path / f"strip{suffix}"
    draw_episode(episode(steps, text="带 the cup " * 30), path)
    assert path.stat().st_size > 10_000


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x\.gif: expected a file that ends with \.png or \.svg"):
        draw_episode(episode(), tmp_path / "x.gif")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=3).map(sorted))
def test_names_keep_their_order_and_a_distance(ends):
    heights = spread(ends, least=0.2)
    assert all(b - a > 0.19 for a, b in pairwise(heights))
    assert -1e-9 <= heights[0] and heights[-1] <= 1 + 1e-9
    if all(b - a >= 0.2 for a, b in pairwise(ends)):
        assert heights == ends
