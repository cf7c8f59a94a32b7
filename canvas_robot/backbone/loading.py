"""Loading a backbone: CogVideoX's transformer, video VAE, text encoder and tokenizer, frozen.

A source is a name in config/backbones (random weights from a seed) or a folder or hub id in
diffusers' layout (trained weights, safetensors only). Nothing else in the package knows which one
it runs. Where files are is found in sources.py, what they hold is checked and read in weights.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import nn
from transformers import (
    AutoTokenizer,
    ByT5Tokenizer,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from canvas_robot.backbone.byte_weights import quantise
from canvas_robot.backbone.configuration import PARTS, BackboneConfiguration, BackboneError
from canvas_robot.backbone.digest import digest_of_part
from canvas_robot.backbone.image_encoder import pixels_per_latent
from canvas_robot.backbone.memory import memory_table, require_memory, weight_rows
from canvas_robot.backbone.random_weights import drawn_by_constructors, drawn_uniform
from canvas_robot.backbone.sources import (
    Location,
    locate,
    named_spec,
    require_usable_tokenizer,
    weight_files,
)
from canvas_robot.backbone.weights import load
from canvas_robot.schema import CanvasSchema

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INITIALISATIONS = {"constructor": drawn_by_constructors, "uniform": drawn_uniform}


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen CogVideoX, ready to be grafted.

    text_encoder, tokenizer: None when it was loaded without them (prompts are cached then).
    configuration: what the parts are made of.
    source: what loads it again: a name, a folder, or a hub id with its commit.
    revision: that commit; None for names and folders.
    sha256: fingerprint of each loaded part: its weights as stored, whatever format they were cast
        to, its configuration and, of a text encoder, its tokenizer's files (a name has none).
    trained: False for random weights made from a seed.
    """

    transformer: CogVideoXTransformer3DModel
    vae: AutoencoderKLCogVideoX
    text_encoder: T5EncoderModel | None
    tokenizer: PreTrainedTokenizerBase | None
    configuration: BackboneConfiguration
    source: str
    revision: str | None
    sha256: dict[str, str]
    trained: bool

    @property
    def width(self) -> int:
        """Token width of the transformer."""
        config = self.transformer.config
        return config.num_attention_heads * config.attention_head_dim

    @property
    def pixels_per_token(self) -> int:
        """Along the side of a token's patch."""
        stride = pixels_per_latent(self.vae.config.block_out_channels)
        return self.transformer.config.patch_size * stride


def backbone_configuration(
    source: str,
    revision: str | None = None,
    text_encoder: bool = True,
    local_files_only: bool = True,
) -> BackboneConfiguration:
    """What a backbone is made of, without loading it; raises as load_backbone does."""
    return _find(source, revision, text_encoder, local_files_only).configuration


def load_backbone_for(
    schema: CanvasSchema,
    loops: int,
    source: str,
    dtype: torch.dtype = torch.float32,
    *,
    sliced: bool = False,
    revision: str | None = None,
    text_encoder: bool = True,
    int8: bool = False,
    float8: bool = False,
    device: str | torch.device = "cpu",
) -> Backbone:
    """`load_backbone`, once the device is known to hold the schema's caches too.

    Args:
        schema, loops: of the plan; all cells of its regions are counted.
        sliced: slow regions are refreshed in slices, which takes a second half of the caches.
        source, dtype, revision, text_encoder, int8, float8, device: as of `load_backbone`.
    Raises:
        BackboneError, BackboneMemoryError: as `load_backbone`, and before anything is loaded.
        PlanError: no plan can be made of the schema.
    """
    stored = _byte_format(source, dtype, int8, float8)
    found = _find(source, revision, text_encoder, local_files_only=True)
    needed = memory_table(
        found.configuration,
        schema,
        loops,
        dtype=dtype,
        sliced=sliced,
        int8=stored is not None,
        text_encoder=text_encoder,
    )
    require_memory(needed, device)
    return _load(found, dtype, text_encoder, stored, device)


