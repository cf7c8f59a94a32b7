"""Splitting rows into heads, and the projections that the attending functions share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def split_heads(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, G, n, D) to (R, n, H, d)."""
    return rows.flatten(0, 1).unflatten(-1, (heads, -1))


def merge_heads(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(R, n, H, d) to the shape (B, G, n, D) of `like`: undoes `split_heads`."""
    return rows.reshape(like.shape)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map without bias: a bias on keys would cancel in every softmax, and without one an
    edge that reads nothing gives 0."""
    return nn.Linear(inputs, outputs, bias=False)


class HeadProjections(nn.Module):
    """Queries of the src rows, keys and values of the dst rows, and the way out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = linear(width, width)
        self.key = linear(width, width)
        self.value = linear(width, width)
        self.out = linear(width, width)

    def forward(
        self, src: torch.Tensor, dst: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (R, n, H, d), keys and values (R, m, H, d)."""
        return (
            split_heads(self.query(src), self.heads),
            split_heads(self.key(dst), self.heads),
            split_heads(self.value(dst), self.heads),
        )


def softmax_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float | None = None
) -> torch.Tensor:
    """Attention of queries (R, n, H, d) to all keys (R, m, H, d); scale None is 1 / sqrt(d)."""
    q, k, v = (rows.transpose(1, 2) for rows in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
