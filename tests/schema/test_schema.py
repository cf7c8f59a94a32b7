"""Laws of CanvasSchema: its JSON form round trips, and what is not a schema is refused by name."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.resources import config_path
from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    LayoutError,
    PlanError,
    RegionError,
    RegionSpec,
    SchemaError,
    TopologyError,
    UnknownAttentionTypeError,
    compile_plan,
)
from canvas_robot.schema import document as document_file
from canvas_robot.schema.advice import advise
from canvas_robot.schema.description import describe

TINY = config_path("schemas", "widowx_tiny.json")


LAYOUT = CanvasLayout(1, 1, 1, 8, {"a": (0, 1, 0, 1, 0, 1)})


def document(**changes) -> dict:
    """A small schema's JSON form, top-level fields replaced; None leaves a field out."""
    good = {
        "layout": {"T": 2, "H": 2, "W": 2, "d_model": 8},
        "regions": {"a": {"bounds": [0, 1, 0, 2, 0, 2]}, "b": {"bounds": [1, 2, 0, 2, 0, 2]}},
        "topology": [{"src": "a", "dst": "b"}],
    }
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def same_declaration(first: CanvasSchema, second: CanvasSchema) -> bool:
    """Equal but for raw bounds, which mean the same as a region of defaults."""
    regions = [
        {name: s.layout.region_spec(name) for name in s.layout.regions} for s in (first, second)
    ]
    grids = [(s.layout.T, s.layout.H, s.layout.W, s.layout.d_model) for s in (first, second)]
    rest = [(s.layout.t_current, s.topology, s.version, s.metadata) for s in (first, second)]
    order = list(first.layout.regions) == list(second.layout.regions)
    return regions[0] == regions[1] and grids[0] == grids[1] and rest[0] == rest[1] and order


@given(st.data())
def test_the_json_form_round_trips(strategies, data):
    schema = data.draw(strategies["any_schemas"])
    written = schema.to_dict()
    read = CanvasSchema.from_dict(json.loads(json.dumps(written)))
    assert same_declaration(read, schema)
    assert read.to_dict() == written
    assert CanvasSchema.from_dict(read.to_dict()) == read


def test_files_round_trip_and_names_may_hold_any_characters(tmp_path):
    layout = CanvasLayout(
        2, 2, 2, 8, {"agent_a.thought é": RegionSpec((0, 1, 0, 1, 0, 1), period=3)}
    )
    topology = CanvasTopology.isolated(list(layout.regions))
    schema = CanvasSchema(layout, topology, metadata={"framing": "image"})
    schema.to_json(tmp_path / "schema.json")
    assert CanvasSchema.from_json(tmp_path / "schema.json") == schema


def test_only_what_differs_from_its_default_is_written():
    layout = CanvasLayout(
        1, 1, 2, 8, {"a": RegionSpec((0, 1, 0, 1, 0, 1)), "b": (0, 1, 0, 1, 1, 2)}
    )
    written = CanvasSchema(layout).to_dict()
    assert written["regions"] == {
        "a": {"bounds": [0, 1, 0, 1, 0, 1]},
        "b": {"bounds": [0, 1, 0, 1, 1, 2]},
    }
    assert "topology" not in written and "metadata" not in written
    assert CanvasSchema.from_dict(written).layout.regions["a"] == (0, 1, 0, 1, 0, 1)
    assert CanvasSchema(layout, CanvasTopology()).to_dict()["topology"] == []


@pytest.mark.parametrize("path", sorted(TINY.parent.glob("*.json")), ids=lambda path: path.name)
def test_every_shipped_schema_reads_and_writes_what_its_file_says(path):
    schema = CanvasSchema.from_json(path)
    assert schema.to_dict() == json.loads(path.read_text())


def test_a_topology_may_name_only_declared_regions():
    layout = CanvasLayout(1, 1, 1, 8, {"a": (0, 1, 0, 1, 0, 1)})
    with pytest.raises(SchemaError) as error:
        CanvasSchema(layout, CanvasTopology.isolated(["a", "c", "b"]))
    assert str(error.value) == (
        "topology: names regions ['b', 'c'] that the layout lacks; declared regions: ['a']. "
        "Fix the spelling or declare them."
    )