def load_backbone(
    source: str,
    dtype: torch.dtype = torch.float32,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    text_encoder: bool = True,
    int8: bool = False,
    float8: bool = False,
    local_files_only: bool = True,
) -> Backbone:
    """Loads a backbone by name, folder or hub id, frozen and in evaluation mode.

    Args:
        source: a name in config/backbones, a folder, or a hub id with or without `@revision`.
        dtype: float32, bfloat16 or float16.
        revision: branch, tag or commit of a hub id; the commit found is recorded.
        device: where the weights go.
        text_encoder: load T5 and its tokenizer as well (4.8 of 2B's 6.7 billion parameters).
        int8, float8: keep the linear weights of the transformer's blocks in one byte each, as
            whole numbers or e4m3 floats; they are read in `dtype` first, in the machine's memory.
        local_files_only: for hub ids, take only what `hf download` has fetched before.
    Raises:
        BackboneError: the source is none of them, does not fit a canvas, or lacks weights (the
            command that fetches them and their size are named); a file of it is not what it should
            be (the file, what was expected and what came are).
        BackboneMemoryError: the weights are larger than the device's free memory.
    """
    stored = _byte_format(source, dtype, int8, float8)
    found = _find(source, revision, text_encoder, local_files_only)
    in_bytes = stored is not None
    require_memory(weight_rows(found.configuration, dtype, in_bytes, text_encoder), device)
    return _load(found, dtype, text_encoder, stored, device)


class _Found(NamedTuple):
    """A source before its weights are read: at a location, or a name whose file says how to draw.

    Exactly one of location and spec is None.
    """

    source: str
    configuration: BackboneConfiguration
    location: Location | None
    spec: dict | None


def _byte_format(source: str, dtype: torch.dtype, int8: bool, float8: bool) -> torch.dtype | None:
    """What the blocks' linear weights are kept in, where that is one byte."""
    if dtype not in DTYPES.values() or ((int8 or float8) and dtype == torch.float16):
        raise BackboneError(
            f"backbone {source[:200]!r}: dtype: expected float32, bfloat16 or (without int8) "
            f"float16, got {dtype}"
        )
    if int8 and float8:
        raise BackboneError(f"backbone {source[:200]!r}: expected int8 or float8, got both")
    return torch.int8 if int8 else torch.float8_e4m3fn if float8 else None


def _parts(text_encoder: bool) -> tuple[str, ...]:
    return PARTS if text_encoder else PARTS[:2]


def _find(source: str, revision: str | None, text_encoder: bool, local_files_only: bool) -> _Found:
    spec = named_spec(source)
    if spec is None:
        location = locate(source, revision, _parts(text_encoder), local_files_only)
        configuration = BackboneConfiguration.from_folder(location.folder)
        return _Found(location.source, configuration, location, None)
    if revision is not None:
        raise BackboneError(
            f"backbone {source!r}: revisions are of hub ids, its weights come from a seed; "
            f"got revision {revision!r}"
        )
    return _Found(source, BackboneConfiguration.from_spec(spec, source), None, spec)


def _load(
    found: _Found,
    dtype: torch.dtype,
    text_encoder: bool,
    stored: torch.dtype | None,
    device: str | torch.device,
) -> Backbone:
    parts, configuration = _parts(text_encoder), found.configuration
    tokenizer, files = _tokenizer(found.location) if text_encoder else (None, [])
    if found.location is None:
        draw = INITIALISATIONS[found.spec.get("initialisation", "constructor")]
        modules, weights = draw(configuration, parts, found.spec["seed"], dtype)
    else:
        modules, weights = _stored(configuration, parts, found.location.folder, dtype)
    for module in modules.values():
        module.eval().requires_grad_(False)
    if stored is not None:
        quantise(modules["transformer"], stored)
    return Backbone(
        transformer=modules["transformer"].to(device),
        vae=modules["vae"].to(device),
        text_encoder=modules["text_encoder"].to(device) if text_encoder else None,
        tokenizer=tokenizer,
        configuration=configuration,
        source=found.source,
        revision=found.location.revision if found.location is not None else None,
        sha256={
            part: digest_of_part(
                digest, configuration.canonical(part), files if part == "text_encoder" else []
            )
            for part, digest in weights.items()
        },
        trained=found.location is not None,
    )


def _stored(
    configuration: BackboneConfiguration, parts: tuple[str, ...], folder: Path, dtype: torch.dtype
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Parts with the weights in a folder; their digests."""
    modules, digests = {}, {}
    for part in parts:
        files = weight_files(folder / part)
        modules[part], digests[part] = load(configuration, part, files, dtype)
    return modules, digests


def _tokenizer(location: Location | None) -> tuple[PreTrainedTokenizerBase, list[Path]]:
    """A location's tokenizer and the files that say what it does; of a name, bytes as tokens."""
    if location is None:
        return ByT5Tokenizer(), []
    folder = location.folder / "tokenizer"
    require_usable_tokenizer(folder)
    try:
        made = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise BackboneError(f"{folder}: cannot be loaded: {error}") from error
    return made, sorted(path for path in folder.iterdir() if path.is_file())
