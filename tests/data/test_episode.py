"""An Episode is consistent or refused with the reason."""

import numpy as np
import pytest

from canvas_robot.data.episode import EpisodeError


def test_length_is_the_number_of_steps(make_episode):
    assert len(make_episode(steps=5)) == 5


def test_actions_may_be_absent(make_episode):
    assert make_episode(actions=None).actions is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "at least one step, got none"),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, r"images: expected \(T, H, W, 3\) uint8 RGB"),
        ({"images": np.zeros((4, 8, 8, 3), np.float32)}, "got .* float32"),
        (
            {"further": {"image_3": np.zeros((3, 8, 8, 3), np.uint8)}},
            "image_3 images: expected 4, as of image_0, got 3",
        ),
        (
            {"further": {"image_3": np.zeros((4, 8, 8), np.uint8)}},
            r"image_3 images: expected \(T, H, W, 3\)",
        ),
        (
            {"further": {"image_0": np.zeros((4, 8, 8, 3), np.uint8)}},
            "each camera once, got image_0 twice",
        ),
        ({"states": np.zeros((4, 6), np.float32)}, r"states: expected \(4, 7\) float32"),
        ({"states": np.zeros((4, 7))}, r"states: .* got \(4, 7\) float64"),
        ({"actions": np.zeros((3, 7), np.float32)}, r"actions: .* got \(3, 7\)"),
        ({"stamps_ns": np.arange(4, dtype=np.int32)}, "stamps_ns: .* got .* int32"),
        ({"stamps_ns": np.array([0, 5, 5, 9])}, "strictly increasing .* got 5 then 5 at step 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(make_episode, changes, message):
    with pytest.raises(EpisodeError, match=message):
        make_episode(**changes)


@pytest.mark.parametrize("field", ["states", "actions"])
def test_numbers_that_are_not_finite_are_refused_with_their_step(make_episode, field):
    rows = np.zeros((4, 7), np.float32)
    rows[2, 3] = np.nan
    with pytest.raises(EpisodeError, match=f"{field}: expected finite numbers, got nan at step 2"):
        make_episode(**{field: rows})
