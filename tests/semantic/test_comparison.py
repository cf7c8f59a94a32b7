"""Laws of comparing two schemas: every region is in a pair or is named with the reason."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canvas_robot.schema.transfer import EmbeddingDimensionError, bridging_cost
from canvas_robot.semantic import NotCompared, compare_schemas


def at(degrees, model="a/a"):
    """A meaning in the plane."""
    angle = math.radians(degrees)
    return {"semantic_embedding": (math.cos(angle), math.sin(angle)), "embedding_model": model}


MEANINGS = st.one_of(
    st.none(),
    st.just({}),
    st.just({"semantic_type": "camera"}),
    st.builds(at, st.integers(0, 359), st.sampled_from(["a/a", "b/b"])),
)
REGIONS = st.dictionaries(st.sampled_from("uvwxyz"), MEANINGS, max_size=5)


def test_pairs_come_nearest_first_with_what_bridges_them(schema_of):
    mine = schema_of({"x": at(0), "y": at(40)}, d_model=64)
    theirs = schema_of({"u": at(10), "v": at(170)}, d_model=32)
    comparison = compare_schemas(mine, theirs, threshold=0.3)
    assert [(p.mine, p.theirs) for p in comparison.pairs] == [("x", "u"), ("y", "u")]
    near = comparison.pairs[0]
    assert near.distance == pytest.approx(1.0 - math.cos(math.radians(10)))
    assert near.bridging == bridging_cost(near.distance, 64, 32)
    assert near.embedding_model == "a/a"
    assert comparison.beyond == 2 and comparison.not_compared == ()


def test_what_could_not_be_compared_is_listed_with_the_reason(schema_of):
    mine = schema_of({"x": at(0), "raw": None, "old": at(0, "b/b")})
    theirs = schema_of({"u": at(0), "later": {"semantic_type": "camera"}})
    assert compare_schemas(mine, theirs).not_compared == (
        NotCompared("mine", "raw", "no semantic_type says what it means"),
        NotCompared(
            "mine",
            "old",
            "embedded by 'b/b', of which the other schema has nothing (it has 'a/a'); "
            "embed both by one model",
        ),
        NotCompared("theirs", "later", "its semantic_type is not embedded"),
    )


def test_a_schema_without_embeddings_is_said_to_have_none(schema_of):
    (left_out, _) = compare_schemas(schema_of({"x": at(0)}), schema_of({"u": {}})).not_compared
    assert "(it has no embedding)" in left_out.reason


@given(REGIONS, REGIONS, st.floats(0.0, 2.0))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_region_is_compared_or_listed(schema_of, mine, theirs, threshold):
    mine, theirs = schema_of(mine), schema_of(theirs)
    narrow, wide = (compare_schemas(mine, theirs, limit) for limit in (threshold, 2.0))
    for side, schema in (("mine", mine), ("theirs", theirs)):
        compared = {getattr(pair, side) for pair in wide.pairs}
        listed = {left_out.region for left_out in wide.not_compared if left_out.schema == side}
        assert compared | listed == set(schema.layout.regions) and not compared & listed
    assert narrow.not_compared == wide.not_compared
    assert len(narrow.pairs) + narrow.beyond == len(wide.pairs)
    assert narrow.pairs == wide.pairs[: len(narrow.pairs)]


@pytest.mark.parametrize("threshold", [-0.1, 2.5, math.nan, "near", None])
def test_a_threshold_that_no_distance_can_have_is_refused(schema_of, threshold):
    with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 2\]"):
        compare_schemas(schema_of({}), schema_of({}), threshold)


def test_embeddings_of_one_model_that_differ_in_length_are_an_error_not_a_gap(schema_of):
    cut = {"semantic_embedding": (1.0,), "embedding_model": "a/a"}
    with pytest.raises(EmbeddingDimensionError):
        compare_schemas(schema_of({"x": at(0)}), schema_of({"u": cut}))
