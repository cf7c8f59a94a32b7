"""What a backbone's parts are made of, and how large they are; no weights are read here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import nn
from transformers import T5Config, T5EncoderModel

PARTS = ("transformer", "vae", "text_encoder")
PAIRED_FRAMES = (
    "CogVideoX 1.5 makes one token of 2 latent frames (patch_size_t 2), a canvas step is one "
    "frame: its tokens could not be refreshed step by step"
)
IMAGE_CONDITIONED = (
    "image-to-video models take an image's latents beside the noisy ones (in_channels is twice "
    "out_channels), a canvas cell holds one latent"
)
SUITABLE = "use CogVideoX-2b or CogVideoX-5b"


class BackboneError(ValueError):
    """A backbone cannot be found or is not what was asked for."""


@dataclass(frozen=True)
class BackboneConfiguration:
    """The keyword arguments that make each part, as in diffusers' and transformers' config.json.

    text_encoder: None where a source has none, as policies with cached prompts need none.

    Raises BackboneError when the parts do not fit a canvas or one another.
    """

    transformer: Mapping[str, object]
    vae: Mapping[str, object]
    text_encoder: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        made = self.skeleton("transformer").config
        latents = self.skeleton("vae").config.latent_channels
        if made.patch_size_t is not None:
            raise BackboneError(
                f"backbone: expected one frame per token; {PAIRED_FRAMES}; {SUITABLE}"
            )
        if made.in_channels != made.out_channels:
            raise BackboneError(
                f"backbone: expected in_channels {made.out_channels}, got {made.in_channels}; "
                f"{IMAGE_CONDITIONED}; {SUITABLE}"
            )
        if made.in_channels != latents:
            raise BackboneError(
                f"backbone: expected a transformer of {latents} channels, as the VAE's latents "
                f"have, got {made.in_channels}; take both from one model"
            )
        if made.use_learned_positional_embeddings:
            raise BackboneError(
                "backbone: expected sin-cos or rotary positions, got learned ones, which hold for "
                f"one image size only; {SUITABLE}"
            )

    @classmethod
    def from_folder(cls, folder: Path) -> BackboneConfiguration:
        """Of the parts in a folder in diffusers' layout; without a text encoder if it has none.

        Raises BackboneError for a config.json that is missing, unreadable or of another model.
        """
        given = {part: folder / part / "config.json" for part in PARTS}
        if not given["text_encoder"].is_file():
            del given["text_encoder"]
        configs = {part: _read(path) for part, path in given.items()}
        for part, kind in (("transformer", CogVideoXTransformer3DModel), ("vae", _VAE)):
            found = configs[part].get("_class_name", kind.__name__)
            if found != kind.__name__:
                raise BackboneError(
                    f"{given[part]}: expected a {kind.__name__}, got a {found}; {SUITABLE}"
                )
        try:
            return cls(**configs)
        except (TypeError, ValueError) as error:
            raise BackboneError(f"{folder}: {error}") from error

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts there are."""
        return PARTS if self.text_encoder is not None else PARTS[:2]

    @property
    def width(self) -> int:
        """Token width of the transformer."""
        config = self.skeleton("transformer").config
        return config.num_attention_heads * config.attention_head_dim

    def make(self, part: str) -> nn.Module:
        """A part with the weights that its constructor draws."""
        if part == "transformer":
            return CogVideoXTransformer3DModel.from_config(dict(self.transformer))
        if part == "vae":
            return _VAE.from_config(dict(self.vae))
        return T5EncoderModel(T5Config.from_dict(dict(self.text_encoder)))

    def skeleton(self, part: str) -> nn.Module:
        """A part without memory: its parameters have shapes only (torch's meta device)."""
        with torch.device("meta"):
            return self.make(part)

    def parameters(self, part: str) -> int:
        """Number of a part's parameters."""
        return sum(parameter.numel() for parameter in self.skeleton(part).parameters())


_VAE = AutoencoderKLCogVideoX


def _read(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BackboneError(f"{path}: missing; expected a folder in diffusers' layout") from error
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path}: expected JSON, got {error}") from error
    if not isinstance(config, dict):
        raise BackboneError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config
