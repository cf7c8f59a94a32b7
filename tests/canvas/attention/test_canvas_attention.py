"""Laws of CanvasAttention: it computes what the mask says, nothing leaks, gates start at 0."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.canvas.attention import CanvasAttention, EdgeOptions
from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS, chunks
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
    q, k, v = (part.transpose(1, 2) for part in attention.project(x))
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
    wanted = [x, attention.to_qkv.weight]
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


def refused(function, *args, **kwargs):
    with pytest.raises(ValueError) as error:
        function(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize("n_heads", [3, 0, -1, 32, 2.0, True, "4", None])
def test_heads_that_do_not_divide_the_width_or_are_no_int_are_refused(n_heads):
    assert refused(CanvasAttention, pair_schema("gated"), n_heads) == (
        f"n_heads: expected an int that divides the schema's d_model 16, got {n_heads!r}"
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"tokens": ["a"]}, "tokens: expected a dict of region names to ints, got ['a']"),
        ({"tokens": {"a": 2.0}}, "tokens: region 'a': expected an int, got 2.0"),
        ({"tokens": {"a": True}}, "tokens: region 'a': expected an int, got True"),
        ({"tokens": {"a": None}}, "tokens: region 'a': expected an int, got None"),
        ({"options": {"latents": 3}}, "options: expected EdgeOptions, got {'latents': 3}"),
    ],
)
def test_tokens_and_options_of_another_type_are_refused(arguments, message):
    assert refused(CanvasAttention, pair_schema("gated"), 2, **arguments) == message


def test_a_schema_without_regions_with_unknown_options_or_that_is_none_is_refused():
    schema = pair_schema("gated")
    assert refused(CanvasAttention, schema.layout, 2) == (
        "schema: expected a CanvasSchema, got CanvasLayout"
    )
    empty = CanvasSchema(CanvasLayout(1, 1, 1, 8))
    assert "expected at least one region" in refused(CanvasAttention, empty, 2)
    schema.metadata["attention"] = {"top_q": 4}
    assert "metadata.attention: unknown options ['top_q']" in refused(CanvasAttention, schema, 2)


@pytest.mark.parametrize("shape", [(1, 4, 8), (1, 3, 7), (3, 8), (8,), (), (1, 1, 3, 8)])
def test_tokens_of_another_shape_are_refused(shape):
    layout = CanvasLayout(1, 1, 3, 8, {"a": (0, 1, 0, 1, 0, 2)})
    assert refused(CanvasAttention(CanvasSchema(layout), 2), torch.zeros(shape)) == (
        f"x: expected (B, 3, 8), the full canvas, or (B, 2, 8), its covered cells; got {shape}"
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.complex64])
def test_tokens_of_another_type_than_the_parameters_are_refused(dtype):
    attention = CanvasAttention(pair_schema("gated"), 2)
    assert refused(attention, torch.zeros(1, 48, 16, dtype=dtype)) == (
        f"x: expected torch.float32, as the parameters are, got {dtype}; "
        "convert x, or the module by .to(dtype)"
    )
    assert refused(attention, [[0.0]]) == "x: expected a tensor, got list"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if dtype == torch.float16:
            attention(torch.zeros(1, 48, 16, dtype=dtype))
        else:
            refused(attention, torch.zeros(1, 48, 16, dtype=dtype))


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


def both_schema(fn):
    """ "a" reads "b" by one type and itself by the softmax, with weights to shift its logits by."""
    schema = pair_schema(fn, weight=0.5)
    own = [Connection("a", "a"), Connection("a", "b", weight=2.0, fn="cross_attention")]
    return CanvasSchema(schema.layout, CanvasTopology([*schema.topology.connections, *own]))


CHOOSING = {"sparse_attention", "mixture"}  # rounding moves which rows they choose
every_type = pytest.mark.parametrize("fn", sorted(set(ATTENTION_TYPES) - {"none"}))


@every_type
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_every_type_gives_its_type_and_trains_in_float32(fn, dtype):
    torch.manual_seed(0)
    attention = opened(CanvasAttention(both_schema(fn), 2, options=SMALL))
    x = torch.randn(2, 48, 16, requires_grad=True)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            out = attention(x)
        attention.zero_grad()
        out.float().square().sum().backward()
        results.append((out, [p.grad for p in attention.parameters()]))
    (exact, _), (out, gradients) = results
    assert out.dtype == dtype
    if fn not in CHOOSING:
        torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.05)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    assert attention.edges is None or attention.edges.gates.grad.any()


@every_type
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(fn):
    attention = opened(CanvasAttention(both_schema(fn), 2, options=SMALL))
    x = torch.zeros(0, 48, 16, requires_grad=True)
    out = attention(x)
    assert out.shape == (0, 48, 16)
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert not any(p.grad.any() for p in attention.parameters() if p.grad is not None)


@every_type
@pytest.mark.parametrize("emptied", [False, True], ids=["assigned", "emptied and filled"])
def test_one_made_on_the_meta_device_equals_the_one_that_it_is_loaded_from(fn, emptied):
    attention = opened(CanvasAttention(both_schema(fn), 2, options=SMALL))
    with torch.device("meta"):
        empty = CanvasAttention(both_schema(fn), 2, options=SMALL)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    if emptied:
        empty.to_empty(device="cpu")
    empty.load_state_dict(attention.state_dict(), assign=not emptied)
    x = torch.randn(1, 48, 16)
    assert torch.equal(empty(x), attention(x))


@every_type
def test_it_runs_on_the_meta_device_and_saves_parameters_only(fn):
    attention = CanvasAttention(both_schema(fn), 2, options=SMALL)
    assert set(attention.state_dict()) == {name for name, _ in attention.named_parameters()}
    out = attention.to("meta")(torch.zeros(2, 48, 16, device="meta"))
    assert out.shape == (2, 48, 16)


@every_type
def test_one_that_was_on_the_meta_device_computes_as_before(fn):
    attention = opened(CanvasAttention(both_schema(fn), 2, options=SMALL))
    state, x = attention.state_dict(), torch.randn(1, 48, 16)
    before = attention(x)
    state = {name: tensor.clone() for name, tensor in state.items()}
    attention.to("meta").to("meta").double()
    attention = copy.deepcopy(attention).to_empty(device="cpu").float()
    attention.load_state_dict(state)
    assert torch.equal(attention(x), before)


@pytest.mark.parametrize("first", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_stay_exact_in_whatever_type_the_module_was_before(first):
    torch.manual_seed(0)
    layout = CanvasLayout(1, 1, 8, 8, {"a": (0, 1, 0, 1, 0, 4), "b": (0, 1, 0, 1, 4, 8)})
    connections = [Connection("a", "a", weight=3 / 4096), Connection("a", "b", weight=0.375)]
    schema = CanvasSchema(layout, CanvasTopology(connections))
    attention = CanvasAttention(schema, 2).to(first).double()
    x = torch.randn(2, 8, 8, dtype=torch.float64)
    expected = written_out(attention, softmax_mask(schema), x)
    torch.testing.assert_close(attention(x), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_weights_are_not_rounded_to_it(dtype):
    """All keys are alike, so that the result is the ratio of the weights."""
    layout = CanvasLayout(1, 1, 2, 8, {"a": (0, 1, 0, 1, 0, 1), "b": (0, 1, 0, 1, 1, 2)})
    weights = 3e-29, 1e-29
    topology = CanvasTopology(
        [Connection("a", name, weight=w) for name, w in zip("ab", weights, strict=True)]
    )
    softmax = CanvasAttention(CanvasSchema(layout, topology), 1).softmax
    q, k = torch.zeros(2, 1, 2, 1, 64, dtype=dtype)
    v = torch.tensor([1.0, 0.0], dtype=dtype)[None, :, None, None].expand_as(k)
    torch.testing.assert_close(softmax(q, k, v)[:, 0], torch.full_like(q[:, 0], 0.75))


@settings(deadline=None, max_examples=30)
@given(softmax_schemas, st.sampled_from([1, 100, 300]))
def test_a_few_groups_at_a_time_or_all_at_once_give_the_same(schema, elements):
    torch.manual_seed(0)
    attention = CanvasAttention(schema, 2)
    x = torch.randn(2, schema.layout.num_positions, 8)
    at_once = attention(x)  # with gradients nothing is cut
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CPU_CHUNK_ELEMENTS", elements)
        torch.testing.assert_close(attention(x), at_once.detach())
