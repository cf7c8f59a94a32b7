"""Laws of LoopedBlockWrapper: canvas-engineering's numbers, its defaults, and what it refuses."""

import copy
import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from canvas_robot.backbone.looped_wrapper import LoopedBlockWrapper


class Block(nn.Module):
    """Hidden states (..., width) in and out; counts its runs."""

    def __init__(self, width=8, dropout=0.0):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.runs = 0

    def forward(self, x, shift=0.0, *, scale=1.0):
        self.runs += 1
        return self.dropout(torch.tanh(self.linear(x)) * scale + shift)


class TwoOutputs(Block):
    def forward(self, x, **kwargs):
        return super().forward(x, **kwargs), x.mean(-1), None


def randomise(looped, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        looped.loop_emb.normal_(generator=generator)
        looped.loop_gate.normal_(generator=generator)
    return looped


def written_out(looped, x, *args, **kwargs):
    """h = gate * block(h + e_l) + (1 - gate) * h with gate = sigmoid(g_l)."""
    for loop in range(looped.current_loops):
        gate = torch.sigmoid(looped.loop_gate[loop])
        new = looped.original(x + looped.loop_emb[loop], *args, **kwargs)
        x = gate * new + (1 - gate) * x
    return x


def test_the_arguments_are_canvas_engineerings_and_ours_by_keyword():
    parameters = inspect.signature(LoopedBlockWrapper).parameters
    assert [(n, p.default) for n, p in parameters.items() if p.kind is not p.KEYWORD_ONLY] == [
        ("original", inspect.Parameter.empty),
        ("block_idx", 0),
        ("max_loops", 4),
        ("embed_dim", 256),
        ("gate_init_bias", 0.0),
        ("use_gradient_checkpointing", True),
    ]


def test_it_starts_at_one_loop_with_zero_embeddings_and_gates_at_their_bias():
    looped = LoopedBlockWrapper(Block(), max_loops=3, embed_dim=8, gate_init_bias=-1.5)
    assert looped.current_loops == 1 and looped.gate == "sigmoid"
    assert torch.equal(looped.loop_emb, torch.zeros(3, 8))
    assert torch.equal(looped.loop_gate, torch.full((3, 1), -1.5))
    assert looped.trainable_params() == 27
    own = {name for name in looped.state_dict() if not name.startswith("original.")}
    assert own == {"loop_emb", "loop_gate"}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.sampled_from([(8,), (3, 8), (2, 3, 8), (2, 1, 3, 8)]), st.booleans())
def test_it_computes_the_gated_loops_as_written_out(loops, shape, checkpointing):
    looped = LoopedBlockWrapper(Block(), embed_dim=8, use_gradient_checkpointing=checkpointing)
    randomise(looped).set_loops(loops)
    x = torch.randn(shape)
    for arguments in (((), {}), ((0.5,), {"scale": 2.0})):
        expected = written_out(looped, x, *arguments[0], **arguments[1])
        assert torch.equal(looped(x, *arguments[0], **arguments[1]), expected)


