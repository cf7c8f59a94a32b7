"""Functions in which every src row weighs every dst row: linear, cosine, sigmoid and gated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from canvas_robot.canvas.attention.functions.chunks import run_chunks
from canvas_robot.canvas.attention.functions.heads import (
    HeadProjections,
    linear,
    merge_heads,
    softmax_attention,
    split_heads,
)
from canvas_robot.canvas.attention.functions.interface import (
    EdgeFunction,
    EdgeGeometry,
    EdgeOptions,
)

SMALLEST_NORMALISER = 1e-6  # where all features of a query vanish


class LinearAttention(EdgeFunction):
    """phi(q) (sum_j phi(k_j) v_j^T) / (phi(q) . sum_j phi(k_j)) with phi(x) = elu(x) + 1.

    Katharopoulos et al. 2020, "Transformers are RNNs: Fast Autoregressive Transformers with Linear
    Attention", arXiv 2006.16236, the non-causal form. O(N+M) in time and memory.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.project = HeadProjections(width, heads)

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        queries, keys, values = self.project(src, dst)
        queries = (F.elu(queries) + 1).transpose(1, 2)  # (R, H, n, d)
        # Both sums over dst rows are means here: the quotient is the same, the numbers stay small.
        keys = (F.elu(keys) + 1).transpose(1, 2) / keys.shape[1]
        state = keys.transpose(-1, -2) @ values.transpose(1, 2)  # (R, H, d, d)
        normaliser = queries @ keys.sum(2)[..., None]  # (R, H, n, 1)
        read = (queries @ state) / normaliser.clamp(min=SMALLEST_NORMALISER)
        return self.project.out(merge_heads(read.transpose(1, 2), like=src))


class CosineAttention(EdgeFunction):
    """Softmax over s q.k / (|q| |k|): directions alone decide; s is learned for each head, 1 at
    first.

    Henry et al. 2020, "Query-Key Normalization for Transformers", arXiv 2010.04245. Their s starts
    from the sequence length; ours from 1, as the table of types says (no factor at all). O(NM).
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.project = HeadProjections(width, heads)
        self.log_scale = nn.Parameter(torch.zeros(heads))

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        queries, keys, values = self.project(src, dst)
        queries = F.normalize(queries, dim=-1) * self.log_scale.exp()[:, None]
        read = softmax_attention(queries, F.normalize(keys, dim=-1), values, scale=1.0)
        return self.project.out(merge_heads(read, like=src))


class SigmoidAttention(EdgeFunction):
    """sum_j sigmoid(q.k_j / sqrt(d) - log m) v_j: keys do not compete.

    Ramapuram et al. 2024, "Theory, Analysis, and Best Practices for Sigmoid Self-Attention",
    arXiv 2409.04431, with their bias -log m. O(NM) in time; memory is bounded by computing the
    queries in chunks.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.project = HeadProjections(width, heads)

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        # Contiguous once, not once for each chunk: (R, H, rows, d)
        queries, keys, values = (
            rows.transpose(1, 2).contiguous() for rows in self.project(src, dst)
        )
        problems, heads, m, size = keys.shape
        queries = queries * size**-0.5

        def attend(rows: slice, queries: torch.Tensor) -> torch.Tensor:
            return (queries @ keys.transpose(-1, -2) - math.log(m)).sigmoid() @ values

        per_row = problems * heads * m
        read = torch.cat(run_chunks(attend, (queries,), 2, per_row, shared=keys.numel()), dim=2)
        return self.project.out(merge_heads(read.transpose(1, 2), like=src))


class GatedAttention(EdgeFunction):
    """Softmax attention times sigmoid(W x) of the src row x, channel by channel, then the way out.

    A gate on cross attention is Flamingo's idea: Alayrac et al. 2022, "Flamingo: a Visual Language
    Model for Few-Shot Learning", arXiv 2204.14198. Flamingo's gate is one number that starts at 0,
    which here is the executor's; this one looks at the row and stands where Qiu et al. 2025, "Gated
    Attention for Large Language Models", arXiv 2505.06708, found it best, before the way out.
    O(NM).
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.project = HeadProjections(width, heads)
        self.gate = linear(width, width)

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        read = softmax_attention(*self.project(src, dst))
        gate = split_heads(self.gate(src), self.heads).sigmoid()
        return self.project.out(merge_heads(gate * read, like=src))
