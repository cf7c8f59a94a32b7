"""Laws of compile_plan: its rows, groups and runs say what the dense mask says, written out."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.resources import config_path
from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    OverlapError,
    PlanError,
    compile_plan,
)
from canvas_robot.schema.plan import rows_in


def allowed_pairs(connection, layout, cells):
    """(row cell, column cell) that a connection allows, by the definition: for each reference step.

    cells: by region name, the (t, h, w) of its covered cells.
    """
    for reference in range(layout.T):
        for row, column in itertools.product(cells[connection.src], cells[connection.dst]):
            row_allowed = connection.t_src is None or row[0] == reference + connection.t_src
            column_allowed = connection.t_dst is None or column[0] == reference + connection.t_dst
            if row_allowed and column_allowed:
                yield flat(layout, row), flat(layout, column)


def function_of(connection, layout):
    """Function type of a connection that runs; None for one that is no edge."""
    fn = connection.fn or layout.region_spec(connection.src).default_attn
    return None if fn == "none" or connection.weight == 0 else fn


def weights_read(schema, cells):
    """Flat cell -> {flat cell of its softmax: largest weight}."""
    layout = schema.layout
    reads = {flat(layout, cell): {} for covered in cells.values() for cell in covered}
    for c in schema.topology.connections if schema.topology is not None else []:
        if function_of(c, layout) == "cross_attention":
            for row, column in allowed_pairs(c, layout, cells):
                reads[row][column] = max(reads[row].get(column, 0.0), c.weight)
    return reads


def flat(layout, cell):
    t, h, w = cell
    return (t * layout.H + h) * layout.W + w


@st.composite
def covered_schemas(draw, strategies):
    """A schema, the token counts of some of its regions, and each region's covered cells."""
    schema = draw(strategies["executable_schemas"])
    counts, cells = {}, {}
    for name, region in schema.layout.regions.items():
        cells[name] = strategies["cells_of"](region.bounds)
        if draw(st.booleans()):
            counts[name] = draw(st.integers(1, len(cells[name])))
            cells[name] = cells[name][: counts[name]]
    return schema, counts, cells


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_the_softmax_of_every_row_reads_what_cross_attention_allows_with_the_largest_weight(
    strategies, data
):
    schema, counts, cells = data.draw(covered_schemas(strategies))
    plan = compile_plan(schema, tokens=counts)
    cell_of_row = [cell for region in plan.regions for cell in region.cells]
    reads = {}
    for group in plan.groups:
        columns = {
            cell_of_row[row]: weight
            for (start, stop), weight in zip(group.reads, group.weights, strict=True)
            for row in range(start, stop)
        }
        for row in range(group.start, group.stop):
            reads[cell_of_row[row]] = columns
    assert reads == weights_read(schema, cells)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_the_residual_edges_are_all_other_connections_that_pair_rows_each_with_its_pairs(
    strategies, data
):
    schema, counts, cells = data.draw(covered_schemas(strategies))
    layout = schema.layout
    plan = compile_plan(schema, tokens=counts)
    expected = {}
    for c in schema.topology.connections if schema.topology is not None else []:
        fn = function_of(c, layout)
        if fn in (None, "cross_attention"):
            continue
        key = (c.src, c.dst, fn, c.t_src, c.t_dst)
        weight = max(c.weight, expected[key][3] if key in expected else 0.0)
        if pairs := set(allowed_pairs(c, layout, cells)):
            expected[key] = (c.src, c.dst, fn, weight, pairs)
    cell_of_row = [cell for region in plan.regions for cell in region.cells]
    for edge, of_connection in zip(plan.edges, expected.values(), strict=True):
        pairs = [
            (cell_of_row[row], cell_of_row[column])
            for block in edge.blocks
            for row in range(block.start, block.stop)
            for start, stop in block.reads
            for column in range(start, stop)
        ]
        assert len(pairs) == len(set(pairs))
        assert (edge.src, edge.dst, edge.fn, edge.weight, set(pairs)) == of_connection


@settings(deadline=None)
@given(st.data())
def test_rows_are_the_first_cells_of_each_region_slow_to_fast(strategies, data):
    schema, counts, cells = data.draw(covered_schemas(strategies))
    plan = compile_plan(schema, tokens=counts)
    assert {r.name for r in plan.regions} == set(schema.layout.regions)
    stop = 0
    for region in plan.regions:
        spec = schema.layout.region_spec(region.name)
        assert region.start == stop
        assert region.cells == tuple(flat(schema.layout, cell) for cell in cells[region.name])
        assert region.stop - region.start == len(region.cells)
        assert (region.period, region.stream) == (spec.period, spec.stream)
        assert plan.region(region.name) is region
        stop = region.stop
    assert plan.n_rows == stop
    periods = [r.period for r in plan.regions]
    assert periods == sorted(periods, reverse=True)


