"""Laws of CanvasLayout: indices partition the grid, canvas step and control tick invert."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.schema import (
    CanvasLayout,
    LayoutError,
    RegionError,
    RegionSpec,
    UnknownRegionError,
)

ENLARGE = "enlarge the grid or move the region"


@st.composite
def tilings(draw):
    """A grid's extents and boxes that cover each of its cells once."""
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)))
    cuts = [
        [0, *sorted(draw(st.sets(st.integers(1, n - 1), max_size=2)) if n > 1 else ()), n]
        for n in size
    ]
    spans = [list(itertools.pairwise(cut)) for cut in cuts]
    boxes = [(*t, *h, *w) for t in spans[0] for h in spans[1] for w in spans[2]]
    return size, draw(st.permutations(boxes))


@given(tilings())
def test_the_index_sets_of_regions_that_tile_the_grid_partition_it(tiling):
    size, boxes = tiling
    layout = CanvasLayout(*size, 8, {f"r{i}": box for i, box in enumerate(boxes)})
    indices = [index for name in layout.regions for index in layout.region_indices(name)]
    assert sorted(indices) == list(range(layout.num_positions))


@given(st.data())
def test_indices_are_those_of_the_cells_in_t_h_w_order(strategies, data):
    T, H, W = size = data.draw(strategies["sizes"])
    box = data.draw(strategies["boxes"](size))
    layout = CanvasLayout(T, H, W, 8, {"r": box})
    cells = strategies["cells_of"](box)
    assert layout.region_indices("r") == [t * H * W + h * W + w for t, h, w in cells]
    assert layout.region_numel("r") == len(cells)
    assert layout.region_size("r") == RegionSpec(box).size


@given(st.data())
def test_the_indices_of_a_region_are_those_of_its_canvas_steps_one_after_another(strategies, data):
    size = data.draw(strategies["sizes"])
    layout = CanvasLayout(*size, 8, {"r": data.draw(strategies["boxes"](size))})
    by_step = {t: layout.region_indices_at_t("r", t) for t in range(-1, size[0] + 1)}
    steps = layout.region_timesteps("r")
    assert layout.region_indices("r") == [index for t in steps for index in by_step[t]]
    assert all(bool(indices) == (t in steps) for t, indices in by_step.items())


@given(st.data(), st.integers(1, 5))
def test_canvas_step_and_control_tick_invert_each_other(strategies, data, period):
    size = data.draw(strategies["sizes"])
    region = RegionSpec(data.draw(strategies["boxes"](size)), period=period)
    layout = CanvasLayout(*size, 8, {"r": region})
    steps = range(layout.region_size("r")[0])  # counted from the region's first
    ticks = {layout.real_frame("r", t): t for t in steps}
    for tick in range(-period, (size[0] + 1) * period):
        assert layout.canvas_frame("r", tick) == ticks.get(tick)


@given(st.data())
def test_the_output_mask_holds_the_cells_from_the_current_step_on(strategies, data):
    T, H, W = data.draw(strategies["sizes"])
    now = data.draw(st.integers(0, T - 1))
    mask = CanvasLayout(T, H, W, 8, t_current=now).output_mask()
    assert mask == [index for index in range(T * H * W) if index // (H * W) >= now]


@given(st.data())
def test_a_cells_loss_weight_is_the_sum_over_the_output_regions_that_cover_it(strategies, data):
    layout = data.draw(strategies["any_schemas"]).layout
    expected = [0.0] * layout.num_positions
    for name in layout.regions:
        spec = layout.region_spec(name)
        for index in layout.region_indices(name) if spec.is_output else []:
            expected[index] += spec.loss_weight
    mask = layout.loss_weight_mask()
    assert mask.shape == (layout.num_positions,)
    assert mask.tolist() == pytest.approx(expected)


def test_raw_bounds_mean_a_region_with_defaults():
    layout = CanvasLayout(2, 2, 2, 8, {"r": (0, 1, 0, 2, 0, 2)})
    assert layout.region_spec("r") == RegionSpec((0, 1, 0, 2, 0, 2))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"T": 0}, "T: expected an int >= 1, got 0"),
        ({"H": 2.0}, "H: expected an int >= 1, got 2.0"),
        ({"W": True}, "W: expected an int >= 1, got True"),
        ({"d_model": -8}, "d_model: expected an int >= 1, got -8"),
        ({"t_current": 2}, "t_current: expected a canvas step in 0..1, got 2"),
        ({"t_current": True}, "t_current: expected a canvas step in 0..1, got True"),
        ({"d_model": 10**400}, "d_model: expected at most 2147483647, got 1" + 156 * "0" + "..."),
        ({"regions": ["r"]}, "regions: expected a dict, name -> RegionSpec or bounds, got list"),
        ({"t_current": -1}, "t_current: expected a canvas step in 0..1, got -1"),
        (
            {"regions": {"r": (0, 3, 0, 1, 0, 1)}},
            "region 'r': expected bounds within T=2, got an end of 3; " + ENLARGE,
        ),
        (
            {"regions": {"r": RegionSpec((0, 1, 0, 4, 0, 1))}},
            "region 'r': expected bounds within H=3, got an end of 4; " + ENLARGE,
        ),
        (
            {"regions": {"r": (0, 1, 0, 1, 4, 6)}},
            "region 'r': expected bounds within W=4, got an end of 6; " + ENLARGE,
        ),
    ],
)
def test_a_wrong_grid_or_a_region_outside_it_is_refused(change, text):
    with pytest.raises(LayoutError) as error:
        CanvasLayout(**{"T": 2, "H": 3, "W": 4, "d_model": 8, **change})
    assert str(error.value) == text


