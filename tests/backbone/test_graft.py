"""Laws of the graft: a fresh one changes nothing and trains only its loops."""

import copy
import inspect

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from canvas_robot.backbone.action_head import ActionHead
from canvas_robot.backbone.graft import GraftError, graft, graft_looped_blocks
from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.backbone.looped_wrapper import LoopedBlockWrapper

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
    blocks, _ = graft_looped_blocks(transformer, max_loops=3)
    assert (len(blocks), blocks[0].loop_emb.shape[1]) == (30, 1920)
    assert sum(block.trainable_params() for block in blocks) == 345_690
    assert sum(p.numel() for p in transformer.parameters() if p.requires_grad) == 345_690


@given(st.integers(1, 9))
def test_the_number_of_loops_is_clamped_to_what_there_is(make_transformer, n):
    block = make_transformer(layers=1).transformer_blocks[0]
    looped = LoopedCogVideoXBlock(block, 0, 3, 16)
    assert looped.current_loops == 1
    looped.set_loops(n)
    assert looped.current_loops == min(n, 3)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, None, "2"])
def test_a_number_of_loops_that_is_none_is_refused_and_leaves_the_old_one(make_transformer, n):
    looped = LoopedCogVideoXBlock(make_transformer().transformer_blocks[0], 0, 3, 16)
    looped.set_loops(2)
    with pytest.raises(ValueError) as error:
        looped.set_loops(n)
    assert str(error.value) == f"loops: expected an int >= 1, got {n!r}"
    assert looped.current_loops == 2


def test_a_block_of_no_loops_is_refused(make_transformer):
    with pytest.raises(ValueError) as error:
        LoopedCogVideoXBlock(make_transformer().transformer_blocks[0], 0, 0, 16)
    assert str(error.value) == "max_loops: expected an int >= 1, got 0"


# ---------------------------------------------------------------- graft_looped_blocks


class Block(nn.Module):
    """A pre-norm block of another architecture; returns a tensor."""

    def __init__(self, width=8):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x, scale=1.0):
        return x + scale * self.linear(self.norm(x))


class TwoOutputs(Block):
    """Returns the hidden states, its attention-like weights, and something that is no tensor."""

    def forward(self, x, scale=1.0):
        return super().forward(x, scale), self.norm(x).softmax(-1), "cache"


class Model(nn.Module):
    """Another architecture's transformer; `patch_embed` is its first layer."""

    def __init__(self, *blocks: nn.Module, width=8) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(3, width)
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Linear(width, 2)

    def forward(self, x):
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x, scale=0.5)
            x = x if isinstance(x, torch.Tensor) else x[0] + x[1]
        return self.out(x)


def model_of(kind=Block, n=2):
    torch.manual_seed(0)
    return Model(*(kind() for _ in range(n)))


def frozen_state(model):
    """Everything that a refused graft has to leave as it was."""
    return [type(m) for m in model.modules()], [p.requires_grad for p in model.parameters()]


def test_the_arguments_are_canvas_engineerings_and_the_gate():
    parameters = inspect.signature(graft_looped_blocks).parameters
    defaults = {name: p.default for name, p in parameters.items()}
    assert list(defaults.items()) == [
        ("transformer", inspect.Parameter.empty),
        ("max_loops", 3),
        ("block_attr", "transformer_blocks"),
        ("wrapper_class", None),
        ("inner_dim", None),
        ("action_dim", 7),
        ("latent_channels", 16),
        ("freeze", "full"),
        ("gate", "identity"),
    ]


def test_the_looped_blocks_stand_in_the_model_at_one_loop_and_the_head_has_the_given_sizes(
    make_transformer,
):
    transformer = make_transformer(layers=3)
    originals = list(transformer.transformer_blocks)
    blocks, head = graft_looped_blocks(transformer, action_dim=5, latent_channels=4)
    assert list(transformer.transformer_blocks) == blocks
    assert [block.original for block in blocks] == originals
    assert [block.block_idx for block in blocks] == [0, 1, 2]
    assert all(type(block) is LoopedCogVideoXBlock for block in blocks)
    assert {(block.current_loops, block.max_loops) for block in blocks} == {(1, 3)}
    assert not any(module.training for module in transformer.modules())  # as it was
    assert type(head) is ActionHead and head(torch.zeros(2, 4)).shape == (2, 5)


