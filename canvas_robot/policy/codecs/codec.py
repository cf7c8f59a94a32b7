"""What a codec is: samples to a region's tokens, and of output regions tokens to values and back.

Each codec is one class in a file beside this one; registry.py names them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from canvas_robot.backbone.image_encoder import ImageEncoder
from canvas_robot.backbone.loading import Backbone
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.policy.prompts import PromptFolder
from canvas_robot.signals import Frames, GoingOn, Normaliser, Statistics, StatisticsError
from canvas_robot.signals.codecs import RegionBinding
from canvas_robot.signals.signal import Signal, VectorSignal


class ModelError(ValueError):
    """Schema, binding, statistics and backbone do not fit one another."""


@dataclass(frozen=True, eq=False)
class CodecSite:
    """What a codec is built from.

    region: name of the region; size: its (t, h, w) in cells.
    bound: the codec's options; signal: its declaration, None where the codec takes none.
    statistics: by signal name.
    image_encoder: of the backbone's VAE, one for all cameras.
    videos: (t, h, w) in latents of every visual region of the schema.
    prompts: precomputed prompt embeddings, if there are any.
    """

    region: str
    size: tuple[int, int, int]
    bound: RegionBinding
    signal: Signal | None
    statistics: dict[str, Statistics]
    backbone: Backbone
    image_encoder: ImageEncoder
    videos: tuple[tuple[int, int, int], ...]
    prompts: PromptFolder | None = None

    @property
    def width(self) -> int:
        """Token width."""
        return self.backbone.width

    @property
    def normaliser(self) -> Normaliser:
        """As of `bound_normaliser`."""
        return bound_normaliser(self.region, self.bound, self.signal, self.statistics)


def bound_normaliser(
    region: str,
    bound: RegionBinding,
    signal: VectorSignal,
    statistics: Mapping[str, Statistics],
) -> Normaliser:
    """The normaliser that a binding names; raises StatisticsError where statistics do not fit."""
    name = bound.signal
    if bound.normalise == "none":
        return Normaliser(np.zeros(signal.size), np.ones(signal.size))
    if name not in statistics:
        raise StatisticsError(
            f"statistics: region {region!r} needs those of signal {name!r}; "
            f"there are {sorted(statistics)}"
        )
    try:
        normaliser = statistics[name].normaliser(bound.normalise)
    except StatisticsError as error:
        raise StatisticsError(
            f"signal {name!r}, components {', '.join(signal.names)}: {error}; a component "
            "that never changes has no spread: name other statistics, such as bridge_v2.json"
        ) from error
    if len(normaliser.centre) != signal.size:
        raise StatisticsError(
            f"statistics of {name!r}: expected {signal.size} components, "
            f"got {len(normaliser.centre)}"
        )
    return normaliser


class Codec(nn.Module, ABC):
    """One region's codec.

    token_count: tokens that it makes; they fill the first cells of the region.
    """

    token_count: int

    @classmethod
    @abstractmethod
    def build(cls, site: CodecSite) -> Codec:
        """The codec of a region."""

    def encode(self, sample: Frames | str | None, cache: FrameCache | None = None) -> torch.Tensor:
        """One sample to what `embed` takes, without batch dimension; no gradient flows here.

        Args:
            sample: frames, the instruction or None, by the codec's role.
            cache: of the episode; a frame that is in it is not encoded again.
        """
        return torch.empty(0)

    def encode_batch(self, values: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """The samples of a batch at once: `encode` of each, stacked (B, ...).

        Args:
            values: (B, F, ...) frames' values.
            missing: (B, F) bool, as of Frames.
        """
        return torch.empty(len(values), 0)

    @abstractmethod
    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Encoded samples (B, ...) to tokens (B, token_count, width)."""


class OutputCodec(Codec):
    """A codec whose output tokens mean a vector for each canvas step.

    Args:
        normaliser: of the signal.
        size: (t, h, w) of the region: t steps, or the horizon of an action.
        width: token width.
    """

    goes_on = False  # whether `go_on` heeds what is carried out

    def __init__(self, normaliser: Normaliser, size: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.horizon, h, w = size
        self.tokens_per_step = h * w
        self.token_count = self.horizon * self.tokens_per_step
        self.width = width

    @abstractmethod
    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Output tokens (B, token_count, width) to normalised values (B, t, size)."""

    def go_on(self, tokens: torch.Tensor, going_on: GoingOn) -> torch.Tensor:
        """As `decode`, of a chunk that goes on with what is carried out, where the codec can."""
        return self.decode(tokens)

    @abstractmethod
    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(B, t): how far output tokens are from normalised targets (B, t, size), for training."""

    def to_units(self, normalised: torch.Tensor) -> np.ndarray:
        """Normalised (..., size) to float32 (..., size) in the signal's units."""
        return self.normaliser.unnormalise(normalised.float().cpu().numpy())

    def from_units(self, values: np.ndarray) -> torch.Tensor:
        """The inverse of `to_units`: targets for training."""
        return torch.from_numpy(self.normaliser.normalise(values))

    def steps(self, tokens: torch.Tensor) -> torch.Tensor:
        """The mean of each step's tokens: (B, token_count, width) to (B, t, width)."""
        dtype = next(self.parameters()).dtype  # a head is float32, its backbone maybe not
        return tokens.to(dtype).unflatten(1, (self.horizon, self.tokens_per_step)).mean(dim=2)


def learned_queries(count: int, width: int) -> nn.Parameter:
    """(count, width) tokens to learn, as small at first as the canvas's other learned vectors."""
    return nn.Parameter(torch.randn(count, width) * 0.02)
