"""Pictures of an evaluation hold what there is to show."""

import io

import pytest
from PIL import Image

from canvas_robot.evaluation.eval_outcome import PROTOCOLS
from canvas_robot.evaluation.eval_plots import MARKS, intervals_picture, steps_picture
from canvas_robot.evaluation.eval_statistics import wilson


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_each_protocol_has_a_mark_and_a_colour_of_its_own():
    assert set(MARKS) == set(PROTOCOLS)
    assert len(set(MARKS.values())) == len({mark for _, mark in MARKS.values()}) == len(MARKS)


@pytest.mark.parametrize("held", [None, wilson(0, 5)])
def test_the_picture_grows_with_the_environments(held):
    shares = {"last": wilson(5, 5), "any": wilson(3, 5), "held": held}
    one, three = (intervals_picture({f"{n}-v0": shares for n in range(count)}) for count in (1, 3))
    assert size(one)[0] == size(three)[0] and size(one)[1] < size(three)[1]


@pytest.mark.parametrize("values, longest", [([1], 1), ([], 40), ([3, 3, 40], 40), ([7], 119)])
def test_steps_are_drawn_whatever_their_range(values, longest):
    assert size(steps_picture({"A-v0": (values, longest)}))[0] > 1000
