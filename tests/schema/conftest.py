"""Strategies for declarations: boxes, layouts and whole schemas."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from canvas_robot.schema import (
    ATTENTION_TYPES,
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    RegionSpec,
)

settings.register_profile("no deadline", deadline=None)  # a busy machine breaks no law
settings.load_profile("no deadline")

PRINTABLE = st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])
NAMES = st.text(PRINTABLE, min_size=1, max_size=6)
WEIGHTS = st.just(0.0) | st.floats(1e-30, 10.0)
SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
ANYWHERE = sorted(set(ATTENTION_TYPES) - {"copy"})  # a copy needs boxes that match


@st.composite
def boxes(draw, size):
    """(t0, t1, h0, h1, w0, w1) inside a grid of that size."""
    ends = []
    for extent in size:
        low = draw(st.integers(0, extent - 1))
        ends += [low, draw(st.integers(low + 1, extent))]
    return tuple(ends)


@st.composite
def disjoint_boxes(draw, size):
    """Some boxes of a grid of that size that share no cell."""
    kept, taken = [], set()
    for box in draw(st.lists(boxes(size), min_size=1, max_size=6)):
        cells = set(cells_of(box))
        if not cells & taken:
            kept.append(box)
            taken |= cells
    return kept


def cells_of(box):
    """(t, h, w) of every cell, in index order."""
    t0, t1, h0, h1, w0, w1 = box
    return [(t, h, w) for t in range(t0, t1) for h in range(h0, h1) for w in range(w0, w1)]


def specs(bounds, attention=tuple(ATTENTION_TYPES)):
    """RegionSpecs of those bounds, every field drawn."""
    return st.builds(
        RegionSpec,
        bounds=st.just(bounds),
        period=st.integers(1, 4),
        is_output=st.booleans(),
        loss_weight=st.floats(0.0, 1e6),
        semantic_type=st.none() | st.text(max_size=8),
        semantic_embedding=st.none() | st.tuples(*[st.floats(-1, 1)] * 3),
        embedding_model=st.sampled_from(["openai/text-embedding-3-small", "other"]),
        default_attn=st.sampled_from(attention),
        stream=st.sampled_from(["video", "text"]),
        timestep=st.integers(0, 999),
        hold=st.booleans(),
        loops=st.none() | st.integers(1, 4),
    )


def offsets(T):
    """Mostly near 0, where they pair steps that there are."""
    return st.none() | st.integers(-1, 1) | st.integers(-T, T)


@st.composite
def any_schemas(draw):
    """Schemas of every kind: regions that overlap, all function types, raw bounds."""
    size = draw(SIZES)
    regions = {}
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        bounds = draw(boxes(size))
        regions[name] = draw(st.just(bounds) | specs(bounds))
    layout = CanvasLayout(
        *size, draw(st.integers(1, 2048)), regions, draw(st.integers(0, size[0] - 1))
    )
    topology = None
    if regions:
        names = st.sampled_from(list(regions))
        connections = st.builds(
            Connection,
            src=names,
            dst=names,
            weight=WEIGHTS,
            t_src=offsets(size[0]),
            t_dst=offsets(size[0]),
            fn=st.none() | st.sampled_from(list(ATTENTION_TYPES)),
        )
        topology = draw(st.none() | st.lists(connections, max_size=4).map(CanvasTopology))
    metadata = draw(st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2))
    return CanvasSchema(layout, topology, metadata=metadata)


@st.composite
def executable_schemas(draw, attention=("cross_attention", "cross_attention", *ANYWHERE)):
    """Schemas that compile: regions that are apart, with connections of those function types."""
    size = draw(SIZES)
    regions = {
        f"region.{i}": draw(specs(box, attention))
        for i, box in enumerate(draw(disjoint_boxes(size)))
    }
    names = st.sampled_from(list(regions))
    connections = st.builds(
        Connection,
        src=names,
        dst=names,
        weight=st.sampled_from([1.0, 1.0, 1.0, 0.0, 0.5, 2.0]),
        t_src=offsets(size[0]),
        t_dst=offsets(size[0]),
        fn=st.sampled_from([None, *attention]),
    )
    topology = draw(st.none() | st.lists(connections, max_size=10).map(CanvasTopology))
    return CanvasSchema(CanvasLayout(*size, d_model=8, regions=regions), topology)


@pytest.fixture(scope="session")
def strategies():
    """The strategies of this file, by name."""
    return {
        "boxes": boxes,
        "cells_of": cells_of,
        "disjoint_boxes": disjoint_boxes,
        "any_schemas": any_schemas(),
        "executable_schemas": executable_schemas(),
        "sizes": SIZES,
    }
