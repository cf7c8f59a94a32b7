"""Laws of the schedule: what a tick must compute, what a pass holds, plans as plain values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    PlanError,
    RegionSpec,
    closure,
    compile_plan,
    dirty_regions,
    distinct_passes,
    needed_for,
    pass_over,
)
from canvas_robot.schema.plan_form import plan_from_dict, plan_to_dict
from tests.schema.conftest import executable_schemas

schemas = executable_schemas()


def reachable(plan, start, backwards):
    """Regions reached from `start` along reads, or against them; a naive search."""
    found, open_ends = set(), set(start)
    while open_ends:
        found |= open_ends
        step = {
            (r.name if backwards else name)
            for r in plan.regions
            for name in r.reads
            if (name if backwards else r.name) in open_ends
            if not (backwards and r.hold)
        }
        open_ends = step - found
    return found


@given(schemas, st.integers(0, 12), st.data())
def test_dirty_is_what_is_due_or_touched_and_all_that_reads_it(schema, tick, data):
    plan = compile_plan(schema, loops=2)
    names = [r.name for r in plan.regions]
    events = data.draw(st.sets(st.sampled_from(names)))
    due = {r.name for r in plan.regions if tick % r.period == 0}
    assert dirty_regions(plan, tick, events) == reachable(plan, due | events, backwards=True)
    assert closure(plan, []) == frozenset()


@given(schemas, st.data())
def test_needed_is_all_that_outputs_read(schema, data):
    plan = compile_plan(schema)
    outputs = data.draw(st.sets(st.sampled_from([r.name for r in plan.regions]), min_size=1))
    assert needed_for(plan, outputs) == reachable(plan, outputs, backwards=False)


@given(schemas, st.integers(1, 4), st.data())
def test_a_pass_holds_the_rows_of_its_regions_each_for_its_own_loops(schema, loops, data):
    plan = compile_plan(schema, loops=loops)
    chosen = data.draw(st.sets(st.sampled_from([r.name for r in plan.regions]), min_size=1))
    regions = [r for r in plan.regions if r.name in chosen]
    whole = pass_over(plan, chosen)
    assert len(whole.loops) == max(r.loops for r in regions)
    group_of_row = {row: g for g in plan.groups for row in range(g.start, g.stop)}
    for loop, part in enumerate(whole.loops):
        expected = [row for r in regions if r.loops > loop for row in range(r.start, r.stop)]
        rows = [row for start, stop in part.rows for row in range(start, stop)]
        assert rows == expected
        for kind in (part.groups, part.modulations):
            assert [n for one in kind for n in range(one.start, one.stop)] == list(range(len(rows)))
        for g in part.groups:
            for number in range(g.start, g.stop):
                assert g[2:] == group_of_row[rows[number]][2:]
        for m in part.modulations:
            for number in range(m.start, m.stop):
                assert m[2:] == group_of_row[rows[number]][2:4]


@given(schemas)
def test_the_distinct_passes_are_those_of_one_cycle_of_ticks(schema):
    plan = compile_plan(schema)
    assert set(distinct_passes(plan)) == {dirty_regions(plan, tick) for tick in range(24)}


@given(schemas, st.integers(1, 3))
def test_a_plan_survives_json(schema, loops):
    plan = compile_plan(schema, loops=loops)
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(plan)))) == plan


def three(periods, edges, **fields):
    regions = {
        name: RegionSpec((0, 1, i, i + 1, 0, 1), period=period, **fields.get(name, {}))
        for i, (name, period) in enumerate(periods.items())
    }
    layout = CanvasLayout(1, 3, 1, 8, regions)
    return compile_plan(CanvasSchema(layout, CanvasTopology([Connection(*e) for e in edges])))


def test_periods_that_do_not_divide_are_recomputed_in_between():
    """A region of period 6 that reads one of period 4 is dirty at 4 as well, and so on."""
    plan = three({"a": 6, "b": 4, "c": 1}, [("a", "b"), ("c", "a"), ("b", "b")])
    assert ["a" in dirty_regions(plan, tick) for tick in range(13)] == [
        tick in (0, 4, 6, 8, 12) for tick in range(13)
    ]
    held = three({"a": 6, "b": 4, "c": 1}, [("a", "b"), ("c", "a")], a={"hold": True})
    assert "a" not in dirty_regions(held, 4)


def test_what_the_plan_lacks_is_refused_by_name():
    plan = three({"a": 1, "b": 1, "c": 1}, [("a", "b")])
    with pytest.raises(PlanError, match=r"events: name regions \['z'\] that the plan lacks"):
        dirty_regions(plan, 0, ["z"])
    with pytest.raises(PlanError, match="outputs: name region 'z', which the plan lacks"):
        needed_for(plan, ["z"])
    with pytest.raises(PlanError, match=r"pass: expected at least one of \['a', 'b', 'c'\]"):
        pass_over(plan, [])
    with pytest.raises(PlanError, match="expected what plan_to_dict wrote"):
        plan_from_dict({"n_rows": 3})