def test_wrong_raw_bounds_are_refused_by_the_regions_name():
    with pytest.raises(RegionError) as error:
        CanvasLayout(2, 2, 2, 8, {"hand": (0, 0, 0, 1, 0, 1)})
    assert str(error.value) == (
        "region 'hand': bounds: expected 0 <= t0 < t1 (half open), got t0=0, t1=0"
    )


def test_an_unknown_region_is_refused_with_those_that_there_are():
    layout = CanvasLayout(1, 1, 2, 8, {"b": (0, 1, 0, 1, 0, 1), "a": (0, 1, 0, 1, 1, 2)})
    for ask in (
        layout.region_spec,
        layout.region_indices,
        layout.region_timesteps,
        layout.region_size,
    ):
        with pytest.raises(UnknownRegionError) as error:
            ask("hand")
        assert str(error.value) == "region 'hand': not in this layout; declared regions: a, b"
    with pytest.raises(UnknownRegionError, match="declared regions: none"):
        CanvasLayout(1, 1, 1, 8).region_spec("hand")


BOX = (0, 1, 0, 1, 0, 1)


@pytest.mark.parametrize(
    "name",
    ["a.b", "left hand", "Ünïcode", "手", "[red]", "'", '"', "$x$", "\\", "🤖", "می\u200cخواهم"],
)
def test_a_name_that_can_be_printed_is_legal(name):
    assert CanvasLayout(1, 1, 1, 8, {name: BOX}).region_numel(name) == 1


@pytest.mark.parametrize(
    "name, text",
    [
        ("", "regions: expected names of at least one character, got ''"),
        (5, "regions: expected names of at least one character, got 5"),
        (None, "regions: expected names of at least one character, got None"),
        ("n" * 201, "region 'nnnnnnnnnnnnnnnnnnnn'...: expected a name of at most 200 characters"),
        ("\x1b[31m", r"region '\x1b[31m': expected a name that can be printed safely, got '\x1b'"),
        ("a\0", r"region 'a\x00': expected a name that can be printed safely, got '\x00' in it"),
        ("a\nb", r"region 'a\nb': expected a name that can be printed safely, got '\n' in it"),
        ("\u202eb", r"region '\u202eb': expected a name that can be printed safely, got '\u202e'"),
        ("\ud800", r"region '\ud800': expected a name that can be printed safely, got '\ud800'"),
    ],
)
def test_a_name_that_a_terminal_would_obey_or_no_one_could_read_is_refused(name, text):
    with pytest.raises(LayoutError) as error:
        CanvasLayout(1, 1, 1, 8, {name: BOX})
    assert str(error.value).startswith(text) and str(error.value).isprintable()


def test_numbers_and_arrays_of_numpy_are_taken_and_kept_as_plain_python():
    sizes = np.array([2, 1, 1])
    layout = CanvasLayout(
        *sizes, np.int32(8), {"r": np.array(BOX), "s": [1, 2, 0, 1, 0, 1]}, sizes[1]
    )
    assert layout == CanvasLayout(2, 1, 1, 8, {"r": BOX, "s": (1, 2, 0, 1, 0, 1)}, 1)
    assert {type(x) for x in (layout.T, layout.H, layout.W, layout.d_model)} == {int}
    assert {type(bound) for bounds in layout.regions.values() for bound in bounds} == {int}


def test_a_layout_keeps_its_own_regions():
    regions = {"r": BOX}
    layout = CanvasLayout(1, 1, 1, 8, regions)
    regions["s"] = BOX
    assert list(layout.regions) == ["r"]