@pytest.mark.parametrize("kind", [Block, TwoOutputs])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_fresh_graft_of_any_model_equals_it_bit_for_bit_at_any_loop_count(kind, dtype):
    model = model_of(kind).to(dtype)
    grafted = copy.deepcopy(model)
    blocks, _ = graft_looped_blocks(grafted, block_attr="blocks")
    assert all(type(block) is LoopedBlockWrapper for block in blocks)
    x = torch.randn(2, 5, 3, dtype=dtype)
    for loops in (1, 2, 3):
        for block in blocks:
            block.set_loops(loops)
            assert block.loop_emb.dtype == block.loop_gate.dtype == torch.float32
        assert torch.equal(grafted(x), model(x))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_fresh_graft_of_torchs_own_encoder_equals_it_bit_for_bit(batch_first, training):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(training)
    grafted = copy.deepcopy(encoder)
    blocks, _ = graft_looped_blocks(grafted, block_attr="layers")
    x = torch.randn(4, 4, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    with torch.no_grad():
        for loops in (1, 3):
            for block in blocks:
                block.set_loops(loops)
            assert torch.equal(grafted(x), encoder(x))
            assert torch.equal(grafted(x, mask=mask), encoder(x, mask=mask))


def test_a_fresh_graft_equals_the_model_under_autocast():
    model = model_of()
    grafted = copy.deepcopy(model)
    for block in graft_looped_blocks(grafted, block_attr="blocks")[0]:
        block.set_loops(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(grafted(torch.ones(2, 3)), model(torch.ones(2, 3)))


def test_a_graft_of_sigmoid_gates_starts_at_one_half_and_without_embeddings(make_transformer):
    for transformer, block_attr in (
        (make_transformer(), "transformer_blocks"),
        (model_of(), "blocks"),
    ):
        blocks, _ = graft_looped_blocks(transformer, block_attr=block_attr, gate="sigmoid")
        for block in blocks:
            assert not any(p.any() for p in (block.loop_emb, block.loop_gate))
            assert block.gate == "sigmoid"


def test_the_sigmoid_gate_mixes_both_streams_of_cogvideox(make_transformer):
    """h = sigmoid(g) block(h + e) + (1 - sigmoid(g)) h, written out."""
    torch.manual_seed(0)
    block = make_transformer(layers=1).transformer_blocks[0]
    looped = LoopedCogVideoXBlock(block, 0, 2, 16, gate="sigmoid")
    looped.set_loops(2)
    with torch.no_grad():
        for parameter in (looped.loop_emb, looped.loop_emb_enc, looped.loop_gate):
            parameter.normal_()
        streams = video, text = torch.randn(1, 4, 16), torch.randn(1, 3, 16)
        temb = torch.randn(1, 16)
        for loop in range(2):
            new = block(video + looped.loop_emb[loop], text + looped.loop_emb_enc[loop], temb)
            w = torch.sigmoid(looped.loop_gate[loop])
            video, text = (w * n + (1 - w) * h for n, h in zip(new, (video, text), strict=True))
        got = looped(*streams, temb)
    assert torch.equal(got[0], video) and torch.equal(got[1], text)


def test_full_trains_only_the_loops_half_all_but_the_embeddings_none_leaves_all_as_it_was():
    loops = {f"blocks.{i}.{name}" for i in range(2) for name in ("loop_emb", "loop_gate")}
    names = {freeze: set() for freeze in ("full", "half", "none")}
    for freeze, trained in names.items():
        model = model_of()
        model.out.requires_grad_(False)
        graft_looped_blocks(model, block_attr="blocks", freeze=freeze)
        trained |= {name for name, p in model.named_parameters() if p.requires_grad}
        every = {name for name, _ in model.named_parameters()}
    assert names["full"] == loops
    assert names["half"] == every - {"patch_embed.weight", "patch_embed.bias"}
    assert names["none"] == every - {"out.weight", "out.bias"}


# ---------------------------------------------------------------- the width


def test_the_width_is_that_of_the_layer_norms_block_by_block():
    class Narrowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(Block(8), Block(6))

    blocks, _ = graft_looped_blocks(Narrowing(), block_attr="blocks")
    assert [block.embed_dim for block in blocks] == [8, 6]


@pytest.mark.parametrize(
    "block, found",
    [
        (nn.Linear(8, 8), "no layer norms"),
        (
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4), nn.RMSNorm(4), nn.Linear(4, 8)),
            "layer norms over (4,), (8,)",
        ),
        (nn.LayerNorm((2, 8)), "layer norms over (2, 8)"),
    ],
)
def test_an_uncertain_width_is_refused_until_it_is_given(block, found):
    model = Model(Block(), block)
    before = frozen_state(model)
    with pytest.raises(GraftError) as error:
        graft_looped_blocks(model, block_attr="blocks")
    kind = type(block).__name__
    assert str(error.value) == (
        f"inner_dim: the width of block 1 ({kind}) is not certain, it has {found}; pass inner_dim"
    )
    assert frozen_state(model) == before
    blocks, _ = graft_looped_blocks(model, block_attr="blocks", inner_dim=8)
    assert blocks[1].loop_emb.shape == (3, 8)


