"""Laws of describe, timeline and advise: what people are shown is what the plan says."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.resources import config_path
from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    RegionSpec,
    SchemaError,
    compile_plan,
    dirty_regions,
)
from canvas_robot.schema.advice import advise
from canvas_robot.schema.description import (
    OBSERVES,
    RECOMPUTED,
    UNCHANGED,
    control_rate_hz,
    describe,
    spans_of,
    timeline,
)

FAST = {"cam": (0, 1, 0, 1, 0, 4), "act": (0, 2, 1, 2, 0, 1)}


def schema_of(regions, connections, T=2, **metadata):
    specs = {
        name: r if isinstance(r, RegionSpec) else RegionSpec(r, semantic_type="words")
        for name, r in regions.items()
    }
    layout = CanvasLayout(T, 4, 4, 8, specs)
    return CanvasSchema(layout, CanvasTopology(connections), metadata=metadata)


def spec(bounds, **fields):
    return RegionSpec(bounds, **({"semantic_type": "words"} | fields))


@given(st.data())
def test_spans_name_exactly_the_canvas_steps_of_the_rows(strategies, data):
    schema = data.draw(strategies["executable_schemas"])
    plan = compile_plan(schema)
    step_of_row = [
        (r.name, cell // (schema.layout.H * schema.layout.W))
        for r in plan.regions
        for cell in r.cells
    ]
    start = data.draw(st.integers(0, plan.n_rows - 1))
    stop = data.draw(st.integers(start + 1, plan.n_rows))
    spans = spans_of(schema, plan, (start, stop))
    named = [(span.region, t) for span in spans for t in range(span.t0, span.t1)]
    assert named == list(dict.fromkeys(step_of_row[start:stop]))
    for span in spans:
        rows = plan.region(span.region)
        assert span.whole == (start <= rows.start and rows.stop <= stop)


@given(st.data())
def test_a_description_covers_every_row_once_and_is_plain_json(strategies, data):
    schema = data.draw(strategies["executable_schemas"])
    description = describe(schema)
    assert sum(r.tokens for r in description.regions) == description.tokens
    assert sum(r.share for r in description.regions) == pytest.approx(1.0)
    assert sum(g.stop - g.start for g in description.groups) == description.tokens
    assert {r.name for r in description.regions} == set(schema.layout.regions)
    assert json.loads(json.dumps(dataclasses.asdict(description)))["tokens"] == description.tokens


@given(st.data())
def test_readers_are_the_inverse_of_active_sources(strategies, data):
    description = describe(data.draw(strategies["executable_schemas"]))
    reads = {(r.name, s.region) for r in description.regions for s in r.sources if s.active}
    assert reads == {(reader, r.name) for r in description.regions for reader in r.readers}


@given(st.data())
def test_the_timeline_follows_the_periods_and_every_reader_of_what_is_computed(strategies, data):
    schema = data.draw(strategies["executable_schemas"])
    line = timeline(schema)
    plan = compile_plan(schema)
    assert 8 <= line.ticks <= 32
    sources = {r.name: {s.region for s in r.sources if s.active} for r in describe(schema).regions}
    for name, states in line.states.items():
        period = schema.layout.region_spec(name).period
        for tick, state in enumerate(states):
            assert (state == OBSERVES) == (tick % period == 0)
            if state == RECOMPUTED:  # something it is connected to changed at that tick
                assert any(line.states[dst][tick] != UNCHANGED for dst in sources[name])
    for group in describe(schema).groups:
        for tick in range(line.ticks):
            if any(line.states[read.span.region][tick] != UNCHANGED for read in group.reads):
                assert all(
                    line.states[span.region][tick] != UNCHANGED or plan.region(span.region).hold
                    for span in group.spans
                )
    for tick in range(line.ticks):
        computed = {name for name, states in line.states.items() if states[tick] != UNCHANGED}
        assert computed == dirty_regions(plan, tick)
    assert plan.n_rows == sum(r.tokens for r in describe(schema).regions)


def test_a_reader_of_a_reader_is_recomputed_too():
    schema = schema_of(
        {
            "slow": spec((0, 1, 0, 1, 0, 1), period=4),
            "middle": spec((0, 1, 1, 2, 0, 1), period=4),
            "fast": spec((0, 1, 2, 3, 0, 1), period=2),
        },
        [Connection("slow", "middle"), Connection("middle", "fast")],
    )
    states = timeline(schema).states
    assert states["fast"][:4] == (OBSERVES, UNCHANGED, OBSERVES, UNCHANGED)
    assert states["middle"][:4] == (OBSERVES, UNCHANGED, RECOMPUTED, UNCHANGED)
    assert states["slow"][:4] == (OBSERVES, UNCHANGED, RECOMPUTED, UNCHANGED)


def test_a_region_that_holds_saves_what_its_period_says_and_is_not_warned_of():
    for hold in (False, True):
        regions = {
            "slow": spec((0, 1, 0, 1, 0, 1), period=4, hold=hold),
            "fast": spec((0, 1, 1, 2, 0, 1)),
        }
        schema = schema_of(regions, [Connection("slow", "fast"), Connection("fast", "slow")])
        assert timeline(schema).states["slow"].count(UNCHANGED) == (6 if hold else 0)
        assert any("saves nothing" in text for text in texts(schema)) == (not hold)


def test_a_long_cycle_is_cut_and_a_short_one_repeated():
    regions = {f"r{p}": spec((0, 1, i, i + 1, 0, 1), period=p) for i, p in enumerate((5, 7))}
    line = timeline(schema_of(regions, []))
    assert (line.ticks, line.cycle) == (32, 35)
    line = timeline(schema_of({"r": spec((0, 1, 0, 1, 0, 1), period=3)}, []))
    assert (line.ticks, line.cycle) == (9, 3)


def test_a_cycle_beyond_all_floats_is_shown_as_others_are():
    regions = {
        f"r{i}": RegionSpec((0, 1, i, i + 1, 0, 1), period=2**31 - 1 - 2 * i) for i in range(60)
    }
    line = timeline(CanvasSchema(CanvasLayout(1, 60, 1, 8, regions)))
    assert line.cycle > 10**400
    assert line.ticks == 32


def test_the_control_rate_comes_from_the_metadata_and_is_checked():
    assert control_rate_hz(schema_of(FAST, [])) == 5.0
    assert control_rate_hz(schema_of(FAST, [], control_rate_hz="50")) == 50.0
    for wrong in ("fast", "0", "-1", "inf", "nan", None, True, math.nan, math.inf, 10**400, []):
        with pytest.raises(SchemaError, match=r"metadata\.control_rate_hz: expected ticks"):
            schema_of(FAST, [], control_rate_hz=wrong)


@pytest.mark.parametrize("rate", [0, -1.0, math.nan, math.inf, "5", True])
def test_a_rate_that_is_asked_for_must_be_finite_and_above_0(rate):
    with pytest.raises(ValueError, match="rate_hz: expected a finite number above 0, got"):
        describe(schema_of(FAST, []), rate_hz=rate)


def test_sources_are_written_with_what_is_not_default():
    schema = schema_of(
        FAST,
        [
            Connection("act", "cam"),
            Connection("act", "cam", 0.5, 0, -1, "gated"),
            Connection("act", "act", t_src=0, t_dst=0),
            Connection("cam", "act", t_dst=1),
        ],
    )
    rows = {r.name: [str(s) for s in r.sources] for r in describe(schema).regions}
    assert rows["act"] == ["cam", "cam (gated, x0.5, t-1)", "act (same t)"]
    assert rows["cam"] == ["act (t_dst=1)"]


def texts(schema):
    return [str(advice) for advice in advise(schema, compile_plan(schema))]


def test_a_sound_schema_gets_no_warning():
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    assert [text for text in texts(schema) if text.startswith("warning")] == []


def test_what_says_nothing_gets_a_warning():
    schema = CanvasSchema(CanvasLayout(1, 1, 1, 8), version="9.9")
    version, nothing = texts(schema)
    assert version.startswith("warning: schema_version '9.9': known are 0.1.0, 0.2.0")
    assert nothing.startswith("warning: no regions: ")


@pytest.mark.parametrize("embedding, why", [((), "it is empty"), ((0.0, 0.0), "all its numbers")])
def test_an_embedding_without_a_direction_gets_a_warning(embedding, why):
    regions = {"cam": spec((0, 1, 0, 4, 0, 4), semantic_embedding=embedding)}
    found = [text for text in texts(schema_of(regions, [])) if "semantic_embedding" in text]
    assert len(found) == 1 and found[0].startswith("warning: region 'cam': ") and why in found[0]


@pytest.mark.parametrize(
    "regions, connections, expected",
    [
        (
            {"cam": spec((0, 1, 0, 4, 0, 4), is_output=False)},
            [Connection("cam", "cam")],
            "warning: region 'cam': no other region reads it and it is no output",
        ),
        (
            {"act": spec((0, 2, 0, 4, 0, 4))},
            [Connection("act", "act")],
            "warning: region 'act': an output that reads no other region",
        ),
        (
            {"cam": spec((0, 1, 0, 4, 0, 4), is_output=False), "act": spec((1, 2, 0, 4, 0, 4))},
            [Connection("act", "cam", weight=0.0)],
            "warning: region 'act': an output that reads no other region",
        ),
        (
            {
                "cam": spec((0, 1, 0, 4, 0, 4), is_output=False, period=4),
                "act": spec((1, 2, 0, 4, 0, 4)),
            },
            [Connection("act", "cam"), Connection("cam", "act")],
            "warning: region 'cam': period 4 saves nothing, for it reads 'act' (period 1)",
        ),
        (
            {
                "cam": spec((0, 1, 0, 4, 0, 4), is_output=False, period=4),
                "act": spec((1, 2, 0, 4, 0, 4), period=6),
            },
            [Connection("act", "cam"), Connection("cam", "act")],
            "warning: region 'cam': period 4 saves 8 of 12 ticks only, for it reads 'act' (period "
            "6)",
        ),
        (
            {"cam": RegionSpec((0, 2, 0, 4, 0, 4))},
            [],
            "warning: no semantic_type: cam",
        ),
        (
            {"cam": spec((0, 2, 0, 4, 0, 2), is_output=False)},
            [],
            "note: 16 of 32 cells (50%) belong to no region",
        ),
    ],
    ids=["unread", "blind", "switched off", "period", "part of it", "no words", "empty cells"],
)
def test_a_likely_mistake_is_named(regions, connections, expected):
    assert any(text.startswith(expected) for text in texts(schema_of(regions, connections)))


def test_an_output_away_from_the_current_step_is_named():
    layout = CanvasLayout(
        6, 1, 2, 8, {"past": spec((0, 3, 0, 1, 0, 1)), "later": spec((4, 6, 0, 1, 0, 1))}, 3
    )
    schema = CanvasSchema(layout, CanvasTopology.dense(["past", "later"]))
    found = texts(schema)
    assert found[0].startswith("warning: region 'past': an output that ends at canvas step 2")
    assert any(text.startswith("note: region 'later': an output that starts") for text in found)
    assert [t.split(":")[0] for t in found] == sorted(
        (t.split(":")[0] for t in found), reverse=True
    )


@given(st.data())
def test_a_connection_is_warned_of_by_name_if_its_offsets_leave_it_nothing_to_read(
    strategies, data
):
    schema = data.draw(strategies["executable_schemas"])
    for c in schema.topology.connections if schema.topology else ():
        alone = CanvasTopology([c])
        fn = alone.resolve_fn(c, schema.layout)
        on = c.weight > 0 and fn != "none"
        empty = not alone.to_attention_mask(schema.layout).any()
        warned = [
            text
            for text in texts(CanvasSchema(schema.layout, alone))
            if f"connection {c.src!r} -> {c.dst!r} ({fn}): t_src {c.t_src} and t_dst" in text
        ]
        assert bool(warned) == (on and empty)
