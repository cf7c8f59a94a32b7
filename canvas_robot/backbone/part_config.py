"""What a part's config.json may say, checked before anything is built from it.

Fields are the constructors' own, with their names and defaults; what else a file holds is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from canvas_robot.schema.plain import shown

MOST_BYTES = 1 << 24  # of a JSON file; the largest index of weights has some 100 kB
MOST_POSITIONS = 1 << 26  # numbers in a table of positions, twice those of CogVideoX-2b: seconds

Layers = Annotated[int, Meta(ge=1, le=128)]
Channels = Annotated[int, Meta(ge=1, le=65_536)]
Heads = Annotated[int, Meta(ge=1, le=256)]
HeadWidth = Annotated[int, Meta(ge=1, le=1024)]
Side = Annotated[int, Meta(ge=1, le=65_536)]
Few = Annotated[int, Meta(ge=1, le=64)]
Scale = Annotated[float, Meta(ge=1e-6, le=1e6)]
Epsilon = Annotated[float, Meta(gt=0.0, le=0.1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Levels = Meta(min_length=1, max_length=8)
Activation = Literal["swish", "silu", "mish", "gelu", "relu"]


class BackboneError(ValueError):
    """A backbone cannot be found or is not what was asked for."""


class TransformerConfig(Struct, frozen=True, kw_only=True):
    """Arguments of CogVideoXTransformer3DModel."""

    num_attention_heads: Heads = 30
    attention_head_dim: HeadWidth = 64
    in_channels: Channels = 16
    out_channels: Channels = 16
    flip_sin_to_cos: bool = True
    freq_shift: Annotated[int, Meta(ge=0, le=1)] = 0
    time_embed_dim: Channels = 512
    ofs_embed_dim: Channels | None = None
    text_embed_dim: Channels = 4096
    num_layers: Layers = 30
    dropout: Share = 0.0
    attention_bias: bool = True
    sample_width: Side = 90
    sample_height: Side = 60
    sample_frames: Side = 49
    patch_size: Few = 2
    patch_size_t: Few | None = None
    temporal_compression_ratio: Few = 4
    max_text_seq_length: Side = 226
    activation_fn: Literal[
        "gelu", "gelu-approximate", "geglu", "geglu-approximate", "swiglu", "linear-silu"
    ] = "gelu-approximate"
    timestep_activation_fn: Activation = "silu"
    norm_elementwise_affine: bool = True
    norm_eps: Epsilon = 1e-5
    spatial_interpolation_scale: Scale = 1.875
    temporal_interpolation_scale: Scale = 1.0
    use_rotary_positional_embeddings: bool = False
    use_learned_positional_embeddings: bool = False
    patch_bias: bool = True

    @property
    def width(self) -> int:
        """Token width."""
        return self.num_attention_heads * self.attention_head_dim

    def __post_init__(self) -> None:
        if self.use_rotary_positional_embeddings:
            return
        if self.width % 16:
            raise ValueError(
                "num_attention_heads x attention_head_dim: expected a multiple of 16, as sin-cos "
                f"positions need, got {self.width}"
            )
        places = (self.sample_width // self.patch_size) * (self.sample_height // self.patch_size)
        frames = (self.sample_frames - 1) // self.temporal_compression_ratio + 1
        numbers = (places * frames + self.max_text_seq_length) * self.width
        if not places or numbers > MOST_POSITIONS:
            raise ValueError(
                "sample_width, sample_height, sample_frames, max_text_seq_length: expected a table "
                f"of positions of 1 to {MOST_POSITIONS} numbers, got {places} places in {frames} "
                f"frames, of width {self.width}"
            )


class VaeConfig(Struct, frozen=True, kw_only=True):
    """Arguments of AutoencoderKLCogVideoX. Latents are scaled and not shifted."""

    in_channels: Channels = 3
    out_channels: Channels = 3
    down_block_types: Annotated[tuple[Literal["CogVideoXDownBlock3D"], ...], Levels] = (
        "CogVideoXDownBlock3D",
    ) * 4
    up_block_types: Annotated[tuple[Literal["CogVideoXUpBlock3D"], ...], Levels] = (
        "CogVideoXUpBlock3D",
    ) * 4
    block_out_channels: Annotated[tuple[Channels, ...], Levels] = (128, 256, 256, 512)
    latent_channels: Channels = 16
    layers_per_block: Annotated[int, Meta(ge=1, le=16)] = 3
    act_fn: Activation = "silu"
    norm_eps: Epsilon = 1e-6
    norm_num_groups: Channels = 32
    temporal_compression_ratio: Few = 4
    sample_height: Side = 480
    sample_width: Side = 720
    scaling_factor: Scale = 1.15258426
    shift_factor: None = None
    latents_mean: None = None
    latents_std: None = None
    force_upcast: bool = True
    use_quant_conv: bool = False
    use_post_quant_conv: bool = False
    invert_scale_latents: bool = False

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        down, up = len(self.down_block_types), len(self.up_block_types)
        if (down, up) != (levels, levels):
            raise ValueError(
                f"down_block_types, up_block_types: expected {levels} each, as block_out_channels "
                f"has, got {down} and {up}"
            )
        if any(channels % self.norm_num_groups for channels in self.block_out_channels):
            raise ValueError(
                f"norm_num_groups: expected a divisor of block_out_channels "
                f"{list(self.block_out_channels)}, got {self.norm_num_groups}"
            )


class TextEncoderConfig(Struct, frozen=True, kw_only=True):
    """Arguments of T5Config that an encoder uses."""

    vocab_size: Annotated[int, Meta(ge=1, le=1 << 20)] = 32128
    d_model: Channels = 512
    d_kv: HeadWidth = 64
    d_ff: Channels = 2048
    num_layers: Layers = 6
    num_heads: Heads = 8
    relative_attention_num_buckets: Annotated[int, Meta(ge=4, le=4096)] = 32
    relative_attention_max_distance: Annotated[int, Meta(ge=2, le=65_536)] = 128
    layer_norm_epsilon: Epsilon = 1e-6
    feed_forward_proj: Literal["relu", "gelu", "silu", "gated-relu", "gated-gelu", "gated-silu"] = (
        "relu"
    )


PartConfig = TransformerConfig | VaeConfig | TextEncoderConfig
KINDS: dict[str, type[PartConfig]] = {
    "transformer": TransformerConfig,
    "vae": VaeConfig,
    "text_encoder": TextEncoderConfig,
}


def part_config(part: str, given: Mapping[str, object], where: str) -> PartConfig:
    """A part's arguments out of its config.json; raises BackboneError that begins with `where`."""
    if given.get("quantization_config") is not None:
        raise BackboneError(
            f"{where}: quantization_config: expected none, got "
            f"{shown(given['quantization_config'])}; take the model's full weights, which int8 "
            "quantises"
        )
    try:
        return msgspec.convert(given, KINDS[part])
    except msgspec.ValidationError as error:
        raise BackboneError(f"{where}: {_readable(error, KINDS[part], given)}") from error


def canonical(config: PartConfig) -> bytes:
    """The same for equal configurations, whichever of their defaults a file spells out."""
    return json.dumps(msgspec.structs.asdict(config), sort_keys=True).encode()


def read_object(path: Path) -> dict[str, object]:
    """A JSON file's object; raises BackboneError, naming the file, where there is none."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MOST_BYTES))
    except FileNotFoundError as error:
        raise BackboneError(f"{path}: missing; expected a folder in diffusers' layout") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(f"{path}: expected JSON, got {error}") from error
    if not isinstance(found, dict):
        raise BackboneError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def _readable(error: msgspec.ValidationError, kind: type[Struct], given: Mapping) -> str:
    """msgspec's error as key, what was expected and what came."""
    found = re.search(r" - at `\$\.(\w+)[^`]*`$", str(error))
    if found is None:  # said by the configuration about itself
        return str(error)
    (schema,) = msgspec.json.schema(kind)["$defs"].values()
    allowed = schema["properties"][found[1]]
    expected = ", ".join(f"{key} {value}" for key, value in allowed.items() if key != "default")
    return f"{found[1]}: expected {expected}, got {shown(given[found[1]])}"