@settings(deadline=None)
@given(st.data())
def test_groups_are_as_few_as_can_be_and_cover_every_row_once(strategies, data):
    schema, counts, _ = data.draw(covered_schemas(strategies))
    plan = compile_plan(schema, tokens=counts)
    spec_of_row = [
        schema.layout.region_spec(r.name) for r in plan.regions for _ in range(r.start, r.stop)
    ]
    ends = [(g.start, g.stop) for g in plan.groups]
    assert [start for start, _ in ends] == [0, *(stop for _, stop in ends[:-1])]
    assert ends[-1][1] == plan.n_rows
    for group in plan.groups:
        for row in range(group.start, group.stop):
            assert (group.stream, group.timestep) == (
                spec_of_row[row].stream,
                spec_of_row[row].timestep,
            )
        ends_and_weights = zip(group.reads, group.weights, strict=True)
        runs = [(start, stop, weight) for (start, stop), weight in ends_and_weights]
        assert runs == sorted(runs) and all(start < stop for start, stop, _ in runs)
        for (_, stop, weight), (start, _, other) in itertools.pairwise(runs):
            assert stop < start or (stop == start and weight != other), "runs do not touch"
    for first, second in itertools.pairwise(plan.groups):
        assert first[2:] != second[2:]


@given(st.data())
def test_two_regions_that_share_a_cell_are_refused_by_name_and_first_shared_cell(strategies, data):
    size = data.draw(strategies["sizes"])
    first, second = (data.draw(strategies["boxes"](size)) for _ in range(2))
    schema = CanvasSchema(CanvasLayout(*size, 8, {"one": first, "two": second}))
    shared = [c for c in strategies["cells_of"](second) if c in strategies["cells_of"](first)]
    if not shared:
        assert compile_plan(schema).n_rows == schema.layout.region_numel("one") + (
            schema.layout.region_numel("two")
        )
        return
    with pytest.raises(OverlapError) as error:
        compile_plan(schema)
    assert str(error.value) == (
        f"regions 'one' and 'two' overlap, first at cell (t, h, w) = {shared[0]}; move one of them"
    )


@given(st.data(), st.integers(0, 50))
def test_a_tick_refreshes_the_regions_whose_period_divides_it(strategies, data, tick):
    schema = data.draw(strategies["executable_schemas"])
    regions = schema.layout.regions
    refreshed = compile_plan(schema).refreshed(tick)
    assert set(refreshed) == {name for name, r in regions.items() if tick % r.period == 0}
    assert set(compile_plan(schema).refreshed(0)) == set(regions)


ONE = CanvasLayout(1, 2, 2, 8, {"a": (0, 1, 0, 1, 0, 2), "b": (0, 1, 1, 2, 0, 2)})


def one(*connections) -> CanvasSchema:
    return CanvasSchema(ONE, CanvasTopology(list(connections)))


@pytest.mark.parametrize(
    "t_src, t_dst, reads",
    [
        (None, None, {0: {0, 1, 2}, 1: {0, 1, 2}, 2: {0, 1, 2}}),
        (0, 0, {0: {0}, 1: {1}, 2: {2}}),  # its own step
        (0, -1, {0: set(), 1: {0}, 2: {1}}),  # the step before; the first has none
        (1, 0, {0: set(), 1: {0}, 2: {1}}),  # the same, from another reference
        (0, None, {0: {0, 1, 2}, 1: {0, 1, 2}, 2: {0, 1, 2}}),
        (1, None, {0: set(), 1: {0, 1, 2}, 2: {0, 1, 2}}),  # no reference step is before the first
        (None, 2, {0: {2}, 1: {2}, 2: {2}}),
        (3, 3, {0: set(), 1: set(), 2: set()}),
    ],
)
def test_time_offsets_pair_the_steps_of_a_shared_reference(t_src, t_dst, reads):
    layout = CanvasLayout(3, 1, 1, 8, {"a": (0, 3, 0, 1, 0, 1)})
    edge = Connection("a", "a", t_src=t_src, t_dst=t_dst)
    plan = compile_plan(CanvasSchema(layout, CanvasTopology([edge])))
    read = {
        row: {column for start, stop in group.reads for column in range(start, stop)}
        for group in plan.groups
        for row in range(group.start, group.stop)
    }
    assert read == reads


