"""ActionCodec: learned query tokens in, an action chunk out.

One forward decodes the whole horizon.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from canvas_robot.backbone.action_head import ActionHead
from canvas_robot.signals import Normaliser


class ActionCodec(nn.Module):
    """Decodes the action region's tokens.

    The h * w tokens of a step are averaged, then the head regresses.

    Args:
        normaliser: of the action signal.
        size: (horizon, h, w) of the region.
        width: token width.
    """

    def __init__(self, normaliser: Normaliser, size: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.horizon, h, w = size
        self.tokens_per_step = h * w
        self.width = width
        self.head = ActionHead(width, action_dim=len(normaliser.centre), hidden_dim=width)

    def queries(self, batch: int) -> torch.Tensor:
        """(B, horizon * tokens_per_step, width) zeros.

        What a query asks is its position and modality vector.
        """
        return torch.zeros(batch, self.horizon * self.tokens_per_step, self.width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, horizon * tokens_per_step, width) to normalised actions (B, horizon, size)."""
        batch = tokens.shape[0]
        steps = tokens.reshape(batch * self.horizon, self.tokens_per_step, self.width)
        return self.head(steps).reshape(batch, self.horizon, -1)

    def decode(self, normalised: torch.Tensor) -> np.ndarray:
        """(horizon, size) normalised to (horizon, size) float32 in the action's units."""
        return self.normaliser.unnormalise(normalised.float().cpu().numpy())

    def encode(self, actions: np.ndarray) -> torch.Tensor:
        """The inverse of `decode`: targets for training."""
        return torch.from_numpy(self.normaliser.normalise(actions))
