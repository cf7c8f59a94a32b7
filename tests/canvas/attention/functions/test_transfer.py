"""Which dst row copy hands to a src row, and which boxes it refuses."""

import pytest
import torch

from canvas_robot.canvas.attention.functions import (
    EDGE_FUNCTIONS,
    EdgeGeometry,
    EdgeOptions,
    EdgeShapeError,
)


def copied(geometry):
    """For each group, the dst row that each src row takes."""
    dst = torch.arange(float(geometry.dst_rows)).view(1, 1, -1, 1).expand(1, geometry.groups, -1, 1)
    src = torch.zeros(1, geometry.groups, geometry.src_rows, 1)
    out = EDGE_FUNCTIONS["copy"](1, 1, [geometry], EdgeOptions())(src, dst, 0)
    return out[0, :, :, 0].int().tolist()


def test_rows_of_equal_boxes_are_handed_over_one_by_one(boxes):
    assert copied(boxes(2, (1, 2, 2), (1, 2, 2))) == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize(
    "dst, expected",
    [
        ((1, 2, 2), [0, 1, 2, 3, 0, 1, 2, 3]),
        ((2, 1, 2), [0, 1, 0, 1, 2, 3, 2, 3]),
        ((2, 2, 1), [0, 0, 1, 1, 2, 2, 3, 3]),
        ((1, 1, 1), [0] * 8),
    ],
)
def test_a_dst_axis_of_one_is_broadcast(dst, expected, boxes):
    assert copied(boxes(1, (2, 2, 2), dst)) == [expected]


def test_places_count_from_each_groups_own_corner():
    src = torch.tensor([[[3, 1, 1], [3, 1, 2]], [[4, 0, 0], [4, 0, 1]]])
    dst = torch.tensor([[[0, 0, 0], [0, 0, 1]], [[7, 2, 4], [7, 2, 3]]])
    assert copied(EdgeGeometry(src, dst, (2, 3), (3, 5))) == [[0, 1], [1, 0]]


@pytest.mark.parametrize("dst", [(1, 3, 2), (2, 2, 2), (1, 2, 3)])
def test_other_boxes_are_refused_with_both_shapes_and_the_remedy(dst, boxes):
    with pytest.raises(EdgeShapeError) as error:
        copied(boxes(1, (1, 2, 2), dst))
    text = str(error.value)
    assert "1x2x2" in text and "x".join(map(str, dst)) in text
    assert "each axis of dst must be 1 or the same" in text and "pooling" in text


def test_a_src_row_whose_place_has_no_dst_row_is_refused():
    src = torch.tensor([[[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]])
    with pytest.raises(EdgeShapeError, match=r"1x2x2.* no dst row lies at \(0, 1, 1\)"):
        copied(EdgeGeometry(src, src[:, :3], (2, 2), (2, 2)))