@pytest.mark.parametrize("order", [1, -1])
def test_an_offset_of_0_is_not_an_open_end_in_whatever_order_they_are_declared(order):
    layout = CanvasLayout(2, 2, 1, 8, {"a": (0, 2, 0, 1, 0, 1), "x": (0, 2, 1, 2, 0, 1)})
    declared = [Connection("a", "x", t_src=0), Connection("a", "a", t_src=0, t_dst=0)][::order]
    plan = compile_plan(CanvasSchema(layout, CanvasTopology(declared)))
    (a, x) = plan.region("a"), plan.region("x")
    reads = {
        row: {r for g in plan.groups if g.start <= row < g.stop for r in rows_in(g.reads)}
        for row in range(a.start, a.stop)
    }
    assert reads == {row: {row, *range(x.start, x.stop)} for row in range(a.start, a.stop)}


def test_a_key_allowed_twice_is_read_once_and_weight_0_removes_only_its_edge():
    edges = [Connection("a", "b"), Connection("a", "b"), Connection("a", "b", weight=0.0)]
    plan = compile_plan(one(*edges))
    assert [(g.start, g.stop, g.reads) for g in plan.groups] == [(0, 2, ((2, 4),)), (2, 4, ())]


def test_without_a_topology_nobody_reads_anybody():
    assert all(group.reads == () for group in compile_plan(CanvasSchema(ONE)).groups)


def test_an_empty_layout_makes_an_empty_plan():
    plan = compile_plan(CanvasSchema(CanvasLayout(1, 1, 1, 8)))
    assert (plan.n_rows, plan.regions, plan.groups) == (0, (), ())


def test_runs_of_different_weights_stay_apart_and_equal_ones_join():
    edges = [Connection("a", "a", weight=2.0), Connection("a", "b")]
    plan = compile_plan(one(*edges))
    assert [(g.reads, g.weights) for g in plan.groups] == [
        (((0, 2), (2, 4)), (2.0, 1.0)),
        ((), ()),
    ]
    plan = compile_plan(one(Connection("a", "a", weight=2.0), Connection("a", "b", weight=2.0)))
    assert [(g.reads, g.weights) for g in plan.groups] == [(((0, 4),), (2.0,)), ((), ())]


def test_of_equal_residual_edges_the_heavier_one_runs_once():
    edges = [Connection("a", "b", fn="gated"), Connection("a", "b", weight=3.0, fn="gated")]
    (edge,) = compile_plan(one(*edges)).edges
    assert (edge.fn, edge.weight, edge.blocks) == ("gated", 3.0, ((0, 2, ((2, 4),)),))


BOXES = {  # name: box; W, H and T differ, so that no two of them match by accident
    "src": (0, 4, 0, 2, 0, 3),
    "same": (0, 4, 2, 4, 0, 3),
    "plane": (2, 3, 4, 6, 0, 3),
    "point": (0, 1, 6, 7, 0, 1),
    "line": (0, 4, 0, 1, 3, 6),
    "short": (0, 2, 2, 4, 3, 6),
    "turned": (0, 4, 7, 10, 0, 2),
}


@pytest.mark.parametrize(
    "dst, t_src, t_dst, box",
    [
        ("same", None, None, None),
        ("plane", None, None, None),
        ("point", None, None, None),
        ("line", None, None, None),
        ("short", None, None, "(2, 2, 3)"),
        ("turned", None, None, "(4, 3, 2)"),
        ("short", 0, 0, None),  # step by step
        ("turned", 0, -1, "(1, 3, 2)"),
    ],
)
def test_a_copy_needs_a_box_that_matches_or_is_1_along_an_axis(dst, t_src, t_dst, box):
    layout = CanvasLayout(4, 10, 6, 8, BOXES)
    edge = Connection("src", dst, t_src=t_src, t_dst=t_dst, fn="copy")
    schema = CanvasSchema(layout, CanvasTopology([edge]))
    if box is None:
        assert compile_plan(schema).edges[0].fn == "copy"
        return
    with pytest.raises(PlanError) as error:
        compile_plan(schema)
    src = "(4, 2, 3)" if t_src is None else "(1, 2, 3)"
    assert str(error.value) == (
        f"connection 'src' -> {dst!r}: copy hands tokens over place by place: expected a dst box "
        f"equal to the src box (t, h, w) = {src}, or 1 along an axis, got {box}; "
        "change a box, or the type (pooling, perceiver)"
    )


@pytest.mark.parametrize("count", [0, -1, 3])
def test_tokens_that_do_not_fit_their_region_are_refused(count):
    with pytest.raises(PlanError) as error:
        compile_plan(one(), tokens={"a": count})
    assert str(error.value) == (
        f"region 'a': its codec makes {count} tokens, its box (1, 1, 2) holds 1..2; "
        "enlarge the box or choose another codec"
    )