def test_another_width_than_the_backbones_is_refused(make_transformer):
    transformer = make_transformer(heads=2, head_dim=8)
    before = frozen_state(transformer)
    with pytest.raises(GraftError) as error:
        graft_looped_blocks(transformer, inner_dim=1920)
    assert str(error.value) == (
        "inner_dim: block 0 (CogVideoXBlock) has hidden states of width 16, got 1920"
    )
    assert frozen_state(transformer) == before
    graft_looped_blocks(transformer, inner_dim=16)


def test_a_wrong_width_given_for_another_model_is_refused_when_it_runs():
    model = model_of()
    graft_looped_blocks(model, block_attr="blocks", inner_dim=1)
    with pytest.raises(ValueError, match=r"expected hidden states \(\.\.\., 1\), got \(2, 5, 8\)"):
        model(torch.zeros(2, 5, 3))


# ---------------------------------------------------------------- wrapper classes


class Seeds(nn.Module):
    """As a custom class for canvas-engineering had to be."""

    def __init__(self, original, block_idx, max_loops, inner_dim):
        super().__init__()
        self.inner = original
        self.got = (block_idx, max_loops, inner_dim)
        self.scale = nn.Linear(1, 1)

    def forward(self, x, **kwargs):
        return self.inner(x, **kwargs)


class Inherits(LoopedBlockWrapper):
    """Keeps the constructor."""


class Renames(LoopedBlockWrapper):
    """Names the width as canvas-engineering's graft did."""

    def __init__(self, original, block_idx, max_loops, inner_dim):
        super().__init__(original, block_idx, max_loops, embed_dim=inner_dim)


def test_a_custom_class_is_given_block_index_loops_and_width_and_what_it_adds_is_trained():
    model = model_of()
    blocks, _ = graft_looped_blocks(model, 2, block_attr="blocks", wrapper_class=Seeds)
    assert [block.got for block in blocks] == [(0, 2, 8), (1, 2, 8)]
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"blocks.{i}.scale.{name}" for i in range(2) for name in ("weight", "bias")
    }


