"""ActionHead: from token vectors or latents to one action."""

from __future__ import annotations

import torch
from torch import nn


class ActionHead(nn.Module):
    """Linear, GELU, Linear on the mean over everything but channels.

    Accepts (B, T, C, H, W), (B, N, C) and (B, C); returns (B, action_dim).
    """

    def __init__(
        self, latent_channels: int = 16, action_dim: int = 7, hidden_dim: int | None = None
    ) -> None:
        super().__init__()
        hidden = hidden_dim if hidden_dim is not None else max(latent_channels // 2, 8)
        self.net = nn.Sequential(
            nn.Linear(latent_channels, hidden), nn.GELU(), nn.Linear(hidden, action_dim)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim not in (2, 3, 5):
            raise ValueError(
                f"ActionHead: expected (B, T, C, H, W), (B, N, C) or (B, C), got {tuple(x.shape)}"
            )
        means = {5: (1, 3, 4), 3: (1,), 2: ()}[x.ndim]
        return self.net(x.mean(dim=means) if means else x)