@pytest.mark.parametrize(
    "data, kind, text",
    [
        (
            document(layout=None),
            SchemaError,
            "schema: missing fields ['layout']; expected ['layout', 'regions'] "
            "and optionally ['metadata', 'schema_version', 'topology']",
        ),
        (
            document(edges=[]),
            SchemaError,
            "schema: unknown fields ['edges']; expected ['layout', 'regions'] "
            "and optionally ['metadata', 'schema_version', 'topology']",
        ),
        (
            document(layout={"T": 2, "H": 2, "width": 2, "d_model": 8}),
            SchemaError,
            "layout: missing fields ['W'], unknown fields ['width']; "
            "expected ['H', 'T', 'W', 'd_model'] and optionally ['t_current']",
        ),
        (document(layout=[]), SchemaError, "layout: expected an object, got list"),
        (document(regions={"a": 5}), SchemaError, "region 'a': expected an object, got int"),
        (
            document(topology=["a"]),
            SchemaError,
            "topology[0]: expected an object, got str",
        ),
        (
            document(topology=[{"src": "a"}]),
            SchemaError,
            "topology[0]: missing fields ['dst']; expected ['dst', 'src'] "
            "and optionally ['fn', 't_dst', 't_src', 'weight']",
        ),
        (
            document(topology=[{"src": "a", "dst": "b"}, {"src": "b", "dst": "a", "wieght": 1}]),
            SchemaError,
            "topology[1] ('b' -> 'a'): unknown fields ['wieght']; expected ['dst', 'src'] "
            "and optionally ['fn', 't_dst', 't_src', 'weight']",
        ),
        (
            document(layout={"T": 0, "H": 2, "W": 2, "d_model": 8}),
            LayoutError,
            "T: expected an int >= 1, got 0",
        ),
        (
            document(regions={"a": {"bounds": [0, 1, 0, 2, 0, 2], "period": 0}}),
            RegionError,
            "region 'a': period: expected an int >= 1 (control ticks), got 0",
        ),
        (
            document(topology=[{"src": "a", "dst": "b", "weight": -1}]),
            TopologyError,
            "connection 'a' -> 'b': weight: expected 0 or a number from 1e-30 to 1e+30, got -1",
        ),
    ],
)
def test_what_is_not_a_schema_is_refused(tmp_path, data, kind, text):
    with pytest.raises(kind) as error:
        CanvasSchema.from_dict(data)
    assert str(error.value) == text
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(data))
    with pytest.raises(kind) as error:
        CanvasSchema.from_json(path)
    assert str(error.value) == f"{path}: {text}"


def test_an_unknown_field_of_a_region_is_refused_by_name():
    data = document(regions={"a": {"bounds": [0, 1, 0, 2, 0, 2], "priod": 2}})
    with pytest.raises(SchemaError, match=r"region 'a': unknown fields \['priod'\]; expected"):
        CanvasSchema.from_dict(data)


def test_an_unknown_function_type_is_refused_by_the_regions_name():
    data = document(regions={"a": {"bounds": [0, 1, 0, 2, 0, 2], "default_attn": "mambo"}})
    with pytest.raises(
        UnknownAttentionTypeError, match=r"region 'a': default_attn: .* got 'mambo'"
    ):
        CanvasSchema.from_dict(data)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"not json"])
