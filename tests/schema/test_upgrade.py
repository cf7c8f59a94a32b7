"""Laws of upgrade: files of canvas-engineering 0.1.0 and 0.5.0 load and keep their meaning."""

import copy
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.schema import CanvasSchema, LayoutError, RegionError, SchemaError
from canvas_robot.schema.upgrade import UpgradeError, upgrade

# As canvas-engineering 0.1.0's CanvasSchema.to_json writes them.
OLD = {
    "schema_version": "0.2.0",
    "layout": {"T": 4, "H": 6, "W": 6, "d_model": 64, "t_current": 1},
    "regions": {
        "cam": {"bounds": [0, 4, 0, 4, 0, 6], "period": 2, "is_output": False},
        "act": {"bounds": [0, 4, 4, 6, 0, 2]},
    },
    "topology": [
        {"src": "act", "dst": "cam"},
        {"src": "act", "dst": "act", "t_src": 0, "t_dst": 0},
    ],
    "metadata": {"robot": "arm"},
}
# As 0.5.0's writes it.
NEW = copy.deepcopy(OLD)
NEW["layout"] = {"T": 4, "spatial_shape": [6, 6], "d_model": 64, "t_current": 1}


def changed(change, base=NEW):
    data = copy.deepcopy(base)
    change(data)
    return data


def refused(data, text):
    with pytest.raises(UpgradeError) as error:
        upgrade(data)
    assert text in str(error.value)
    assert "--drop-unknown" in str(error.value)
    return upgrade(data, drop_unknown=True)


@given(st.data())
def test_a_file_of_the_current_form_stays_as_it_is(strategies, data):
    schema = data.draw(strategies["any_schemas"])
    result = upgrade(schema.to_dict())
    assert (result.schema, result.translated, result.dropped) == (schema, (), ())


def test_both_versions_of_a_file_give_the_same_schema():
    old, new = upgrade(OLD), upgrade(NEW)
    assert old.schema == new.schema == CanvasSchema.from_dict(OLD)
    assert (old.translated, old.dropped) == ((), ())
    assert new.translated == ("layout: spatial_shape [6, 6] to H = 6, W = 6",)


def test_the_argument_is_left_as_it_is():
    data = changed(lambda d: d["regions"]["cam"].update(carrier="deterministic"))
    before = copy.deepcopy(data)
    upgrade(data)
    assert data == before


def test_what_changes_nothing_is_dropped_and_listed():
    def change(data):
        data["program_version"] = "2.0.0"
        data["regions"]["cam"]["carrier"] = "deterministic"
        data["topology"][0].update(write_mode="add", operator="observe", mask=None)

    result = upgrade(changed(change))
    assert result.schema == CanvasSchema.from_dict(OLD)
    assert [line.split(",")[0] for line in result.dropped] == [
        "region 'cam': carrier 'deterministic'",
        "connection 'act' -> 'cam': write_mode 'add'",
        "connection 'act' -> 'cam': operator 'observe'",
        "connection 'act' -> 'cam': mask None",
        "schema: program_version '2.0.0'",
    ]


def test_the_backbones_own_attention_has_another_name_here():
    def change(data):
        data["regions"]["cam"]["default_attn"] = "cogvideox"
        data["topology"][0]["fn"] = "cogvideox"

    result = upgrade(changed(change))
    assert result.schema.layout.region_spec("cam").default_attn == "cross_attention"
    assert result.schema.topology.connections[0].fn == "cross_attention"
    assert "region 'cam': default_attn 'cogvideox' to 'cross_attention'" in result.translated


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda d: d["regions"]["cam"].update(carrier="diffusive"), "'cam': carrier 'diffusive'"),
        (lambda d: d["topology"][0].update(write_mode="gate"), "'cam': write_mode 'gate'"),
        (lambda d: d["topology"][0].update(mask={"kind": "band"}), "mask {'kind': 'band'}"),
        (lambda d: d.update(region_programs={"cam": {"family": "observation"}}), "region_programs"),
        (lambda d: d["layout"].update(wrap=True), "layout: wrap True"),
        (lambda d: d["regions"]["act"].update(colour="red"), "region 'act': colour 'red'"),
    ],
    ids=["carrier", "write_mode", "mask", "programs", "layout", "unknown"],
)
def test_what_would_change_the_meaning_is_refused_by_name_and_dropped_on_request(change, text):
    result = refused(changed(change), text)
    assert result.schema == CanvasSchema.from_dict(OLD)
    assert any(text in line for line in result.dropped)


def test_everything_that_is_refused_is_named_at_once():
    def change(data):
        data["regions"]["cam"]["carrier"] = "memory"
        data["topology"][0]["write_mode"] = "replace"

    result = refused(changed(change), "carrier 'memory'")
    assert any("write_mode 'replace'" in line for line in result.dropped)
    refused(changed(change), "write_mode 'replace'")


