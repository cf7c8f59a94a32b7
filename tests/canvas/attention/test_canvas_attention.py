"""Laws of CanvasAttention: it computes what the mask says, nothing leaks, gates start at 0."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.canvas.attention import CanvasAttention, EdgeOptions
from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS
from canvas_robot.schema import (
    ATTENTION_TYPES,
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    OverlapError,
    RegionSpec,
)
from tests.schema.conftest import executable_schemas

SMALL = EdgeOptions(
    top_k=2, window=(1, 1, 1), latents=3, random_keys=2, routed_keys=4, state_size=4
)
softmax_schemas = executable_schemas(("cross_attention", "none"))


def covered_cells(schema):
    layout = schema.layout
    return sorted(cell for name in layout.regions for cell in layout.region_indices(name))


def softmax_mask(schema):
    """log(weight) of the schema's cross attention over the full canvas, -inf for no edge."""
    layout = schema.layout
    topology = CanvasTopology(
        [
            c
            for c in (schema.topology.connections if schema.topology else [])
            if schema.topology.resolve_fn(c, layout) == "cross_attention"
        ]
    )
    return topology.to_attention_mask(layout).double().log()


def written_out(attention, mask, x):
    """One softmax per row under the dense mask; (B, N, D) in the canvas's order."""
    heads = (attention.n_heads, -1)
    q, k, v = (
        to(x).unflatten(2, heads).transpose(1, 2)
        for to in (attention.to_q, attention.to_k, attention.to_v)
    )
    logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + mask
    speaks = mask.isfinite().any(dim=1, keepdim=True)
    weights = torch.where(speaks, logits, 0.0).softmax(dim=3) * speaks
    return attention.to_out((weights @ v).transpose(1, 2).flatten(2)) * speaks


