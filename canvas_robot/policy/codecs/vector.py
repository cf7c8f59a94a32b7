"""VectorCodec: a measured vector to tokens.

Values are normalised by the checkpoint's statistics, never clipped.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from canvas_robot.signals import Frames, Normaliser


class VectorCodec(nn.Module):
    """A linear layer from a normalised vector and its missing flag to one canvas step's tokens.

    Args:
        normaliser: of the signal; its length is the vector's.
        tokens_per_step: h * w of the region.
        width: token width.
    """

    def __init__(self, normaliser: Normaliser, tokens_per_step: int, width: int) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.width = width
        self.project = nn.Linear(len(normaliser.centre) + 1, tokens_per_step * width)

    def inputs(self, frames: Frames) -> torch.Tensor:
        """(F, size + 1): the normalised vectors, each with 1 where the past is missing, else 0."""
        values = self.normaliser.normalise(frames.values)
        return torch.from_numpy(
            np.concatenate([values, frames.missing[:, None]], axis=1).astype(np.float32)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, F, size + 1) to embeddings (B, F * tokens_per_step, width)."""
        return self.project(inputs).reshape(inputs.shape[0], -1, self.width)