def test_a_file_that_is_not_json_is_refused_by_its_path(tmp_path, content):
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(
        SchemaError, match=re.escape(f"{path}: expected a canvas schema in JSON, got")
    ):
        CanvasSchema.from_json(path)


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "an empty file"),
        (b" \n", "an empty file"),
        (b'{"T": 1,}', "line 1 column 9 (char 8); correct it there: JSON has neither comments nor"),
        (b"// canvas\n{}", "line 1 column 1 (char 0); correct it there: JSON has neither comments"),
        (b'{"a": "\x85"}', "bytes that are no UTF-8, first at byte 7; save it as UTF-8"),
        (b"[" * 100_000, "lists or objects nested too deep; a schema nests three deep"),
        (b'{"T": ' + b"1" * 5000 + b"}", "an int of thousands of digits; shorten it"),
        (b'{"metadata": {"x": NaN}}', "NaN, which JSON does not have; write a finite number"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "the keys ['b'] twice in one object; keep one"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_the_place_or_the_remedy(tmp_path, content, text):
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(SchemaError) as error:
        CanvasSchema.from_json(path)
    assert str(error.value).startswith(f"{path}: expected a canvas schema in JSON, got ")
    assert text in str(error.value)


def test_a_region_declared_twice_is_refused_by_name(tmp_path):
    path = tmp_path / "schema.json"
    text = json.dumps(document())
    path.write_text(text.replace('"b": {', '"a": {', 1))
    with pytest.raises(SchemaError, match=r"the keys \['a'\] twice in one object"):
        CanvasSchema.from_json(path)


def test_a_file_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(document_file, "MOST_BYTES", 1 << 20)
    with pytest.raises(SchemaError, match=r"/dev/zero: .* got more than 1 MiB; is it another file"):
        CanvasSchema.from_json("/dev/zero")


def test_a_file_that_nobody_would_read_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(document_file, "MOST_BYTES", 100)
    with pytest.raises(SchemaError, match=r"schema\.json: more than 0 MiB, which nobody would"):
        CanvasSchema.from_dict(document()).to_json(tmp_path / "schema.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, {1}, 1j])
def test_metadata_that_json_cannot_hold_are_not_written(tmp_path, value):
    path = tmp_path / "schema.json"
    path.write_text("as it was")
    schema = CanvasSchema.from_dict(document(metadata={"notes": [value]}))
    with pytest.raises(SchemaError, match=f"{path}: metadata: expected text, finite numbers, "):
        schema.to_json(path)
    assert path.read_text() == "as it was"


def test_the_folders_above_a_file_are_made(tmp_path):
    path = tmp_path / "some" / "where" / "schema.json"
    schema = CanvasSchema.from_dict(document())
    schema.to_json(path)
    assert CanvasSchema.from_json(path) == schema


def test_a_byte_order_mark_is_no_part_of_the_schema(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(document()), encoding="utf-8-sig")
    assert CanvasSchema.from_json(path) == CanvasSchema.from_dict(document())


def test_a_file_that_holds_no_object_is_refused(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text("[]")
    with pytest.raises(SchemaError) as error:
        CanvasSchema.from_json(path)
    assert str(error.value) == f"{path}: expected a JSON object, got list"


@pytest.mark.parametrize(
    "data",
    [
        document(regions=[]),
        {**document(), "topology": None},
        document(regions={"a": {"bounds": None}, "b": {"bounds": [1, 2, 0, 2, 0, 2]}}),
        document(regions={"a": {"bounds": [0, 1, 0, 2, 0, 2], "loss_weight": "x"}}),
        document(regions={"a": {"bounds": [0, 1, 0, 2, 0, 2], "default_attn": []}}),
        document(regions={"a": {"bounds": [0, 1, 0, 2, 0, 2], "semantic_embedding": 5}}),
        document(topology=[{"src": "a", "dst": "b", "weight": "x"}]),
        document(topology=[{"src": "a", "dst": "b", "fn": []}]),
    ],
    ids=[
        "regions",
        "topology",
        "bounds",
        "loss_weight",
        "default_attn",
        "semantic_embedding",
        "weight",
        "fn",
    ],
)
def test_a_value_of_another_json_type_is_refused_as_no_schema(tmp_path, data):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        CanvasSchema.from_json(path)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.sampled_from([10**30, 10**400, -(10**400)])
    | st.floats()
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=7,
)


def places(value, *path):
    """Paths to every value inside a JSON value."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path] + [place for key, inner in inside for place in places(inner, *path, key)]


@given(st.data())
def test_whatever_stands_in_place_of_a_value_it_is_a_schema_or_refused(data):
    changed = json.loads(TINY.read_text())
    *path, last = data.draw(st.sampled_from(places(changed)[1:]))
    holder = changed
    for key in path:
        holder = holder[key]
    holder[last] = data.draw(json_values)
    try:
        schema = CanvasSchema.from_dict(changed)
    except ValueError as error:
        assert str(error)
        return
    assert CanvasSchema.from_dict(schema.to_dict()).to_dict() == schema.to_dict()
    try:
        plan = compile_plan(schema)
    except PlanError as error:
        assert str(error)
        return
    assert describe(schema, plan).tokens == plan.n_rows
    assert all(str(advice) for advice in advise(schema, plan))


@pytest.mark.parametrize(
    "arguments, text",
    [
        ((None,), "layout: expected a CanvasLayout, got None"),
        (({"T": 1},), "layout: expected a CanvasLayout, got {'T': 1}"),
        ((LAYOUT, []), "topology: expected a CanvasTopology or None, got []"),
        ((LAYOUT, None, 2), "schema_version: expected text, got 2"),
        ((LAYOUT, None, "0.2.0", None), "metadata: expected a dict, got None"),
    ],
)
def test_an_argument_of_another_type_is_refused_by_name(arguments, text):
    with pytest.raises(SchemaError) as error:
        CanvasSchema(*arguments)
    assert str(error.value) == text


@pytest.mark.parametrize("version", [2, None, True, ["0.2.0"]])
def test_a_version_that_is_no_text_is_refused(version):
    with pytest.raises(SchemaError, match="schema_version: expected text, got"):
        CanvasSchema.from_dict({**document(), "schema_version": version})


@pytest.mark.parametrize("offset", ["now", 1.5])
def test_an_offset_that_is_no_canvas_step_is_refused(offset):
    with pytest.raises(TopologyError):
        CanvasSchema.from_dict(document(topology=[{"src": "a", "dst": "b", "t_src": offset}]))


@pytest.mark.parametrize("other", ["bimanual", None])
def test_what_is_no_schema_has_no_compatible_regions(other):
    with pytest.raises(SchemaError, match="other: expected a CanvasSchema, got "):
        CanvasSchema(LAYOUT).compatible_regions(other)


@pytest.mark.parametrize("threshold", ["0.3", None, math.nan])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(SchemaError, match="threshold: expected a number, got "):
        CanvasSchema(LAYOUT).compatible_regions(CanvasSchema(LAYOUT), threshold)
