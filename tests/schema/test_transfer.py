"""Laws of transfer distance and of what bridging costs."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from canvas_robot.schema import RegionSpec
from canvas_robot.schema.transfer import (
    ADAPTER_REDUCTION,
    ADAPTER_UP_TO,
    DIRECT_UP_TO,
    EmbeddingDimensionError,
    EmbeddingDirectionError,
    EmbeddingModelMismatchError,
    MissingEmbeddingError,
    TransferError,
    bridging_cost,
    transfer_distance,
)

BOX = (0, 1, 0, 1, 0, 1)
NUMBERS = st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-6)
WIDTHS = st.integers(4, 4096)
SQUARES_OVERFLOW, SQUARES_VANISH = 1e300, 1e-300


def meaning(*embedding, model="some/model", text=None):
    return RegionSpec(BOX, semantic_type=text, semantic_embedding=embedding, embedding_model=model)


@st.composite
def pairs(draw):
    length = draw(st.integers(1, 20))
    vectors = st.lists(NUMBERS, min_size=length, max_size=length).filter(any)
    return draw(vectors), draw(vectors)


@given(pairs())
def test_it_is_one_minus_the_cosine(pair):
    a, b = map(np.array, pair)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert transfer_distance(meaning(*pair[0]), meaning(*pair[1])) == pytest.approx(
        1.0 - cosine, abs=1e-12
    )


@given(pairs())
def test_it_lies_between_0_and_2_and_is_symmetric(pair):
    a, b = (meaning(*embedding) for embedding in pair)
    assert 0.0 <= transfer_distance(a, b) == transfer_distance(b, a) <= 2.0


@given(pairs(), st.floats(1e-3, 1e3))
def test_only_the_direction_counts(pair, factor):
    a, _ = pair
    assert transfer_distance(meaning(*a), meaning(*(factor * x for x in a))) < 1e-12
    opposite = transfer_distance(meaning(*a), meaning(*(-factor * x for x in a)))
    assert opposite == pytest.approx(2.0, abs=1e-12)


def test_equal_embeddings_are_at_0_and_orthogonal_ones_at_1():
    a, b = meaning(0.1, 0.7, -0.3), meaning(0.7, -0.1, 0.0)
    assert transfer_distance(a, a) == 0.0
    assert transfer_distance(a, b) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("scale", [SQUARES_OVERFLOW, SQUARES_VANISH])
def test_no_size_of_the_numbers_spoils_it(scale):
    expected = 1.0 - 1.0 / math.sqrt(2.0)
    a, b = meaning(scale, scale), meaning(scale, 0)
    assert transfer_distance(a, b) == pytest.approx(expected, abs=1e-12)


def test_float32_embeddings_agree_with_torch():
    rng = np.random.default_rng(0)
    for a, b in rng.normal(size=(20, 2, 384)).astype(np.float32):
        expected = 1.0 - torch.nn.functional.cosine_similarity(
            torch.from_numpy(a), torch.from_numpy(b), dim=0
        )
        regions = meaning(*map(float, a)), meaning(*map(float, b))
        assert transfer_distance(*regions) == pytest.approx(expected.item(), abs=1e-6)


# ---------------------------------------------------------------- refusals

NONE = RegionSpec(BOX, semantic_type="the joints")
REFUSED = {
    "missing": (
        NONE,
        meaning(1.0),
        MissingEmbeddingError,
        "semantic_embedding: both regions need one, got None for the region that means "
        "'the joints'; canvas_robot.semantic.with_embeddings(schema)",
    ),
    "models": (
        meaning(1.0, model="a/a"),
        meaning(1.0, model="b/b"),
        EmbeddingModelMismatchError,
        "Embedding model mismatch: 'a/a' and 'b/b'",
    ),
    "lengths": (
        meaning(1.0, 2.0),
        meaning(1.0),
        EmbeddingDimensionError,
        "Embedding dimension mismatch: 2 and 1 numbers, both said to be by 'some/model'",
    ),
    "zero": (
        meaning(1.0, 0.0),
        meaning(0.0, 0.0, text="the camera"),
        EmbeddingDirectionError,
        "semantic_embedding: expected finite numbers that are not all 0, got 2 numbers without a "
        "direction for the region that means 'the camera'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("swapped", [False, True])
def test_what_cannot_be_compared_is_refused_each_with_its_own_error(case, swapped):
    a, b, error, text = REFUSED[case]
    if swapped:
        a, b = b, a
        text = text.replace("'a/a' and 'b/b'", "'b/b' and 'a/a'").replace("2 and 1", "1 and 2")
    with pytest.raises(TransferError) as caught:
        transfer_distance(a, b)
    assert type(caught.value) is error and isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(text)


def test_an_empty_embedding_has_no_direction():
    with pytest.raises(EmbeddingDirectionError, match="got 0 numbers without a direction"):
        transfer_distance(meaning(), meaning())


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_embedding_that_is_not_finite_gives_a_distance(number):
    with pytest.raises(ValueError, match="semantic_embedding"):
        transfer_distance(meaning(1.0, number), meaning(1.0, 0.0))


# ---------------------------------------------------------------- bridging


@pytest.mark.parametrize(
    "distance, kind",
    [
        (0.0, "direct"),
        (DIRECT_UP_TO, "direct"),
        (math.nextafter(DIRECT_UP_TO, 1), "adapter layers"),
        (ADAPTER_UP_TO, "adapter layers"),
        (math.nextafter(ADAPTER_UP_TO, 1), "full MLP"),
        (2.0, "full MLP"),
    ],
)
def test_the_kind_of_bridge_follows_from_the_distance(distance, kind):
    assert bridging_cost(distance, 64, 64).kind == kind


def count(*sizes):
    """Parameters of linear layers from size to size."""
    layers = [torch.nn.Linear(a, b, device="meta") for a, b in pairwise(sizes)]
    return sum(p.numel() for layer in layers for p in layer.parameters())


@given(WIDTHS, WIDTHS)
def test_the_parameters_are_those_of_the_layers_it_stands_for(d_src, d_dst):
    assume(d_src != d_dst)
    bottleneck = min(d_src, d_dst) // ADAPTER_REDUCTION
    adapter = count(d_src, d_dst) + count(d_src, bottleneck, d_dst)
    assert bridging_cost(0.0, d_src, d_dst).parameters == count(d_src, d_dst)
    assert bridging_cost(0.3, d_src, d_dst).parameters == adapter
    assert bridging_cost(0.9, d_src, d_dst).parameters == count(d_src, max(d_src, d_dst), d_dst)


@given(WIDTHS)
def test_equal_widths_need_no_map_of_their_own(d):
    assert bridging_cost(0.0, d, d).parameters == 0
    assert bridging_cost(0.3, d, d).parameters == count(d, d // ADAPTER_REDUCTION, d)
    assert bridging_cost(0.9, d, d).parameters == count(d, d, d)


@given(WIDTHS, WIDTHS)
def test_the_farther_the_dearer(d_src, d_dst):
    near, middle, far = (bridging_cost(d, d_src, d_dst).parameters for d in (0.0, 0.3, 0.9))
    assert near < middle < far


@pytest.mark.parametrize("distance", [-0.1, 2.1, math.nan, "0.3", None])
def test_a_distance_that_cannot_be_is_refused(distance):
    with pytest.raises(ValueError, match=r"distance: expected a number in \[0, 2\], got"):
        bridging_cost(distance, 8, 8)


@pytest.mark.parametrize("width", [0, -8, 8.5, "8", True])
def test_a_width_that_is_no_count_is_refused(width):
    for widths in ((8, width), (width, 8)):
        with pytest.raises(ValueError, match="d_src, d_dst: expected widths, ints >= 1, got"):
            bridging_cost(0.5, *widths)


def test_a_name_is_no_region():
    with pytest.raises(TransferError, match="region: expected a RegionSpec, got 'camera'; layout"):
        transfer_distance("camera", RegionSpec((0, 1, 0, 1, 0, 1)))