def test_the_hidden_states_can_be_named():
    looped = LoopedBlockWrapper(Block(), embed_dim=8)
    x = torch.randn(2, 8)
    assert torch.equal(looped(hidden_states=x, scale=2.0), looped(x, scale=2.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_loop_parameters_are_float32_and_cast_at_use(dtype):
    looped = randomise(LoopedBlockWrapper(Block().to(dtype), embed_dim=8))
    looped.set_loops(2)
    y = looped(torch.randn(2, 8, dtype=dtype))
    y.float().sum().backward()
    assert y.dtype == dtype
    for parameter in (looped.loop_emb, looped.loop_gate):
        assert parameter.dtype == parameter.grad.dtype == torch.float32


def test_loop_parameters_are_float32_whatever_the_default_is():
    torch.set_default_dtype(torch.float64)
    try:
        looped = LoopedBlockWrapper(Block(), embed_dim=8)
    finally:
        torch.set_default_dtype(torch.float32)
    assert looped.loop_emb.dtype == looped.loop_gate.dtype == torch.float32


def test_loop_parameters_stand_where_the_block_stands():
    looped = LoopedBlockWrapper(nn.Linear(8, 8, device="meta"), embed_dim=8)
    assert looped.loop_emb.device.type == looped.loop_gate.device.type == "meta"


# ---------------------------------------------------------------- gradient checkpointing


@pytest.mark.parametrize("gate", ["identity", "sigmoid"])
@pytest.mark.parametrize("kind", [Block, TwoOutputs])
def test_checkpointing_recomputes_each_loop_once_and_changes_no_gradient(gate, kind):
    def step(checkpointing):
        looped = LoopedBlockWrapper(
            kind(dropout=0.3), 0, 3, 8, 0.0, checkpointing, gate=gate, keep_outputs=True
        )
        torch.nn.init.ones_(looped.linear.weight)
        torch.nn.init.zeros_(looped.linear.bias)
        randomise(looped).set_loops(3)
        torch.manual_seed(1)
        y = looped(torch.linspace(-1, 1, 16).reshape(2, 8))
        outputs = [t for t in (y if isinstance(y, tuple) else (y,)) if t is not None]
        sum(t.square().sum() for t in outputs).backward()
        return looped.original.runs, [p.grad for p in looped.parameters()]

    plain_runs, expected = step(False)
    runs, got = step(True)
    assert (plain_runs, runs) == (3, 6)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("loops, grad", [(1, True), (3, False)])
def test_one_loop_or_no_gradients_recompute_nothing(loops, grad):
    looped = LoopedBlockWrapper(Block(), embed_dim=8)
    looped.set_loops(loops)
    with torch.set_grad_enabled(grad):
        y = looped(torch.ones(2, 8))
    if grad:
        y.sum().backward()
    assert looped.original.runs == loops


def test_checkpointing_inside_a_checkpoint_gives_the_same_gradients():
    looped = randomise(LoopedBlockWrapper(Block(), embed_dim=8))
    looped.set_loops(3)
    x = torch.randn(2, 8, requires_grad=True)

    def gradients(call):
        return torch.autograd.grad(call(x).sum(), [x, *looped.parameters()])

    nested = gradients(lambda x: torch.utils.checkpoint.checkpoint(looped, x, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(nested, gradients(looped), strict=True))


# ---------------------------------------------------------------- what the block returns


def test_of_a_tuple_the_hidden_states_alone_come_back_as_from_canvas_engineering():
    looped = randomise(LoopedBlockWrapper(TwoOutputs(), embed_dim=8))
    looped.set_loops(3)
    alone = LoopedBlockWrapper(Block(), embed_dim=8)
    alone.load_state_dict(looped.state_dict())
    alone.set_loops(3)
    x = torch.randn(2, 3, 8)
    assert torch.equal(looped(x), alone(x))


def test_kept_outputs_are_mixed_from_the_second_loop_on_as_the_hidden_states_are():
    looped = randomise(LoopedBlockWrapper(TwoOutputs(), embed_dim=8, keep_outputs=True))
    looped.set_loops(2)
    x = torch.randn(2, 3, 8)
    w = torch.sigmoid(looped.loop_gate)
    inputs = [x + looped.loop_emb[0]]
    hidden = w[0] * looped.original(inputs[0])[0] + (1 - w[0]) * x
    inputs.append(hidden + looped.loop_emb[1])
    first, second = (i.mean(-1) for i in inputs)
    got = looped(x)
    assert isinstance(got, tuple) and len(got) == 3 and got[2] is None
    torch.testing.assert_close(got[0], w[1] * looped.original(inputs[1])[0] + (1 - w[1]) * hidden)
    torch.testing.assert_close(got[1], w[1] * second + (1 - w[1]) * first)


def test_a_tuple_of_one_stays_a_tuple_where_outputs_are_kept():
    class One(Block):
        def forward(self, x):
            return (super().forward(x),)

    (y,) = LoopedBlockWrapper(One(), embed_dim=8, keep_outputs=True)(torch.ones(2, 8))
    assert y.shape == (2, 8)


# ---------------------------------------------------------------- the block's attributes


def test_attributes_it_lacks_are_the_blocks_and_others_are_refused():
    looped = LoopedBlockWrapper(Block(), embed_dim=8)
    assert looped.linear is looped.original.linear and looped.runs == 0
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'nothing'"):
        looped.nothing  # noqa: B018


def test_a_copy_is_independent_and_computes_the_same():
    looped = randomise(LoopedBlockWrapper(Block(), embed_dim=8))
    twin = copy.deepcopy(looped)
    x = torch.randn(2, 8)
    assert torch.equal(twin(x), looped(x))
    with torch.no_grad():
        twin.loop_emb.zero_()
    assert looped.loop_emb.any()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"max_loops": 0}, "max_loops: expected an int >= 1, got 0"),
        ({"max_loops": 2.0}, "max_loops: expected an int >= 1, got 2.0"),
        ({"embed_dim": True}, "embed_dim: expected an int >= 1, got True"),
        ({"gate": "soft"}, "gate: expected one of ('identity', 'sigmoid'), got 'soft'"),
        (
            {"gate": "identity", "gate_init_bias": 1.0},
            "gate_init_bias: expected 0.0 for gate 'identity', got 1.0",
        ),
        ({"gate_init_bias": math.nan}, "gate_init_bias: expected a finite number, got nan"),
        ({"gate_init_bias": -math.inf}, "gate_init_bias: expected a finite number, got -inf"),
        ({"gate_init_bias": True}, "gate_init_bias: expected a finite number, got True"),
        ({"gate_init_bias": "0"}, "gate_init_bias: expected a finite number, got '0'"),
        (
            {"gate": "identity", "gate_init_bias": None},
            "gate_init_bias: expected a finite number, got None",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        LoopedBlockWrapper(Block(), **arguments)
    assert str(error.value) == message


@given(st.integers(1, 9))
def test_the_number_of_loops_is_clamped_to_what_there_is(n):
    looped = LoopedBlockWrapper(Block(), max_loops=3, embed_dim=8)
    looped.set_loops(n)
    assert looped.current_loops == min(n, 3)


@pytest.mark.parametrize("n", [0, -1, 1.0, False, None])
def test_a_number_of_loops_that_is_none_is_refused(n):
    with pytest.raises(ValueError) as error:
        LoopedBlockWrapper(Block(), embed_dim=8).set_loops(n)
    assert str(error.value) == f"loops: expected an int >= 1, got {n!r}"


@pytest.mark.parametrize("shape", [(2, 7), (2, 1), ()])
def test_hidden_states_of_another_width_are_refused_never_broadcast(shape):
    looped = LoopedBlockWrapper(Block(), block_idx=4, embed_dim=8)
    with pytest.raises(ValueError) as error:
        looped(torch.zeros(shape))
    assert str(error.value) == (
        f"looped block 4 (Block): expected hidden states (..., 8), got {shape}; "
        "wrap it with embed_dim, or graft with inner_dim, of their width"
    )


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


@pytest.mark.parametrize(
    "value, kind, message",
    [
        ({"h": 1}, TypeError, "expected a tensor, or a tuple that begins with one, from the block"),
        (
            (None, 1),
            TypeError,
            "expected a tensor, or a tuple that begins with one, from the block",
        ),
        (torch.zeros(1, 8), ValueError, "expected hidden states (2, 8) from the block, as it was"),
    ],
)
def test_a_block_that_returns_something_else_is_refused(value, kind, message):
    with pytest.raises(kind) as error:
        LoopedBlockWrapper(Returns(value), embed_dim=8)(torch.zeros(2, 8))
    assert str(error.value).startswith(f"looped block 0 (Returns): {message}")


def test_nested_tensors_are_refused_with_the_remedy():
    """What nn.TransformerEncoder makes of a padding mask when it is not told otherwise."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1).eval()
    encoder.layers[0] = LoopedBlockWrapper(encoder.layers[0], embed_dim=8)
    padding = torch.tensor([[False, False, True]])
    with (
        torch.no_grad(),
        pytest.warns(UserWarning, match="nested tensors"),
        pytest.raises(ValueError) as error,
    ):
        encoder(torch.zeros(1, 3, 8), src_key_padding_mask=padding)
    assert str(error.value).endswith(
        "make the nn.TransformerEncoder with enable_nested_tensor=False"
    )