@pytest.mark.parametrize("wrapper_class", [LoopedBlockWrapper, Inherits])
def test_the_wrapper_and_classes_that_keep_its_constructor_get_width_and_gate(wrapper_class):
    model = model_of(TwoOutputs)
    expected = model(torch.ones(2, 5, 3))
    blocks, _ = graft_looped_blocks(model, 2, block_attr="blocks", wrapper_class=wrapper_class)
    for block in blocks:
        assert type(block) is wrapper_class
        assert (block.embed_dim, block.gate, block.max_loops) == (8, "identity", 2)
        block.set_loops(2)
    assert torch.equal(model(torch.ones(2, 5, 3)), expected)


def test_a_class_that_names_the_width_inner_dim_gets_it_by_that_name_and_keeps_its_gate():
    blocks, _ = graft_looped_blocks(model_of(), block_attr="blocks", wrapper_class=Renames)
    assert [(block.embed_dim, block.gate) for block in blocks] == [(8, "sigmoid")] * 2


@pytest.mark.parametrize(
    "wrapper_class, gate, message",
    [
        (
            nn.Identity.forward,
            "identity",
            "wrapper_class: expected forward to take (block, block_idx, max_loops, inner_dim), "
            "the last three by name: ",
        ),
        (int, "identity", "wrapper_class: expected "),
        (
            5,
            "identity",
            "wrapper_class: expected a class or function that makes an nn.Module, got 5; ",
        ),
        (Seeds, "sigmoid", "gate: Seeds has a gate of its own and takes none, got 'sigmoid'"),
        (
            lambda block, **width: None,
            "identity",
            "wrapper_class: expected <lambda> to make an nn.Module, got NoneType",
        ),
    ],
)
def test_a_class_that_cannot_be_called_so_is_refused(wrapper_class, gate, message):
    model = model_of()
    before = frozen_state(model)
    with pytest.raises(GraftError) as error:
        graft_looped_blocks(model, block_attr="blocks", wrapper_class=wrapper_class, gate=gate)
    assert str(error.value).startswith(message)
    assert frozen_state(model) == before


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("block_attr", ["blocks", "transformer_blocks"])
def test_grafting_twice_is_refused_and_leaves_the_graft_as_it_was(make_transformer, block_attr):
    model = model_of() if block_attr == "blocks" else make_transformer()
    blocks, _ = graft_looped_blocks(model, block_attr=block_attr)
    before = frozen_state(model)
    with pytest.raises(GraftError) as error:
        graft_looped_blocks(model, block_attr=block_attr)
    assert str(error.value) == (
        f"{block_attr}[0]: grafted already (a {type(blocks[0]).__name__}); "
        "load the model afresh to graft it again"
    )
    assert frozen_state(model) == before and list(getattr(model, block_attr)) == blocks


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"freeze": "ful"}, "freeze: expected one of ('full', 'half', 'none'), got 'ful'"),
        ({"freeze": None}, "freeze: expected one of ('full', 'half', 'none'), got None"),
        ({"gate": "tanh"}, "gate: expected one of ('identity', 'sigmoid'), got 'tanh'"),
        ({"max_loops": 0}, "max_loops: expected an int >= 1, got 0"),
        ({"inner_dim": 0}, "inner_dim: expected an int >= 1, got 0"),
        ({"action_dim": 0}, "action_dim: expected an int >= 1, got 0"),
        ({"action_dim": "x"}, "action_dim: expected an int >= 1, got 'x'"),
        ({"latent_channels": -1}, "latent_channels: expected an int >= 1, got -1"),
        ({"latent_channels": True}, "latent_channels: expected an int >= 1, got True"),
        (
            {"block_attr": "layers"},
            "block_attr: expected the name of a list of blocks in a Model, got 'layers'; "
            "its lists are: blocks",
        ),
        (
            {"block_attr": "out"},
            "block_attr: expected the name of a list of blocks in a Model, got 'out'; "
            "its lists are: blocks",
        ),
    ],
)
def test_what_cannot_be_grafted_is_refused_before_anything_is_changed(changes, message):
    model = model_of()
    before = frozen_state(model)
    with pytest.raises(GraftError) as error:
        graft_looped_blocks(model, **{"block_attr": "blocks", **changes})
    assert str(error.value) == message
    assert frozen_state(model) == before


