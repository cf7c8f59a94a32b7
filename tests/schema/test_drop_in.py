"""Laws of the drop-in: canvas-engineering 0.1.0 and the declarations here say the same."""

import inspect
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import canvas_robot
from canvas_robot.schema import CanvasSchema, CanvasTopology, RegionSpec
from tests.schema.conftest import any_schemas

theirs = pytest.importorskip("canvas_engineering", reason="extra bench")

OUR_FIELDS = ("stream", "timestep", "hold", "loops")  # of RegionSpec; they do not know them
ADDED = {
    "graft_looped_blocks": ["gate"],
    "LoopedBlockWrapper": ["gate", "keep_outputs"],
    "RegionSpec": list(OUR_FIELDS),
}
DECLARED = set(theirs.__all__) - {"ATTENTION_TYPES", "freeze_full", "freeze_half"}


def known_to_them(schema):
    """The schema without the fields that only we have."""
    document = schema.to_dict()
    for region in document["regions"].values():
        for field in OUR_FIELDS:
            region.pop(field, None)
    return CanvasSchema.from_dict(document)


their_schemas = any_schemas().map(known_to_them)


def as_theirs(schema):
    return theirs.CanvasSchema.from_dict(schema.to_dict())


def test_every_name_of_theirs_is_importable_from_here():
    assert set(theirs.__all__) <= set(canvas_robot.__all__)


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_arguments_have_their_names_order_and_defaults(name):
    """Only what is listed as added comes on top, with a default."""
    ours, original = (
        list(inspect.signature(getattr(library, name)).parameters.values())
        for library in (canvas_robot, theirs)
    )
    shared, added = ours[: len(original)], ours[len(original) :]

    def declared(parameters):
        return [(p.name, p.default if not callable(p.default) else "made new") for p in parameters]

    assert declared(shared) == declared(original)
    assert [p.name for p in added] == ADDED.get(name, [])
    assert all(p.default is not inspect.Parameter.empty for p in added)


def test_the_function_types_are_the_same_and_each_is_described():
    assert set(canvas_robot.ATTENTION_TYPES) == set(theirs.ATTENTION_TYPES)
    for name, described in canvas_robot.ATTENTION_TYPES.items():
        assert isinstance(described, str) and described.meaning in described, name


@settings(max_examples=60, deadline=None)
@given(their_schemas)
def test_our_json_loads_there_and_theirs_loads_here(schema):
    other = as_theirs(schema)
    assert other.to_dict() == json.loads(json.dumps(schema.to_dict()))
    back = CanvasSchema.from_dict(json.loads(json.dumps(other.to_dict())))
    assert back == schema


@settings(max_examples=60, deadline=None)
@given(their_schemas)
def test_indices_frames_loss_weights_and_outputs_are_the_same(schema):
    ours, other = schema.layout, as_theirs(schema).layout
    assert ours.num_positions == other.num_positions
    assert ours.output_mask() == other.output_mask()
    torch.testing.assert_close(ours.loss_weight_mask(), other.loss_weight_mask())
    for name in ours.regions:
        for method in ("region_size", "region_numel", "region_indices", "region_timesteps"):
            assert getattr(ours, method)(name) == getattr(other, method)(name)
        for t in range(-1, ours.T + 1):
            assert ours.region_indices_at_t(name, t) == other.region_indices_at_t(name, t)
        for tick in range(-2, 3 * ours.T):
            assert ours.real_frame(name, tick) == other.real_frame(name, tick)
            assert ours.canvas_frame(name, tick) == other.canvas_frame(name, tick)


@settings(max_examples=40, deadline=None)
@given(their_schemas)
def test_masks_and_answers_about_topologies_are_the_same(schema):
    names = list(schema.layout.regions)
    ours = schema.topology or CanvasTopology.causal_temporal(names)
    other = as_theirs(CanvasSchema(schema.layout, ours))
    assert torch.equal(
        ours.to_attention_mask(schema.layout), other.topology.to_attention_mask(other.layout)
    )
    assert ours.attention_ops(schema.layout) == other.topology.attention_ops(other.layout)
    assert ours.to_block_adjacency() == other.topology.to_block_adjacency()
    assert ours.has_temporal_constraints == other.topology.has_temporal_constraints
    assert ours.regions == other.topology.regions
    for name in names:
        assert ours.neighbors_of(name) == other.topology.neighbors_of(name)
        assert ours.attended_by(name) == other.topology.attended_by(name)
    assert repr(ours) == repr(other.topology)


@given(st.lists(st.text("abc", min_size=1, max_size=2), unique=True, min_size=1, max_size=4))
def test_constructors_connect_the_same_in_the_same_order(names):
    hub, *spokes = names
    made = [
        [
            library.CanvasTopology.dense(names),
            library.CanvasTopology.isolated(names),
            library.CanvasTopology.causal_chain(names),
            library.CanvasTopology.hub_spoke(hub, spokes),
            library.CanvasTopology.hub_spoke(hub, spokes, bidirectional=False),
        ]
        for library in (canvas_robot, theirs)
    ]
    for ours, other in zip(*made, strict=True):
        assert ours.attention_ops() == other.attention_ops()
    ours, other = (
        {(c.src, c.dst, c.t_src, c.t_dst) for c in topology.connections}
        for topology in (
            canvas_robot.CanvasTopology.causal_temporal(names),
            theirs.CanvasTopology.causal_temporal(names),
        )
    )
    assert ours == other


vectors = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: sum(x * x for x in v) > 1e-2)


@given(st.lists(vectors, min_size=2, max_size=4), st.floats(0.0, 2.0))
def test_distances_and_compatible_regions_agree(embeddings, threshold):
    regions = {
        f"r{i}": RegionSpec((0, 1, 0, 1, i, i + 1), semantic_embedding=embedding)
        for i, embedding in enumerate(embeddings)
    }
    layout = canvas_robot.CanvasLayout(1, 1, len(regions), 8, regions)
    ours = CanvasSchema(layout)
    other = as_theirs(ours)
    pairs = {(a, b): d for a, b, d in ours.compatible_regions(ours, threshold)}
    expected = {(a, b): d for a, b, d in other.compatible_regions(other, threshold)}
    for pair in pairs.keys() | expected.keys():
        distance = theirs.transfer_distance(*(other.layout.region_spec(name) for name in pair))
        assert pairs.get(pair, threshold) == pytest.approx(distance, abs=2e-6)
    found = [d for _, _, d in ours.compatible_regions(ours, threshold)]
    assert found == sorted(found)
