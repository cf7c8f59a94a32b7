"""Loading a backbone: CogVideoX's transformer, video VAE, text encoder and tokenizer, frozen.

A source is a name in config/backbones (random weights from a seed) or a folder or hub id in
diffusers' layout (trained weights, safetensors only). Nothing else in the package knows which one
it runs. Where files are is found in sources.py, what they hold is fingerprinted in digest.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import nn
from transformers import (
    AutoTokenizer,
    ByT5Tokenizer,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from canvas_robot.backbone.configuration import PARTS, BackboneConfiguration, BackboneError
from canvas_robot.backbone.digest import digest_of_files
from canvas_robot.backbone.int8 import quantise_int8
from canvas_robot.backbone.memory import memory_table, require_memory, weight_rows
from canvas_robot.backbone.random_weights import drawn_by_constructors, drawn_uniform
from canvas_robot.backbone.sources import (
    Location,
    locate,
    named_spec,
    require_tokenizer_library,
    weight_files,
)
from canvas_robot.schema import CanvasSchema

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CLASSES = {
    "transformer": CogVideoXTransformer3DModel,
    "vae": AutoencoderKLCogVideoX,
    "text_encoder": T5EncoderModel,
}
INITIALISATIONS = {"constructor": drawn_by_constructors, "uniform": drawn_uniform}


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen CogVideoX, ready to be grafted.

    text_encoder, tokenizer: None when it was loaded without them (prompts are cached then).
    configuration: what the parts are made of.
    source: what loads it again: a name, a folder, or a hub id with its commit.
    revision: that commit; None for names and folders.
    sha256: fingerprint of each loaded part's weights as stored, whatever format they were cast to.
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


def backbone_configuration(
    source: str,
    revision: str | None = None,
    text_encoder: bool = True,
    local_files_only: bool = True,
) -> BackboneConfiguration:
    """What a backbone is made of, without loading it; raises as load_backbone does."""
    spec = named_spec(source)
    if spec is not None:
        return _of_spec(spec, source, revision)
    found = locate(source, revision, _parts(text_encoder), local_files_only)
    return BackboneConfiguration.from_folder(found.folder)


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
    device: str | torch.device = "cpu",
) -> Backbone:
    """`load_backbone`, once the device is known to hold the schema's caches too.

    Args:
        schema, loops: of the plan; all cells of its regions are counted.
        sliced: the caches have two halves.
        source, dtype, revision, text_encoder, int8, device: as of `load_backbone`.
    Raises:
        BackboneError, BackboneMemoryError: as `load_backbone`, and before anything is loaded.
    """
    needed = memory_table(
        backbone_configuration(source, revision, text_encoder),
        n_rows=sum(schema.layout.region_numel(name) for name in schema.layout.regions),
        loops=loops,
        dtype=dtype,
        sliced=sliced,
        int8=int8,
        text_encoder=text_encoder,
    )
    require_memory(needed, device)
    return load_backbone(
        source, dtype, revision=revision, device=device, text_encoder=text_encoder, int8=int8
    )


def load_backbone(
    source: str,
    dtype: torch.dtype = torch.float32,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    text_encoder: bool = True,
    int8: bool = False,
    local_files_only: bool = True,
) -> Backbone:
    """Loads a backbone by name, folder or hub id, frozen and in evaluation mode.

    Args:
        source: a name in config/backbones, a folder, or a hub id with or without `@revision`.
        dtype: float32, bfloat16 or float16.
        revision: branch, tag or commit of a hub id; the commit found is recorded.
        device: where the weights go.
        text_encoder: load T5 and its tokenizer as well (4.8 of 2B's 6.7 billion parameters).
        int8: keep the linear weights of the transformer's blocks in one byte each; they are read
            in `dtype` first, in the machine's memory.
        local_files_only: for hub ids, take only what `hf download` has fetched before.
    Raises:
        BackboneError: the source is none of them, does not fit a canvas, or lacks weights; the
            command that fetches them and their size are named.
        BackboneMemoryError: the weights are larger than the device's free memory.
    """
    if dtype not in DTYPES.values() or (int8 and dtype == torch.float16):
        raise BackboneError(
            f"backbone {source[:200]!r}: dtype: expected float32, bfloat16 or (without int8) "
            f"float16, got {dtype}"
        )
    parts, spec = _parts(text_encoder), named_spec(source)
    found = None if spec is not None else locate(source, revision, parts, local_files_only)
    configuration = (
        BackboneConfiguration.from_folder(found.folder)
        if found is not None
        else _of_spec(spec, source, revision)
    )
    require_memory(weight_rows(configuration, dtype, int8, text_encoder), device)
    if found is None:
        draw = INITIALISATIONS[spec.get("initialisation", "constructor")]
        modules, digests = draw(configuration, parts, spec["seed"], dtype)
        tokenizer = ByT5Tokenizer() if text_encoder else None
    else:
        digests = {p: digest_of_files(weight_files(found.folder / p)) for p in parts}
        modules = {part: _pretrained(found, part, dtype) for part in parts}
        tokenizer = _tokenizer(found) if text_encoder else None
    for module in modules.values():
        module.eval().requires_grad_(False)
    if int8:
        quantise_int8(modules["transformer"])
    return Backbone(
        transformer=modules["transformer"].to(device),
        vae=modules["vae"].to(device),
        text_encoder=modules["text_encoder"].to(device) if text_encoder else None,
        tokenizer=tokenizer,
        configuration=configuration,
        source=source if found is None else found.source,
        revision=None if found is None else found.revision,
        sha256=digests,
        trained=found is not None,
    )


def _parts(text_encoder: bool) -> tuple[str, ...]:
    return PARTS if text_encoder else PARTS[:2]


def _of_spec(spec: dict, source: str, revision: str | None) -> BackboneConfiguration:
    if revision is not None:
        raise BackboneError(
            f"backbone {source!r}: revisions are of hub ids, its weights come from a seed; "
            f"got revision {revision!r}"
        )
    return BackboneConfiguration(**{part: spec[part] for part in PARTS})


def _pretrained(found: Location, part: str, dtype: torch.dtype) -> nn.Module:
    """A part with its stored weights, all of them and no others."""
    number_format = {"dtype" if part == "text_encoder" else "torch_dtype": dtype}
    try:
        module, report = CLASSES[part].from_pretrained(
            found.folder / part,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **number_format,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(f"{found.folder / part}: cannot be loaded: {error}") from error
    if part != "text_encoder":
        nn.Module.to(module, dtype)  # diffusers leaves the table of positions in float64
    missing, unknown = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing or unknown:
        raise BackboneError(
            f"{found.folder / part}: expected the weights that its config.json describes; "
            f"missing {missing[:5]}, unknown {unknown[:5]}"
        )
    return module


def _tokenizer(found: Location) -> PreTrainedTokenizerBase:
    require_tokenizer_library(found.folder)
    try:
        return AutoTokenizer.from_pretrained(found.folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise BackboneError(f"{found.folder / 'tokenizer'}: cannot be loaded: {error}") from error
