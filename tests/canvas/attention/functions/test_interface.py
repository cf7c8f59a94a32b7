"""Options and geometries check themselves."""

import pytest
import torch

from canvas_robot.canvas.attention.functions import (
    EdgeGeometry,
    EdgeOptions,
    EdgeOptionsError,
    EdgeShapeError,
)
from canvas_robot.canvas.attention.functions.cells import CellTable


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("top_k", 0, "an int >= 1"),
        ("latents", 1.5, "an int >= 1"),
        ("random_keys", -3, "an int >= 1"),
        ("routed_keys", 1, "an int >= 2"),
        ("state_size", True, "an int >= 1"),
        ("seed", -1, "an int >= 0"),
        ("window", (1, 2), "three ints >= 0"),
        ("window", (1, -2, 2), "three ints >= 0"),
        ("window", 3, "three ints >= 0"),
    ],
)
def test_a_bad_option_is_named_with_what_was_expected_and_what_came(field, value, expected):
    with pytest.raises(EdgeOptionsError) as error:
        EdgeOptions(**{field: value})
    assert str(error.value).startswith(f"{field}: expected {expected}")
    assert repr(value) in str(error.value)


def test_a_window_from_json_becomes_a_tuple():
    assert EdgeOptions(window=[0, 1, 2]) == EdgeOptions(window=(0, 1, 2))


def cells(*places):
    return torch.tensor([places])


@pytest.mark.parametrize(
    "src, dst, text",
    [
        (
            cells((0, 0, 0)).float(),
            cells((0, 0, 0)),
            r"src_cells: expected int64 .* got torch.floa",
        ),
        (cells((0, 0, 0)), cells((0, 0)), r"dst_cells: expected .* got torch.int64 .*\(1, 1, 2\)"),
        (cells((0, 0, 0)), torch.zeros(1, 0, 3, dtype=int), "dst_cells: .* leave out groups"),
        (cells((0, 2, 0)), cells((0, 0, 0)), "src_cells: a cell lies outside its region of 2x3"),
        (cells((0, 0, 0)), cells((0, 0, -1)), "dst_cells: a cell lies outside its region of 4x5"),
        (cells((0, 0, 0)), torch.zeros(2, 1, 3, dtype=int), "number of groups, got 1 and 2"),
    ],
)
def test_a_bad_geometry_is_refused(src, dst, text):
    with pytest.raises(EdgeShapeError, match=text):
        EdgeGeometry(src, dst, (2, 3), (4, 5))


def test_a_table_of_cells_finds_rows_and_only_those():
    table = CellTable(torch.tensor([[[5, 1, 2], [5, 0, 2]], [[6, 0, 0], [6, 1, 1]]]))
    asked = torch.tensor([[5, 0, 2], [6, 0, 0], [6, 1, 1], [4, 0, 0], [5, 1, 3], [5, 0, -1]])
    found = table.find(asked.expand(2, -1, -1)).tolist()
    assert found == [[1, -1, -1, -1, -1, -1], [-1, 0, 1, -1, -1, -1]]


def test_two_rows_at_one_cell_are_refused():
    with pytest.raises(EdgeShapeError, match="two dst rows of a group lie at the same cell"):
        CellTable(cells((0, 1, 1), (0, 0, 0), (0, 1, 1)))
