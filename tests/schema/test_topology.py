"""Laws of CanvasTopology: what its constructors connect, what connections mean, the dense mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    RegionSpec,
    TopologyError,
)

names = st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=5)


@given(names)
def test_dense_lets_every_region_read_every_region(regions):
    topology = CanvasTopology.dense(regions)
    assert {(c.src, c.dst) for c in topology.connections} == {
        (a, b) for a in regions for b in regions
    }
    assert len(topology.connections) == len(regions) ** 2
    assert topology.regions == set(regions)


@given(names)
def test_isolated_lets_every_region_read_itself_alone(regions):
    topology = CanvasTopology.isolated(regions)
    assert [(c.src, c.dst) for c in topology.connections] == [(name, name) for name in regions]


def test_a_connections_own_function_type_wins_over_its_regions_default():
    layout = CanvasLayout(1, 1, 2, 8, {"a": RegionSpec((0, 1, 0, 1, 0, 1), default_attn="mamba")})
    layout.regions["b"] = (0, 1, 0, 1, 1, 2)
    topology = CanvasTopology()
    assert topology.resolve_fn(Connection("a", "b", fn="copy"), layout) == "copy"
    assert topology.resolve_fn(Connection("a", "b"), layout) == "mamba"
    assert topology.resolve_fn(Connection("b", "a"), layout) == "cross_attention"
    assert topology.resolve_fn(Connection("a", "b")) == "cross_attention"
    assert topology.resolve_fn(Connection("elsewhere", "b"), layout) == "cross_attention"


@given(names)
def test_a_hub_reads_its_spokes_and_they_read_it_if_bidirectional(regions):
    hub, spokes = "the hub", regions
    itself = {(name, name) for name in [hub, *spokes]}
    reads = {(hub, spoke) for spoke in spokes}
    back = {(spoke, hub) for spoke in spokes}
    both = CanvasTopology.hub_spoke(hub, spokes).connections
    one_way = CanvasTopology.hub_spoke(hub, spokes, bidirectional=False).connections
    assert {(c.src, c.dst) for c in both} == itself | reads | back and len(both) == len(
        itself | reads | back
    )
    assert {(c.src, c.dst) for c in one_way} == itself | reads


@given(names)
def test_in_a_causal_chain_every_region_reads_itself_and_the_one_before(regions):
    connections = CanvasTopology.causal_chain(regions).connections
    before = list(zip(regions[1:], regions[:-1], strict=True))
    assert [(c.src, c.dst) for c in connections] == [(n, n) for n in regions] + before
    assert not CanvasTopology.causal_chain(regions).has_temporal_constraints


@given(names)
def test_causal_temporal_reads_itself_now_and_everyone_one_step_before(regions):
    topology = CanvasTopology.causal_temporal(regions)
    edges = [(c.src, c.dst, c.t_src, c.t_dst) for c in topology.connections]
    now = {(name, name, 0, 0) for name in regions}
    before = {(a, b, 0, -1) for a in regions for b in regions}
    assert len(edges) == len(set(edges)) and set(edges) == now | before
    assert topology.has_temporal_constraints == bool(regions)


def test_questions_about_a_topology_are_answered_by_region_in_order():
    topology = CanvasTopology(
        [
            Connection("a", "b", weight=0.5),
            Connection("a", "a", fn="mamba"),
            Connection("c", "b"),
            Connection("a", "b", weight=2.0, t_src=0, t_dst=-1),
        ]
    )
    assert topology.neighbors_of("a") == ["b", "a", "b"]
    assert topology.attended_by("b") == ["a", "c", "a"]
    assert topology.neighbors_of("b") == []
    assert topology.to_block_adjacency() == {("a", "b"): 2.0, ("a", "a"): 1.0, ("c", "b"): 1.0}
    layout = CanvasLayout(1, 1, 1, 8, {"c": RegionSpec((0, 1, 0, 1, 0, 1), default_attn="gated")})
    assert topology.attention_ops(layout) == [
        ("a", "b", 0.5, "cross_attention"),
        ("a", "a", 1.0, "mamba"),
        ("c", "b", 1.0, "gated"),
        ("a", "b", 2.0, "cross_attention"),
    ]
    assert topology.attention_ops()[2] == ("c", "b", 1.0, "cross_attention")
    assert topology.summary().splitlines() == [
        "CanvasTopology: 4 ops, 3 regions",
        "  a ↺ self  (weight 1)",
        "  a → b  (weight 2)",
        "  c → b  (weight 1)",
        "  1 temporal constraints",
    ]


def test_the_text_of_a_topology_says_how_many_connections_and_which_regions():
    text = repr(CanvasTopology.dense(["b", "a"]))
    assert text == "CanvasTopology(connections=4, regions=['a', 'b'])"


def written_out_mask(topology, layout):
    """The dense mask by its definition: every connection, reference step and pair of cells."""
    mask = torch.zeros(layout.num_positions, layout.num_positions)
    for c in topology.connections:
        if not {c.src, c.dst} <= set(layout.regions):
            continue
        for reference in range(layout.T):
            rows, columns = (
                layout.region_indices(name)
                if offset is None
                else layout.region_indices_at_t(name, reference + offset)
                for name, offset in ((c.src, c.t_src), (c.dst, c.t_dst))
            )
            for row in rows:
                for column in columns:
                    mask[row, column] = max(float(mask[row, column]), c.weight)
    return mask


@settings(max_examples=60)
@given(st.data())
def test_the_mask_is_what_its_definition_writes_out_overlaps_included(strategies, data):
    schema = data.draw(strategies["any_schemas"])
    topology = schema.topology or CanvasTopology.causal_temporal(list(schema.layout.regions))
    mask = topology.to_attention_mask(schema.layout)
    assert mask.dtype == torch.float32
    assert torch.equal(mask, written_out_mask(topology, schema.layout))


def test_the_mask_ignores_regions_that_the_layout_lacks_but_a_schema_refuses_them():
    layout = CanvasLayout(1, 1, 2, 8, {"a": (0, 1, 0, 1, 0, 1)})
    topology = CanvasTopology([Connection("a", "a"), Connection("a", "z"), Connection("z", "a")])
    assert topology.to_attention_mask(layout).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    try:
        CanvasSchema(layout, topology)
    except ValueError as error:
        assert "['z']" in str(error)
    else:
        raise AssertionError("a schema took a topology that names an unknown region")


@pytest.mark.parametrize(
    "connections, text",
    [
        (5, "connections: expected a list of Connection, got 5"),
        (
            [Connection("a", "b"), {"src": "a"}],
            "connections[1]: expected a Connection, got {'src': 'a'}; "
            "a file's JSON form is read by CanvasSchema.from_dict",
        ),
    ],
)
def test_what_is_no_list_of_connections_is_refused(connections, text):
    with pytest.raises(TopologyError) as error:
        CanvasTopology(connections)
    assert str(error.value) == text
