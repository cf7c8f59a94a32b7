"""Laws of a part's config.json: what it may say is what the constructors take, within bounds."""

import inspect
import math
import time

import msgspec
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import T5Config

from canvas_robot.backbone.configuration import BackboneConfiguration
from canvas_robot.backbone.part_config import (
    KINDS,
    BackboneError,
    TextEncoderConfig,
    TransformerConfig,
    VaeConfig,
    canonical,
    part_config,
)
from canvas_robot.backbone.weights import empty

SMALL = {
    "transformer": {"num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 1},
    "vae": {
        "layers_per_block": 1,
        "block_out_channels": [4],
        "down_block_types": ["CogVideoXDownBlock3D"],
        "up_block_types": ["CogVideoXUpBlock3D"],
        "norm_num_groups": 2,
    },
    "text_encoder": {"num_layers": 1},
}


def refusal(part, **given) -> str:
    with pytest.raises(BackboneError) as error:
        part_config(part, given, "there")
    return str(error.value)


@pytest.mark.parametrize(
    "config, made",
    [(TransformerConfig, CogVideoXTransformer3DModel), (VaeConfig, AutoencoderKLCogVideoX)],
)
def test_the_fields_are_the_constructors_with_their_defaults(config, made):
    """So that no setting of a newer diffusers escapes the fingerprint."""
    parameters = dict(list(inspect.signature(made.__init__).parameters.items())[1:])
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert msgspec.structs.asdict(config()) == defaults


def test_the_text_encoders_defaults_are_t5s():
    ours, theirs = TextEncoderConfig(), T5Config()
    for name in TextEncoderConfig.__struct_fields__:
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize(
    "part, name, value, expected",
    [
        ("transformer", "num_layers", 100_000, "type integer, minimum 1, maximum 128"),
        ("transformer", "num_layers", True, "type integer, minimum 1, maximum 128"),
        ("transformer", "num_attention_heads", 10**9, "type integer, minimum 1, maximum 256"),
        ("transformer", "num_attention_heads", -1, "type integer, minimum 1, maximum 256"),
        ("transformer", "attention_head_dim", 10**12, "type integer, minimum 1, maximum 1024"),
        ("transformer", "patch_size", 0, "type integer, minimum 1, maximum 64"),
        ("transformer", "patch_size", -2, "type integer, minimum 1, maximum 64"),
        ("transformer", "norm_eps", "x", "type number, exclusiveMinimum 0.0, maximum 0.1"),
        ("transformer", "norm_eps", 10**400, "type number, exclusiveMinimum 0.0, maximum 0.1"),
        ("vae", "scaling_factor", "x", "type number, minimum 1e-06, maximum 1000000.0"),
        ("vae", "scaling_factor", 0, "type number, minimum 1e-06, maximum 1000000.0"),
        ("vae", "scaling_factor", math.nan, "type number, minimum 1e-06, maximum 1000000.0"),
        ("vae", "layers_per_block", 10**6, "type integer, minimum 1, maximum 16"),
        ("vae", "shift_factor", 0.1, "type null"),
        ("vae", "act_fn", "evil", "enum ['gelu', 'mish', 'relu', 'silu', 'swish']"),
        ("text_encoder", "num_layers", 10**7, "type integer, minimum 1, maximum 128"),
    ],
)
def test_what_no_model_has_is_refused_by_key_expected_and_got(part, name, value, expected):
    text = refusal(part, **{name: value})
    assert text.startswith(f"there: {name}: expected {expected}, got {repr(value)[:80]}")
    assert len(text) < 400


def test_settings_that_do_not_go_together_are_refused():
    assert refusal("transformer", sample_width=10**4, sample_height=10**4) == (
        "there: sample_width, sample_height, sample_frames, max_text_seq_length: expected a table "
        "of positions of 1 to 67108864 numbers, got 25000000 places in 13 frames, of width 1920"
    )
    assert "got 0 places in 13 frames" in refusal("transformer", sample_width=1)
    assert "expected a multiple of 16, as sin-cos positions need, got 360" in refusal(
        "transformer", num_attention_heads=9, attention_head_dim=40
    )
    assert refusal("vae", norm_num_groups=7) == (
        "there: norm_num_groups: expected a divisor of block_out_channels [128, 256, 256, 512], "
        "got 7"
    )
    assert "expected 1 each, as block_out_channels has, got 4 and 4" in refusal(
        "vae", block_out_channels=[32]
    )


def test_quantised_weights_are_refused():
    assert refusal("text_encoder", quantization_config={"load_in_8bit": True}) == (
        "there: quantization_config: expected none, got {'load_in_8bit': True}; take the model's "
        "full weights, which int8 quantises"
    )


def test_equal_configurations_are_written_alike():
    plain = part_config("transformer", {}, "there")
    spelt = part_config("transformer", {"_name": 1, "other": 2, "temporal_interpolation_scale": 1,
                                        "norm_eps": 0.00001}, "there")  # fmt: skip
    assert canonical(spelt) == canonical(plain)
    other = part_config("transformer", {"norm_eps": 0.0001}, "there")
    assert canonical(other) != canonical(plain)


numbers = st.sampled_from([-(10**12), -2, -1, 0, 1, 2, 3, 4, 16, 48, 128, 1000, 70_000, 10**9])
words = st.sampled_from(["", "x", "gelu", "silu", "geglu", "gated-gelu", "CogVideoXUpBlock3D"])
floats = st.sampled_from([1e-320, 1e-6, 0.5, 1e5, math.inf, math.nan, 1e308])
values = st.none() | st.booleans() | numbers | words | floats
values = values | st.lists(values, max_size=4) | st.dictionaries(words, values, max_size=1)


@st.composite
def hostile(draw):
    """A part, and a small configuration of it with up to three settings changed to anything."""
    part = draw(st.sampled_from(sorted(KINDS)))
    names = st.sampled_from(KINDS[part].__struct_fields__)
    return part, SMALL[part] | draw(st.dictionaries(names, values, max_size=3))


@settings(deadline=None, max_examples=150)
@given(hostile())
@example(("transformer", {"num_attention_heads": 256, "attention_head_dim": 1024,
                          "num_layers": 128, "time_embed_dim": 65_536}))  # fmt: skip
@example(("text_encoder", {"num_layers": 128, "vocab_size": 1 << 20, "d_model": 65_536,
                           "num_heads": 256, "d_kv": 1024}))  # fmt: skip
@example(("vae", {"layers_per_block": 16, "block_out_channels": [65_536] * 8,
                  "down_block_types": ["CogVideoXDownBlock3D"] * 8,
                  "up_block_types": ["CogVideoXUpBlock3D"] * 8}))  # fmt: skip
def test_whatever_it_says_it_is_refused_or_makes_a_part_soon(given):
    part, config = given
    started = time.process_time()
    try:
        checked = part_config(part, config, "there")
    except BackboneError:
        return
    configs = {name: part_config(name, small, name) for name, small in SMALL.items()}
    with torch.no_grad():
        try:
            made = BackboneConfiguration(**(configs | {part: checked}))
        except BackboneError:
            return
        empty(made, part)
    assert time.process_time() - started < 10