@settings(deadline=None, max_examples=60)
@given(softmax_schemas, st.integers(1, 2), st.sampled_from([1, 2]), st.integers(0, 2**31))
def test_cross_attention_is_one_softmax_under_the_dense_mask_forward_and_backward(
    schema, batch, heads, seed
):
    torch.manual_seed(seed)
    attention = CanvasAttention(schema, heads).double()
    x = torch.randn(batch, schema.layout.num_positions, 8, dtype=torch.float64, requires_grad=True)
    expected = written_out(attention, softmax_mask(schema), x)
    actual = attention(x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    wanted = [x, *(to.weight for to in (attention.to_q, attention.to_k, attention.to_v))]
    direction = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad(
            (out * direction).sum(), wanted, allow_unused=True, materialize_grads=True
        )
        for out in (actual, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(executable_schemas(), st.integers(0, 2**31))
def test_the_full_canvas_and_the_covered_tokens_alone_give_the_same(schema, seed):
    torch.manual_seed(seed)
    attention = opened(CanvasAttention(schema, 2, options=SMALL))
    x = torch.randn(2, schema.layout.num_positions, 8)
    full = attention(x)
    cells = covered_cells(schema)
    torch.testing.assert_close(full[:, cells], attention(x[:, cells]))
    uncovered = sorted(set(range(schema.layout.num_positions)) - set(cells))
    assert not full[:, uncovered].any()


def opened(attention):
    """With every gate away from 0, so that edges speak."""
    if attention.edges is not None:
        with torch.no_grad():
            attention.edges.gates.fill_(0.7)
    return attention


@settings(deadline=None, max_examples=60)
@given(executable_schemas(), st.data())
def test_changing_a_token_moves_only_its_declared_readers(schema, data):
    torch.manual_seed(0)
    attention = opened(CanvasAttention(schema, 2, options=SMALL)).double()
    topology = schema.topology or CanvasTopology()
    running = [
        c
        for c in topology.connections
        if c.weight > 0 and topology.resolve_fn(c, schema.layout) != "none"
    ]
    readers = CanvasTopology(running).to_attention_mask(schema.layout)
    cell = data.draw(st.sampled_from(covered_cells(schema)))
    x = torch.randn(1, schema.layout.num_positions, 8, dtype=torch.float64)
    other = x.clone()
    other[:, cell] += 1.0
    moved = (attention(x) - attention(other)).abs().amax(dim=(0, 2)) > 0
    may_move = readers[:, cell] > 0
    may_move[cell] = True  # its own query
    assert not (moved & ~may_move).any()


OFFSETS = [(None, None), (0, 0), (0, -1), (None, 1), (1, None)]


def pair_schema(fn, t_src=None, t_dst=None, weight=1.0):
    """Region "a" reads region "b" of equal shape by one type; "c" lies apart."""
    layout = CanvasLayout(
        3, 2, 8, 16, {"a": (0, 3, 0, 2, 0, 3), "b": (0, 3, 0, 2, 3, 6), "c": (0, 3, 0, 2, 6, 8)}
    )
    edge = Connection("a", "b", weight=weight, t_src=t_src, t_dst=t_dst, fn=fn)
    return CanvasSchema(layout, CanvasTopology([edge]))


@pytest.mark.parametrize("t_src, t_dst", OFFSETS)
@pytest.mark.parametrize("fn", sorted(set(ATTENTION_TYPES) - {"none"}))
def test_every_type_keeps_time_offsets_and_reads_all_that_they_allow(fn, t_src, t_dst):
    """Wide open functions read every allowed row; those that choose may read fewer."""
    if fn == "copy" and None in (t_src, t_dst) and (t_src, t_dst) != (None, None):
        t_src = t_dst = None  # one step for all steps of the other side: boxes of another shape
    torch.manual_seed(0)
    schema = pair_schema(fn, t_src, t_dst)
    wide = EdgeOptions(top_k=99, window=(9, 9, 9), random_keys=99, routed_keys=99, latents=4)
    attention = opened(CanvasAttention(schema, 2, options=wide)).double()
    layout = schema.layout
    allowed = schema.topology.to_attention_mask(layout) > 0
    x = torch.randn(1, layout.num_positions, 16, dtype=torch.float64)
    base = attention(x)
    for cell in layout.region_indices("b"):
        other = x.clone()
        other[:, cell] += torch.randn(16, dtype=torch.float64)
        moved = (attention(other) - base).abs().amax(dim=(0, 2)) > 0
        assert not (moved & ~allowed[:, cell]).any()
        if fn != "copy":
            assert torch.equal(moved, allowed[:, cell])
        else:
            assert moved.any() == allowed[:, cell].any()


@pytest.mark.parametrize("fn", sorted(EDGE_FUNCTIONS))
def test_gates_learn_at_the_first_step_and_the_rest_from_the_second(fn):
    torch.manual_seed(0)
    attention = CanvasAttention(pair_schema(fn, weight=0.5), 2, options=SMALL)
    x, target = torch.randn(2, 2, 48, 16)
    assert not attention(x).any(), "closed gates add nothing, and nobody reads by softmax"
    (edge,) = attention.edges.functions
    optimiser = torch.optim.SGD(attention.parameters(), lr=0.5)

    def gradients():
        optimiser.zero_grad()
        (attention(x) - target).square().mean().backward()
        inner = [p.grad.abs().max().item() for p in edge.parameters()]
        return attention.edges.gates.grad.abs().max().item(), inner

    gate, inner = gradients()
    assert gate > 0 and not any(inner)
    optimiser.step()
    _, inner = gradients()
    assert all(inner)


def test_an_edges_weight_scales_what_it_adds():
    x = torch.randn(1, 48, 16)
    light, heavy = (
        opened(CanvasAttention(pair_schema("pooling", weight=weight), 2))(x)
        for weight in (0.5, 2.0)
    )
    torch.testing.assert_close(4 * light, heavy)
    assert light.any()


def test_none_and_weight_0_are_no_edges():
    x = torch.randn(1, 48, 16)
    for schema in (pair_schema("none"), pair_schema("cross_attention", weight=0.0)):
        attention = CanvasAttention(schema, 2)
        assert attention.edges is None and not attention(x).any()


def test_regions_that_overlap_are_refused():
    layout = CanvasLayout(1, 1, 3, 8, {"a": (0, 1, 0, 1, 0, 2), "b": (0, 1, 0, 1, 1, 3)})
    with pytest.raises(OverlapError, match=r"'a' and 'b' overlap.*\(0, 0, 1\)"):
        CanvasAttention(CanvasSchema(layout), 2)


def test_wrong_heads_tokens_and_options_are_refused_by_what_was_expected():
    schema = pair_schema("gated")
    with pytest.raises(ValueError) as error:
        CanvasAttention(schema, 3)
    assert str(error.value) == "n_heads: expected a divisor of the schema's d_model 16, got 3"
    layout = CanvasLayout(1, 1, 3, 8, {"a": (0, 1, 0, 1, 0, 2)})
    with pytest.raises(ValueError) as error:
        CanvasAttention(CanvasSchema(layout), 2)(torch.zeros(1, 4, 8))
    assert str(error.value) == (
        "x: expected (B, 3, d_model), the full canvas, or (B, 2, d_model), its covered cells; "
        "got (1, 4, 8)"
    )
    schema.metadata["attention"] = {"top_q": 4}
    with pytest.raises(ValueError, match=r"schema: metadata.attention: .*top_q"):
        CanvasAttention(schema, 2)
    with pytest.raises(ValueError, match="expected at least one region"):
        CanvasAttention(CanvasSchema(CanvasLayout(1, 1, 1, 8)), 2)


def test_the_schemas_metadata_sizes_its_functions_and_an_argument_wins():
    schema = pair_schema("perceiver")
    schema.metadata["attention"] = {"latents": 5}
    sizes = [
        {p.shape[0] for p in attention.edges.functions[0].parameters()}
        for attention in (
            CanvasAttention(schema, 2),
            CanvasAttention(schema, 2, options=EdgeOptions(latents=6)),
        )
    ]
    assert 5 in sizes[0] and 6 not in sizes[0]
    assert 6 in sizes[1] and 5 not in sizes[1]


def test_region_names_may_hold_dots_and_partly_filled_regions_read_only_what_is_there():
    layout = CanvasLayout(1, 1, 4, 8, {"agent.a": (0, 1, 0, 1, 0, 2), "b": (0, 1, 0, 1, 2, 4)})
    schema = CanvasSchema(layout, CanvasTopology([Connection("agent.a", "b")]))
    attention = CanvasAttention(schema, 2, tokens={"b": 1})
    x = torch.randn(1, 4, 8)
    other = x.clone()
    other[:, 3] = 5.0  # not covered
    assert torch.equal(attention(x), attention(other))
    assert attention(x[:, :3]).shape == (1, 3, 8)


def test_a_default_function_type_of_a_region_runs():
    layout = CanvasLayout(
        1,
        1,
        4,
        8,
        {"a": RegionSpec((0, 1, 0, 1, 0, 2), default_attn="pooling"), "b": (0, 1, 0, 1, 2, 4)},
    )
    schema = CanvasSchema(layout, CanvasTopology([Connection("a", "b")]))
    x = torch.randn(1, 4, 8)
    out = opened(CanvasAttention(schema, 2))(x)
    torch.testing.assert_close(out[:, 0], 0.7 * x[:, 2:].mean(dim=1))
