"""Loading a backbone: CogVideoX's transformer, video VAE, text encoder and tokenizer.

A fingerprint of its weights comes with it. A source is a name in config/backbones (a small
configuration, random weights from its seed) or a folder or hub id in diffusers' layout (trained
weights, safetensors only). Nothing else in the package knows which one it runs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import nn
from transformers import (
    AutoTokenizer,
    ByT5Tokenizer,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
)

from canvas_robot.resources import config_path


class BackboneError(ValueError):
    """A backbone cannot be found or is not what was asked for."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen CogVideoX, ready to be grafted.

    source: what it was loaded from.
    sha256: fingerprint of all weights.
    trained: False for random weights made from a seed.
    """

    transformer: CogVideoXTransformer3DModel
    vae: AutoencoderKLCogVideoX
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    sha256: str
    trained: bool

    @property
    def width(self) -> int:
        """Token width of the transformer."""
        config = self.transformer.config
        return config.num_attention_heads * config.attention_head_dim


def load_backbone(source: str, dtype: torch.dtype = torch.float32) -> Backbone:
    """Loads a backbone by name, folder or hub id, frozen and in evaluation mode.

    Raises BackboneError when the source is none of them or holds no safetensors weights.
    """
    try:
        spec = config_path("backbones", f"{source}.json")
    except FileNotFoundError:
        return _load_pretrained(source, dtype)
    return _seeded(json.loads(spec.read_text(encoding="utf-8")), source, dtype)


def _seeded(spec: dict, source: str, dtype: torch.dtype) -> Backbone:
    vae_config = dict(spec["vae"])
    depth = len(vae_config["block_out_channels"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec["seed"])
        transformer = CogVideoXTransformer3DModel(**spec["transformer"])
        vae = AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * depth,
            up_block_types=("CogVideoXUpBlock3D",) * depth,
            **vae_config,
        )
        text_encoder = T5EncoderModel(T5Config(**spec["text_encoder"]))
    parts = (transformer, vae, text_encoder)
    _freeze(parts, dtype)
    return Backbone(*parts, ByT5Tokenizer(), source, _sha256(parts), trained=False)


def _load_pretrained(source: str, dtype: torch.dtype) -> Backbone:
    def part(cls, subfolder, **extra):
        return cls.from_pretrained(source, subfolder=subfolder, use_safetensors=True, **extra)

    try:
        parts = (
            part(CogVideoXTransformer3DModel, "transformer", torch_dtype=dtype),
            part(AutoencoderKLCogVideoX, "vae", torch_dtype=dtype),
            part(T5EncoderModel, "text_encoder", dtype=dtype),
        )
        tokenizer = AutoTokenizer.from_pretrained(source, subfolder="tokenizer")
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"backbone {source[:200]!r}: expected a name in config/backbones, or a folder or hub "
            f"id with transformer, vae, text_encoder and tokenizer in diffusers' layout "
            f"(for example: hf download THUDM/CogVideoX-2b); {error}"
        ) from error
    _freeze(parts, dtype)
    return Backbone(*parts, tokenizer, source, _sha256(parts), trained=True)


def _freeze(parts: tuple[nn.Module, ...], dtype: torch.dtype) -> None:
    for module in parts:
        if module.dtype != dtype:
            module.to(dtype)
        module.eval().requires_grad_(False)


def _sha256(parts: tuple[nn.Module, ...]) -> str:
    digest = hashlib.sha256()
    for module in parts:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
