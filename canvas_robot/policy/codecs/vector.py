"""VectorCodec: a measured vector to tokens.

Values are normalised by the checkpoint's statistics, never clipped.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from canvas_robot.policy.codecs.codec import Codec, CodecSite
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.signals import Frames, Normaliser


class VectorCodec(Codec):
    """A linear layer from a normalised vector and its missing flag to one canvas step's tokens.

    Args:
        normaliser: of the signal; its length is the vector's.
        size: (t, h, w) of the region.
        width: token width.
    """

    def __init__(self, normaliser: Normaliser, size: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.normaliser = normaliser
        frames, h, w = size
        self.token_count = frames * h * w
        self.project = nn.Linear(len(normaliser.centre) + 1, h * w * width)
        self.width = width

    @classmethod
    def build(cls, site: CodecSite) -> VectorCodec:
        return cls(site.normaliser, site.size, site.width)

    def encode(self, frames: Frames, cache: FrameCache | None = None) -> torch.Tensor:
        """(F, size + 1): the normalised vectors, each with 1 where the past is missing, else 0."""
        values = self.normaliser.normalise(frames.values)
        return torch.from_numpy(
            np.concatenate([values, frames.missing[:, None]], axis=1).astype(np.float32)
        )

    def encode_batch(self, values: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """(B, F, size + 1) of vectors (B, F, size), where they are."""
        vectors = torch.from_numpy(self.normaliser.normalise(values.cpu().numpy()))
        flags = missing[..., None].to(values.device, torch.float32)
        return torch.cat([vectors.to(values.device), flags], dim=-1)

    def vectors(self, inputs: torch.Tensor) -> np.ndarray:
        """The inverse of `encode` but for the missing flag: (F, size) in the signal's units."""
        return self.normaliser.unnormalise(inputs[..., :-1].float().cpu().numpy())

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.project(inputs.to(self.project.weight.dtype))
        return tokens.reshape(inputs.shape[0], -1, self.width)
