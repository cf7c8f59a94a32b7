"""Laws of SpatiotemporalCanvas: extract undoes place, placing touches nothing else."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.canvas import SpatiotemporalCanvas
from canvas_robot.canvas.spatiotemporal import sinusoidal_positions
from canvas_robot.schema import CanvasLayout

LAYOUT = CanvasLayout(
    2, 3, 4, 12, {"agent_a.thought": (0, 2, 0, 1, 0, 4), "hand": (1, 2, 1, 3, 0, 2)}
)
REGIONS = list(LAYOUT.regions)


@pytest.fixture(scope="module")
def canvas():
    torch.manual_seed(0)
    return SpatiotemporalCanvas(LAYOUT)


def modality(canvas, region):
    return canvas.modality[REGIONS.index(region)]


def test_an_empty_canvas_is_the_empty_token_plus_its_position_in_every_sample(canvas):
    empty = canvas.create_empty(3)
    assert empty.shape == (3, 24, 12)
    for sample in empty:
        assert torch.equal(sample, canvas.empty_token + sinusoidal_positions(LAYOUT))


def on_meta_then_back(canvas):
    return copy.deepcopy(canvas).to("meta").to_empty(device="cpu")


def made_on_meta(_):
    with torch.device("meta"):
        canvas = SpatiotemporalCanvas(LAYOUT)
    return canvas.to_empty(device="cpu")


@pytest.mark.parametrize("emptied", [on_meta_then_back, made_on_meta])
def test_one_that_is_emptied_and_loaded_places_as_before(canvas, emptied):
    other = emptied(canvas)
    other.load_state_dict(canvas.state_dict())
    embeddings = torch.randn(1, 4, 12)
    placed = [c.place(c.create_empty(1), embeddings, "hand") for c in (canvas, other)]
    assert torch.equal(*placed)


@pytest.mark.parametrize("region", REGIONS)
def test_extract_undoes_place_but_for_the_modality_vector(canvas, region):
    embeddings = torch.randn(2, LAYOUT.region_numel(region), 12)
    placed = canvas.place(canvas.create_empty(2), embeddings, region)
    assert torch.equal(canvas.extract(placed, region), embeddings + modality(canvas, region))


@pytest.mark.parametrize("region", REGIONS)
def test_placing_leaves_all_other_cells_and_its_arguments_as_they_were(canvas, region):
    empty, embeddings = canvas.create_empty(2), torch.randn(2, LAYOUT.region_numel(region), 12)
    before, given_embeddings = empty.clone(), embeddings.clone()
    placed = canvas.place(empty, embeddings, region)
    others = sorted(set(range(LAYOUT.num_positions)) - set(LAYOUT.region_indices(region)))
    assert torch.equal(placed[:, others], before[:, others])
    assert torch.equal(empty, before) and torch.equal(embeddings, given_embeddings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_canvas_keeps_its_precision_under_embeddings_of_another(canvas, dtype):
    canvas = canvas.to(dtype)
    embeddings = torch.randn(1, 4, 12, dtype=dtype)
    for empty in (canvas.create_empty(1), canvas.create_empty(1).to(dtype)):
        placed = canvas.place(empty, embeddings, "hand")
        assert placed.dtype == empty.dtype
        wanted = (embeddings + modality(canvas, "hand")).to(empty.dtype)
        assert torch.equal(canvas.extract(placed, "hand"), wanted)


def test_fewer_embeddings_are_padded_with_zeros_and_more_are_cut(canvas):
    vector = modality(canvas, "hand")
    fewer, more = torch.randn(1, 3, 12), torch.randn(1, 6, 12)
    placed = canvas.extract(canvas.place(canvas.create_empty(1), fewer, "hand"), "hand")
    assert torch.equal(placed[:, :3], fewer + vector)
    assert torch.equal(placed[:, 3:], torch.zeros(1, 1, 12) + vector)
    placed = canvas.extract(canvas.place(canvas.create_empty(1), more, "hand"), "hand")
    assert torch.equal(placed, more[:, :4] + vector)


def test_input_tokens_lie_on_top_of_what_the_empty_canvas_holds(canvas):
    cells = tuple(LAYOUT.region_indices("hand")[:3])
    embeddings = torch.randn(2, 3, 12)
    tokens = canvas.tokens(embeddings, "hand")
    below = canvas.create_empty(2)[:, list(cells)]
    torch.testing.assert_close(tokens, below + embeddings + modality(canvas, "hand"))


def test_modality_vectors_differ_and_everything_learned_receives_a_gradient(canvas):
    first, second = (modality(canvas, region) for region in REGIONS)
    assert not torch.equal(first, second)
    placed = canvas.create_empty(1)
    for region in REGIONS:
        placed = canvas.place(placed, torch.randn(1, 2, 12), region)
    gradients = torch.autograd.grad(placed.square().sum(), list(canvas.parameters()))
    assert len(gradients) == 1 + len(REGIONS)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(6, 40))
def test_every_cell_has_a_position_of_its_own(size, width):
    positions = sinusoidal_positions(CanvasLayout(*size, width))
    assert positions.shape == (size[0] * size[1] * size[2], width)
    assert len(torch.unique(positions, dim=0)) == len(positions)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(1, 3)] * 3), st.integers(1, 40))
def test_positions_are_finite_and_within_one_at_any_width(size, width):
    positions = sinusoidal_positions(CanvasLayout(*size, width))
    assert positions.shape == (size[0] * size[1] * size[2], width)
    assert (positions.abs() <= 1).all()
