"""Laws of 8-bit weights: one byte each, off by little, no gradient of their own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from canvas_robot.backbone.byte_weights import ByteLinear, quantise
from canvas_robot.backbone.graft import graft

# Weights uniform in a row have a rounding error of scale / sqrt(12), scale = largest / 127, and a
# size of largest / sqrt(3): 1 / 254 = 0.4% of each product; a block adds a few, bfloat16 as much.
TOLERANCE = 0.02


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


def stored(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.itemsize for t in tensors)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 40), st.integers(1, 40), st.booleans(), st.floats(1e-6, 1e3), st.integers(0, 99)
)
def test_each_weight_is_off_by_half_a_scale_at_most(rows, columns, half, size, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(columns, rows).to(torch.bfloat16 if half else torch.float32)
    with torch.no_grad():
        linear.weight.mul_(size)
        linear.weight[0] = 0
    layer = ByteLinear(linear)
    error = (layer.weight.double() * layer.scale.double()[:, None] - linear.weight.double()).abs()
    # The scale is stored in the weights' format, so that the largest may be cut by its rounding.
    cut = linear.weight.abs().amax(1).double() * torch.finfo(linear.weight.dtype).eps
    assert (error <= torch.maximum(0.5001 * layer.scale.double(), cut)[:, None]).all()
    assert layer.weight.dtype == torch.int8 and layer.weight.abs().max() <= 127
    assert torch.equal(layer(torch.zeros(2, columns, dtype=linear.weight.dtype))[0], linear.bias)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_computes_with_its_dequantised_weights(bias):
    torch.manual_seed(0)
    linear = nn.Linear(24, 10, bias=bias).double().float()
    layer, x = ByteLinear(linear), torch.randn(3, 5, 24)
    expected = nn.functional.linear(x, layer.dequantised(), layer.bias)
    torch.testing.assert_close(layer(x), expected)


def test_int8_stores_one_byte_per_weight_and_a_scale_per_channel():
    linear = nn.Linear(64, 32).to(torch.bfloat16)
    assert stored(linear) == 64 * 32 * 2 + 32 * 2
    assert stored(ByteLinear(linear)) == 64 * 32 + 32 * 2 + 32 * 2


def test_float16_and_weights_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"bfloat16 or float32, got torch\.float16"):
        ByteLinear(nn.Linear(4, 4).half())
    broken = nn.Linear(4, 4)
    broken.weight.data[1, 2] = float("inf")
    with pytest.raises(ValueError, match="expected finite weights"):
        ByteLinear(broken)


def test_attention_and_feed_forward_are_replaced_and_nothing_else(make_transformer):
    transformer = make_transformer(layers=3).to(torch.bfloat16)
    before = {name: p.clone() for name, p in transformer.named_parameters()}
    assert quantise(transformer) == 3 * 6
    layers = {name for name, m in transformer.named_modules() if isinstance(m, ByteLinear)}
    assert {name.split(".", 2)[2] for name in layers} == {
        "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2"
    }  # fmt: skip
    kept = dict(transformer.named_parameters())
    assert all(name.rpartition(".")[0] in layers for name in set(before) - set(kept))
    assert all(torch.equal(kept[name], before[name]) for name in kept)
    assert quantise(transformer) == 0


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantised_transformer_computes_the_same_to_two_per_cent(
    make_transformer, make_inputs, rotary, dtype
):
    torch.manual_seed(0)
    transformer = make_transformer(heads=4, head_dim=16, layers=4)
    transformer.requires_grad_(False)
    inputs = make_inputs(transformer, frames=2)
    if rotary:
        transformer.patch_embed.use_positional_embeddings = False
        inputs["image_rotary_emb"] = torch.randn(2 * 2 * 2, 16), torch.randn(2 * 2 * 2, 16)
    expected = transformer(**inputs).sample
    nn.Module.to(transformer, dtype)
    quantise(transformer)
    cast = {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v
            for k, v in inputs.items()}  # fmt: skip
    assert 1e-4 < relative(transformer(**cast).sample, expected) < TOLERANCE


def test_gradients_reach_the_input_through_the_dequantised_weights():
    torch.manual_seed(0)
    layer, x = ByteLinear(nn.Linear(12, 7)), torch.randn(5, 12, requires_grad=True)
    upstream = torch.randn(5, 7)
    (got,) = torch.autograd.grad(layer(x), x, upstream)
    torch.testing.assert_close(got, upstream @ layer.dequantised())
    assert not list(layer.parameters())


def test_a_gradient_keeps_no_cast_weights_meanwhile():
    layer, x = ByteLinear(nn.Linear(64, 64).bfloat16()), torch.randn(2, 64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x.bfloat16())
    assert {t.dtype for t in kept if t.numel() == 64 * 64} == {torch.int8}


def test_loops_train_on_an_int8_backbone(make_transformer, make_inputs):
    torch.manual_seed(0)
    transformer = make_transformer().requires_grad_(False)
    quantise(transformer)
    looped = graft(transformer, 2)
    transformer(**make_inputs(transformer)).sample.sum().backward()
    assert all(block.loop_gate.grad.abs().sum() > 0 for block in looped)


def test_formats_can_be_moved_without_touching_the_int8_weights():
    layer = ByteLinear(nn.Linear(8, 8).bfloat16())
    weight = layer.weight.clone()
    layer.to(torch.float32)
    assert torch.equal(layer.weight, weight) and layer.scale.dtype == torch.float32


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-6, 1e3), st.integers(0, 99))
def test_a_float8_weight_is_off_by_a_sixteenth_of_itself_at_most(rows, columns, size, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(columns, rows)
    with torch.no_grad():
        linear.weight.mul_(size)
    layer = ByteLinear(linear, torch.float8_e4m3fn)
    weight, scale = linear.weight.double(), layer.scale.double()[:, None]
    error = (layer.weight.double() * scale - weight).abs()
    assert (error <= torch.maximum(weight.abs() / 15.9, 2.0**-10 * scale * 1.001)).all()
    assert layer.weight.dtype == torch.float8_e4m3fn


def test_a_float8_block_computes_nearly_what_the_block_computes(make_transformer, make_inputs):
    transformer = make_transformer(layers=2)
    inputs = make_inputs(transformer)
    expected = transformer(**inputs).sample
    assert quantise(transformer, torch.float8_e4m3fn) == 2 * 6
    assert 0 < relative(transformer(**inputs).sample, expected) < 0.1
