"""Laws of CanvasTopology: what its constructors connect, and what function a connection means."""

from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.schema import CanvasLayout, CanvasTopology, Connection, RegionSpec

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


def test_the_text_of_a_topology_says_how_many_connections_it_has():
    assert repr(CanvasTopology.dense(["a", "b"])) == "CanvasTopology(4 connections)"