def test_an_empty_list_and_a_model_without_lists_are_refused():
    with pytest.raises(GraftError) as error:
        graft_looped_blocks(Model(), block_attr="blocks")
    assert str(error.value) == "blocks: expected at least one block in a Model, got none"
    with pytest.raises(GraftError) as error:
        graft_looped_blocks(nn.Linear(2, 2))
    assert str(error.value) == (
        "block_attr: expected the name of a list of blocks in a Linear, "
        "got 'transformer_blocks'; its lists are: none"
    )


def test_half_of_a_model_without_input_embeddings_is_refused_before_anything_is_changed():
    model = model_of()
    model.embed, model.patch_embed = model.patch_embed, nn.Identity()
    before = frozen_state(model)
    with pytest.raises(GraftError) as error:
        graft_looped_blocks(model, block_attr="blocks", freeze="half")
    assert str(error.value) == (
        "freeze 'half': expected patch_embed or pos_embedding with parameters in a Model, "
        "found neither; use 'full' or 'none'"
    )
    assert frozen_state(model) == before


def test_the_policys_graft_runs_all_loops_and_refuses_other_blocks(make_transformer):
    assert [block.current_loops for block in graft(make_transformer(), 3)] == [3, 3]
    model = model_of()
    model.transformer_blocks = model.blocks
    with pytest.raises(GraftError) as error:
        graft(model, 2)
    assert str(error.value) == "transformer: expected CogVideoXBlock blocks, got Block"


# ---------------------------------------------------------------- gradient checkpointing


def gradients(transformer, inputs, blocks, per_block, per_loop):
    """Output and gradients of the loop parameters of one training step."""
    if per_block:
        transformer.enable_gradient_checkpointing()
    else:
        transformer.disable_gradient_checkpointing()
    for block in blocks:
        block.use_gradient_checkpointing = per_loop
        block.zero_grad()
    torch.manual_seed(1)  # dropout
    out = transformer(**inputs).sample
    out.square().mean().backward()
    return [out.detach(), *(p.grad for p in transformer.parameters() if p.requires_grad)]


@pytest.mark.parametrize("loops", [1, 3])
@pytest.mark.parametrize("gate", ["identity", "sigmoid"])
def test_checkpointing_by_block_by_loop_both_or_neither_gives_the_same_gradients(
    make_transformer, make_inputs, gate, loops
):
    """Diffusers then passes the block's fifth argument, attention_kwargs, by position."""
    torch.manual_seed(0)
    transformer = make_transformer(dropout=0.1).train()
    inputs = make_inputs(transformer)
    blocks, _ = graft_looped_blocks(transformer, gate=gate)
    for block in blocks:
        block.set_loops(loops)
        torch.nn.init.normal_(block.loop_emb, std=0.1)
        torch.nn.init.uniform_(block.loop_gate, 0.2, 0.8)
    expected = gradients(transformer, inputs, blocks, False, False)
    assert len(expected) == 1 + 3 * len(blocks)
    for per_block, per_loop in ((True, False), (False, True), (True, True)):
        got = gradients(transformer, inputs, blocks, per_block, per_loop)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_attention_kwargs_reach_the_block_by_position_and_by_name(make_transformer):
    class Recorder(nn.Module):
        def forward(self, video, text, temb, image_rotary_emb=None, attention_kwargs=None):
            seen.append((temb, image_rotary_emb, attention_kwargs))
            return video, text

    seen = []
    looped = LoopedCogVideoXBlock(Recorder(), 0, 2, 4)
    looped.set_loops(2)
    streams = torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)
    looped(*streams, "temb", "rotary", {"scale": 2})
    looped(*streams, temb="temb", image_rotary_emb="rotary", attention_kwargs={"scale": 2})
    assert seen == [("temb", "rotary", {"scale": 2})] * 4
