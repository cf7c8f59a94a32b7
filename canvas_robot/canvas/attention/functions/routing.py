"""The function in which a learned router chooses what each src row reads: mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from canvas_robot.canvas.attention.functions.chunks import run_chunks
from canvas_robot.canvas.attention.functions.gathering import dot, take_rows
from canvas_robot.canvas.attention.functions.heads import HeadProjections, linear, merge_heads
from canvas_robot.canvas.attention.functions.interface import (
    EdgeFunction,
    EdgeGeometry,
    EdgeOptions,
)

CHOSEN_BLOCKS = 2


class Mixture(EdgeFunction):
    """Softmax attention within the two blocks of dst rows that a router chose, mixed by its
    probabilities.

    The dst rows are cut, in order, into E blocks of at most K/2 rows. A block's key is a linear map
    of its rows' mean, a src row's query another; the two largest products win, and the softmax of
    those two weighs the blocks' results. The router learns through these weights, so it needs two
    blocks: with one, the weight would always be 1.

    Blocks, not single rows: the router then multiplies N E = 2 N M / K pairs, each as wide as one
    head, 2 / (K H) of full attention's products, and chosen rows lie together in memory. This is
    not O(NK): for M > K^2 H the router is the larger part. Memory is bounded by computing the
    queries in chunks.

    Blocks chosen by their mean: Lu et al. 2025, "MoBA: Mixture of Block Attention for Long-Context
    LLMs", arXiv 2502.13189 (without learned maps); weights that carry the router's gradient:
    Shazeer et al. 2017, "Outrageously Large Neural Networks", arXiv 1701.06538.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.project = HeadProjections(width, heads)
        self.route_src = linear(width, width // heads)
        self.route_dst = linear(width, width // heads)

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        queries, keys, values = self.project(src, dst)
        problems, _, heads, size = queries.shape
        m = keys.shape[1]
        blocks, rows_each = block_sizes(m, self.options.routed_keys // CHOSEN_BLOCKS)
        chosen = min(CHOSEN_BLOCKS, blocks)
        scale = size**-0.5

        def cut(rows: torch.Tensor) -> torch.Tensor:
            """(R, m, ...) to (R, E, rows of a block, ...), 0 after the last row."""
            padding = rows.new_zeros(problems, blocks * rows_each - m, *rows.shape[2:])
            return torch.cat([rows, padding], dim=1).unflatten(1, (blocks, rows_each))

        keys, values = cut(keys), cut(values)
        present = torch.arange(blocks * rows_each, device=src.device) < m
        present = present.view(blocks, rows_each)
        means = cut(dst.flatten(0, 1)).sum(2) / present.sum(1)[:, None]
        block_keys = self.route_dst(means).transpose(1, 2) * scale  # (R, d, E)
        block_queries = self.route_src(src).flatten(0, 1)  # (R, n, d)

        def attend(rows: slice, queries: torch.Tensor, block_queries: torch.Tensor) -> torch.Tensor:
            best = (block_queries @ block_keys).topk(chosen, dim=2)
            # (R, rows, chosen, rows of a block, H, d)
            near_keys, near_values = take_rows(keys, best.indices), take_rows(values, best.indices)
            logits = scale * dot(queries[:, :, None, None], near_keys)
            absent = ~present[best.indices][..., None]
            weights = logits.masked_fill(absent, -math.inf).softmax(3)
            weights = weights * F.softmax(best.values, dim=2)[..., None, None]
            return (weights[..., None] * near_values).sum((2, 3))

        per_row = problems * max(blocks, chosen * rows_each * heads * size)
        pieces = run_chunks(attend, (queries, block_queries), 1, per_row, shared=keys.numel())
        read = torch.cat(pieces, dim=1)
        return self.project.out(merge_heads(read, like=src))


def block_sizes(m: int, most: int) -> tuple[int, int]:
    """(blocks, rows of each) that cut m rows into the fewest blocks of at most `most` rows, as even
    as possible; the last may have fewer rows but has some."""
    blocks = math.ceil(m / most)
    return blocks, math.ceil(m / blocks)
