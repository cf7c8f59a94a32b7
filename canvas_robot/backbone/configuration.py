"""What a backbone's parts are made of, and how large they are; no weights are read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import nn
from transformers import T5Config, T5EncoderModel

from canvas_robot.backbone.part_config import (
    BackboneError,
    PartConfig,
    TextEncoderConfig,
    TransformerConfig,
    VaeConfig,
    canonical,
    part_config,
    read_object,
)
from canvas_robot.schema.plain import shown

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


@dataclass(frozen=True)
class BackboneConfiguration:
    """The arguments that make each part, as in diffusers' and transformers' config.json.

    text_encoder: None where a source has none, as policies with cached prompts need none.

    Raises BackboneError when the parts do not fit a canvas or one another.
    """

    transformer: TransformerConfig
    vae: VaeConfig
    text_encoder: TextEncoderConfig | None = None

    def __post_init__(self) -> None:
        made, latents = self.transformer, self.vae.latent_channels
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
    def from_spec(cls, spec: Mapping[str, Mapping], name: str) -> BackboneConfiguration:
        """Of the parts in a file of config/backbones; raises BackboneError that begins with `name`.

        The file's other entries say how its weights are drawn.
        """
        return cls(**{part: part_config(part, spec[part], f"{name}: {part}") for part in PARTS})

    @classmethod
    def from_folder(cls, folder: Path) -> BackboneConfiguration:
        """Of the parts in a folder in diffusers' layout; without a text encoder if it has none.

        Raises BackboneError for a config.json that is missing, unreadable or of another model, or
        that says what no model of this kind can be.
        """
        paths = {part: folder / part / "config.json" for part in PARTS}
        if not paths["text_encoder"].is_file():
            del paths["text_encoder"]
        given = {part: read_object(path) for part, path in paths.items()}
        for part, kind in (("transformer", CogVideoXTransformer3DModel), ("vae", _VAE)):
            found = given[part].get("_class_name", kind.__name__)
            if found != kind.__name__:
                raise BackboneError(
                    f"{paths[part]}: expected a {kind.__name__}, got {shown(found)}; {SUITABLE}"
                )
        configs = {part: part_config(part, given[part], str(path)) for part, path in paths.items()}
        try:
            return cls(**configs)
        except BackboneError as error:
            raise BackboneError(f"{folder}: {error}") from error

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts there are."""
        return PARTS if self.text_encoder is not None else PARTS[:2]

    @property
    def width(self) -> int:
        """Token width of the transformer."""
        return self.transformer.width

    def canonical(self, part: str) -> bytes:
        """What a part is made of, for its fingerprint."""
        return canonical(self._of(part))

    def make(self, part: str) -> nn.Module:
        """A part with the weights that its constructor draws."""
        arguments = msgspec.structs.asdict(self._of(part))
        if part == "transformer":
            return CogVideoXTransformer3DModel(**arguments)
        if part == "vae":
            return _VAE(**arguments)
        return T5EncoderModel(T5Config(**arguments))

    def skeleton(self, part: str) -> nn.Module:
        """A part without memory: its parameters have shapes only (torch's meta device)."""
        with torch.device("meta"):
            return self.make(part)

    def parameters(self, part: str) -> int:
        """Number of a part's parameters."""
        return sum(parameter.numel() for parameter in self.skeleton(part).parameters())

    def _of(self, part: str) -> PartConfig:
        return {
            "transformer": self.transformer,
            "vae": self.vae,
            "text_encoder": self.text_encoder,
        }[part]


_VAE = AutoencoderKLCogVideoX