def test_a_connection_that_is_no_object_is_named_by_its_place():
    with pytest.raises(UpgradeError, match=r"topology\[1\]: expected an object, got 'act'"):
        upgrade(changed(lambda d: d["topology"].insert(1, "act")))


@pytest.mark.parametrize("shape", [[4, 4, 4], [], "6x6", None])
def test_a_grid_of_another_number_of_dimensions_cannot_be_dropped(shape):
    data = changed(lambda d: d["layout"].update(spatial_shape=shape))
    for drop_unknown in (False, True):
        with pytest.raises(UpgradeError, match=r"spatial_shape: expected \[H, W\] or \[W\], got"):
            upgrade(data, drop_unknown)


def test_one_spatial_dimension_becomes_a_grid_of_one_line():
    data = {
        "layout": {"T": 2, "spatial_shape": [8], "d_model": 4, "t_current": 0},
        "regions": {"a": {"bounds": [0, 2, 3, 8]}},
    }
    layout = upgrade(data).schema.layout
    assert (layout.T, layout.H, layout.W) == (2, 1, 8)
    assert layout.region_indices("a") == [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]


def test_two_grids_that_contradict_are_refused():
    with pytest.raises(UpgradeError, match="contradict"):
        upgrade(changed(lambda d: d["layout"].update(H=7)))
    assert upgrade(changed(lambda d: d["layout"].update(H=6, W=6))).schema.layout.W == 6


def test_a_connection_to_a_region_that_the_file_lacks_is_dropped_as_it_was_ignored():
    result = upgrade(changed(lambda d: d["topology"].append({"src": "act", "dst": "gone"}), OLD))
    assert result.schema == CanvasSchema.from_dict(OLD)
    assert result.dropped == (
        "connection 'act' -> 'gone': names ['gone'], no region of this file: it was ignored",
    )


def their_pairs(src, dst, t_src, t_dst, T, hold):
    """(src step, dst step) that canvas-engineering 0.5.0's mask allows, written out."""
    pairs = set()
    dst_ticks = {t * dst["period"]: t for t in range(*dst["bounds"][:2])}
    for ref in range(T):
        rows = [t for t in range(*src["bounds"][:2]) if t_src is None or t == ref + t_src]
        tick = (ref + t_dst) * (1 if t_src is None else src["period"])
        column = dst_ticks.get(tick)
        if column is None and hold:
            before = [at for at in dst_ticks if 0 <= at < tick]
            column = dst_ticks[max(before)] if before else None
        pairs |= {(row, column) for row in rows if column is not None}
    return pairs


@given(
    st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 3)),
    st.none() | st.integers(-2, 2),
    st.integers(-2, 2),
)
def test_time_offsets_are_kept_only_where_both_libraries_pair_the_same_steps(
    first, second, t_src, t_dst
):
    T = 5
    regions = {
        name: {"bounds": [t0, t0 + n, i, i + 1, 0, 1], "period": period}
        for i, (name, (t0, n, period)) in enumerate({"a": first, "b": second}.items())
    }
    connection = {"src": "a", "dst": "b", "t_dst": t_dst} | (
        {} if t_src is None else {"t_src": t_src}
    )
    data = {
        "layout": {"T": T, "spatial_shape": [2, 1], "d_model": 4},
        "regions": regions,
        "topology": [connection],
    }
    theirs = their_pairs(regions["a"], regions["b"], t_src, t_dst, T, hold=True)
    schema = upgrade(data, drop_unknown=True).schema
    mask = schema.topology.to_attention_mask(schema.layout)
    steps = itertools.product(range(T), range(T))
    ours = {(row, column) for row, column in steps if mask[2 * row, 2 * column + 1] > 0}
    if theirs == ours:
        assert upgrade(data).dropped == ()
    else:
        refused(data, "temporal_fill (hold)")


def test_a_fill_that_has_nothing_to_fill_is_dropped():
    def change(data):
        data["topology"][1].update(temporal_fill="interpolate", interpolation_order=2)

    assert upgrade(changed(change)).dropped == (
        "connection 'act' -> 'act': temporal_fill 'interpolate', which has no step to fill",
    )


@pytest.mark.parametrize(
    "data, error, text",
    [
        ([], UpgradeError, "expected a JSON object, got list"),
        ({}, UpgradeError, "layout: expected an object"),
        (changed(lambda d: d.update(topology={})), UpgradeError, "topology: expected a list"),
        (changed(lambda d: d["regions"].update(a=3)), UpgradeError, "region 'a'"),
        (changed(lambda d: d["topology"].append({"src": "act"})), SchemaError, "dst"),
        (changed(lambda d: d["regions"]["act"].update(period=0)), RegionError, "period"),
        (changed(lambda d: d["layout"].update(T=2)), LayoutError, "within T=2"),
    ],
    ids=["a list", "empty", "topology", "region", "half a connection", "period", "outside"],
)
def test_what_is_no_schema_is_refused_by_its_reason(data, error, text):
    with pytest.raises(error) as caught:
        upgrade(data)
    assert text in str(caught.value)
