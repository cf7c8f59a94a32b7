"""Laws of the graft: a fresh one changes nothing and trains only its loops."""

import copy

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from canvas_robot.backbone.graft import GraftError, graft
from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock

shapes = st.fixed_dictionaries(
    {
        "heads": st.integers(1, 4),
        "head_dim": st.sampled_from([16, 32]),
        "layers": st.integers(1, 3),
        "attention_bias": st.booleans(),
    }
)


@settings(max_examples=12, deadline=None)
@given(shapes, st.integers(1, 2), st.integers(1, 2), st.integers(0, 2**31))
def test_a_fresh_graft_equals_the_transformer_bit_for_bit_at_any_loop_count(
    make_transformer, make_inputs, shape, batch, frames, seed
):
    torch.manual_seed(seed)
    transformer = make_transformer(**shape)
    inputs = make_inputs(transformer, batch, frames)
    grafted = copy.deepcopy(transformer)
    blocks = graft(grafted, 3)
    with torch.no_grad():
        expected = transformer(**inputs).sample
        for loops in (1, 2, 3):
            for block in blocks:
                block.set_loops(loops)
            assert torch.equal(grafted(**inputs).sample, expected)


def test_a_fresh_graft_of_half_precision_changes_nothing_and_keeps_its_loops_in_float32(
    make_transformer, make_inputs
):
    torch.manual_seed(0)
    transformer = make_transformer().to(torch.bfloat16)
    inputs = make_inputs(transformer)
    grafted = copy.deepcopy(transformer)
    blocks = graft(grafted, 3)
    loop_parameters = [p for p in grafted.parameters() if p.requires_grad]
    assert len(loop_parameters) == 3 * len(blocks)
    assert all(p.dtype == torch.float32 for p in loop_parameters)
    with torch.no_grad():
        assert torch.equal(grafted(**inputs).sample, transformer(**inputs).sample)


def test_a_moved_gate_changes_the_output(make_transformer, make_inputs):
    torch.manual_seed(0)
    transformer = make_transformer()
    inputs = make_inputs(transformer)
    grafted = copy.deepcopy(transformer)
    blocks = graft(grafted, 2)
    with torch.no_grad():
        blocks[0].loop_gate[1] = 0.1
        assert not torch.equal(grafted(**inputs).sample, transformer(**inputs).sample)


@pytest.mark.parametrize("max_loops", [1, 2, 3, 5])
def test_gates_start_at_one_then_zeros_and_embeddings_of_later_loops_are_small_and_distinct(
    make_transformer, max_loops
):
    torch.manual_seed(0)
    embeddings = []
    for block in graft(make_transformer(), max_loops):
        assert block.loop_gate.flatten().tolist() == [1.0] + [0.0] * (max_loops - 1)
        for parameter in (block.loop_emb, block.loop_emb_enc):
            assert torch.equal(parameter[0], torch.zeros_like(parameter[0]))
            assert (parameter[1:].abs() < 0.2).all()
            embeddings += list(parameter[1:])
    assert len({tuple(e.tolist()) for e in embeddings}) == len(embeddings)


def test_only_the_loops_are_trained_and_each_of_them_is_reached(make_transformer, make_inputs):
    torch.manual_seed(0)
    transformer = make_transformer()
    blocks = graft(transformer, 2)
    trained = {name for name, p in transformer.named_parameters() if p.requires_grad}
    assert trained == {
        f"transformer_blocks.{i}.{name}"
        for i in range(len(blocks))
        for name in ("loop_emb", "loop_emb_enc", "loop_gate")
    }
    transformer(**make_inputs(transformer)).sample.square().sum().backward()
    assert all(block.loop_gate.grad[1].abs() > 0 for block in blocks)
    assert all(p.grad is None for p in transformer.parameters() if not p.requires_grad)


def test_three_loops_on_cogvideox_2b_add_345690_parameters():
    """30 blocks x 3 loops x (2 embeddings of 1920 + 1 gate)."""
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel()  # diffusers' defaults are the 2B's
    blocks = graft(transformer, 3)
    assert (len(blocks), blocks[0].loop_emb.shape[1]) == (30, 1920)
    assert sum(block.trainable_params() for block in blocks) == 345_690
    assert sum(p.numel() for p in transformer.parameters() if p.requires_grad) == 345_690


@given(st.integers(-3, 9))
def test_the_number_of_loops_is_clamped_to_what_there_is(make_transformer, n):
    block = make_transformer(layers=1).transformer_blocks[0]
    looped = LoopedCogVideoXBlock(block, 0, 3, 16)
    assert looped.current_loops == 1
    looped.set_loops(n)
    assert looped.current_loops == sorted((1, n, 3))[1]


def test_a_block_of_no_loops_is_refused(make_transformer):
    with pytest.raises(ValueError) as error:
        LoopedCogVideoXBlock(make_transformer().transformer_blocks[0], 0, 0, 16)
    assert str(error.value) == "max_loops: expected an int >= 1, got 0"


def test_grafting_twice_is_refused_and_leaves_the_graft_as_it_was(make_transformer):
    transformer = make_transformer()
    blocks = graft(transformer, 2)
    with pytest.raises(GraftError) as error:
        graft(transformer, 2)
    assert str(error.value) == (
        "transformer: expected CogVideoXBlock blocks, got LoopedCogVideoXBlock"
    )
    assert list(transformer.transformer_blocks) == blocks
    assert blocks[0].loop_gate.requires_grad


class Foreign(nn.Module):
    """Another architecture's transformer."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(blocks)


@pytest.mark.parametrize(
    "model, got",
    [(Foreign(nn.Linear(2, 2), nn.GELU()), "GELU, Linear"), (Foreign(), "none")],
)
def test_a_model_of_other_blocks_or_none_is_refused_and_not_frozen(model, got):
    with pytest.raises(GraftError) as error:
        graft(model, 2)
    assert str(error.value) == f"transformer: expected CogVideoXBlock blocks, got {got}"
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_that_is_no_transformer_is_refused():
    with pytest.raises(GraftError):
        graft(nn.Linear(2, 2), 2)
