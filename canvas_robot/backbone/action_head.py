"""ActionHead: from token vectors or latents to one action."""

from __future__ import annotations

import torch
from torch import nn

from canvas_robot.backbone.loops import require_count


class ActionHead(nn.Module):
    """Linear, GELU, Linear on the mean over everything but channels.

    Accepts (B, T, C, H, W), (B, N, C) and (B, C); returns (B, action_dim).

    Args:
        latent_channels: C.
        action_dim: numbers of an action.
        hidden_dim: width between the two; None: half of the channels, at least 8.
    Raises:
        ValueError: a size that is no int or below 1; tokens of another number of dimensions.
    """

    def __init__(
        self, latent_channels: int = 16, action_dim: int = 7, hidden_dim: int | None = None
    ) -> None:
        super().__init__()
        channels = require_count("latent_channels", latent_channels)
        actions = require_count("action_dim", action_dim)
        hidden = max(channels // 2, 8)
        if hidden_dim is not None:
            hidden = require_count("hidden_dim", hidden_dim)
        self.net = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, actions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim not in (2, 3, 5):
            raise ValueError(
                f"ActionHead: expected (B, T, C, H, W), (B, N, C) or (B, C), got {tuple(x.shape)}"
            )
        means = {5: (1, 3, 4), 3: (1,), 2: ()}[x.ndim]
        return self.net(x.mean(dim=means) if means else x)