def test_token_counts_of_unknown_regions_and_less_than_one_loop_are_refused():
    with pytest.raises(PlanError) as error:
        compile_plan(one(), tokens={"z": 1, "a": 1})
    assert str(error.value) == "tokens: names regions ['z'] that the layout lacks"
    with pytest.raises(PlanError) as error:
        compile_plan(one(), loops=0)
    assert str(error.value) == "loops: expected an int >= 1, got 0"


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"schema": ONE}, "schema: expected a CanvasSchema, got CanvasLayout; CanvasSchema("),
        ({"loops": 1.0}, "loops: expected an int >= 1, got 1.0"),
        ({"loops": True}, "loops: expected an int >= 1, got True"),
        ({"loops": "2"}, "loops: expected an int >= 1, got '2'"),
        ({"tokens": 3}, "tokens: expected a dict, region -> tokens, got 3"),
        ({"tokens": {5: 1, "z": 1}}, "tokens: names regions [5, 'z'] that the layout lacks"),
        ({"tokens": {"a": 1.0}}, "region 'a': expected an int of tokens, got 1.0"),
        ({"tokens": {"a": True}}, "region 'a': expected an int of tokens, got True"),
        ({"tokens": {"a": None}}, "region 'a': expected an int of tokens, got None"),
    ],
)
def test_an_argument_of_another_type_is_refused_by_name(arguments, text):
    with pytest.raises(PlanError) as error:
        compile_plan(**{"schema": one()} | arguments)
    assert str(error.value).startswith(text)


def test_whole_numbers_of_numpy_count_as_ints():
    plan = compile_plan(one(), loops=np.int64(2), tokens={"a": np.int32(1)})
    assert plan == compile_plan(one(), loops=2, tokens={"a": 1})
    assert type(plan.loops) is int and type(plan.region("a").stop) is int


def test_a_copy_of_a_region_that_is_filled_in_part_is_refused_in_tokens():
    schema = one(Connection("a", "b", fn="copy"))
    compile_plan(schema, tokens={"a": 1, "b": 1})
    with pytest.raises(PlanError) as error:
        compile_plan(schema, tokens={"b": 1, "a": 2})
    assert str(error.value) == (
        "connection 'a' -> 'b': copy hands tokens over place by place, and a region is filled in "
        "part: 2 tokens of 'a' (2 to a canvas step) would take 1 tokens of 'b' (2 to a canvas "
        "step); give both as many tokens as their boxes hold, or change the type (pooling, "
        "perceiver)"
    )


def test_the_shipped_schema_compiles_to_the_plan_that_it_reads_like():
    """Row counts by hand: 16 x 16 patches, 128 text tokens, 2 states, 4 x 2 queries."""
    plan = compile_plan(CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json")), loops=3)
    assert [(r.name, r.stop - r.start) for r in plan.regions] == [
        ("visual", 256),
        ("goal", 128),
        ("proprio", 2),
        ("action", 8),
    ]
    assert [(g.stream, g.timestep, g.reads) for g in plan.groups] == [
        ("video", 0, ((0, 384),)),
        ("text", 0, ((0, 384),)),
        ("video", 0, ((384, 386),)),
        ("video", 999, ((0, 394),)),
    ]


def test_the_printed_plan_says_rows_groups_loops_edges_and_who_reads_nothing():
    assert str(compile_plan(one(Connection("a", "b")), loops=2)).splitlines() == [
        "plan: 4 rows, 2 groups, 2 loops",
        "  region a: rows 0..1, period 1, video",
        "  region b: rows 2..3, period 1, video",
        "  rows 0..1 (video, timestep 0) read 2..3",
        "  rows 2..3 (video, timestep 0) read nothing",
    ]
    assert str(compile_plan(one())).startswith("plan: 4 rows, 1 group, 1 loop\n")
    edges = [
        Connection("a", "b", weight=0.5),
        Connection("a", "a"),
        Connection("b", "a", fn="rwkv"),
    ]
    assert str(compile_plan(one(*edges))).splitlines()[3:] == [
        "  rows 0..1 (video, timestep 0) read 0..1, 2..3 x0.5",
        "  rows 2..3 (video, timestep 0) read nothing",
        "  edge b -> a (rwkv), weight 1",
        "    rows 2..3 read 0..1",
    ]


def test_a_region_that_the_plan_lacks_is_a_key_error():
    with pytest.raises(KeyError):
        compile_plan(one()).region("z")
