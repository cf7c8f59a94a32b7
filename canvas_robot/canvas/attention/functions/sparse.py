"""Functions in which each src row reads a few dst rows: the best, the nearest, or random ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from canvas_robot.canvas.attention.functions.cells import CellTable
from canvas_robot.canvas.attention.functions.chunks import chunk_size, run_chunks
from canvas_robot.canvas.attention.functions.gathering import attend_listed
from canvas_robot.canvas.attention.functions.heads import (
    HeadProjections,
    merge_heads,
    softmax_attention,
)
from canvas_robot.canvas.attention.functions.interface import (
    EdgeFunction,
    EdgeGeometry,
    EdgeOptions,
)


class SparseAttention(EdgeFunction):
    """For each query and head the `top_k` largest logits survive; softmax over those.

    Zhao et al. 2019, "Explicit Sparse Transformer", arXiv 1912.11637; found in chunks of queries as
    in Gupta et al. 2021, "Memory-efficient Transformers via Top-k Attention", arXiv 2106.06899.
    Softmax, values and the whole backward pass cost O(NK) and memory is bounded, but finding the
    exact top k multiplies every query with every key: O(NM). With m <= top_k it is full attention.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.project = HeadProjections(width, heads)

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        queries, keys, values = self.project(src, dst)
        if dst.shape[2] <= self.options.top_k:
            read = softmax_attention(queries, keys, values)
        else:
            # Each head is a problem of its own: (R H, rows, 1, d).
            queries, keys, values = (
                rows.transpose(1, 2).flatten(0, 1)[:, :, None] for rows in (queries, keys, values)
            )
            index = largest_logits(queries[:, :, 0], keys[:, :, 0], self.options.top_k)
            read = attend_listed(queries, keys, values, index)
            read = read[:, :, 0].unflatten(0, (-1, self.heads)).transpose(1, 2)
        return self.project.out(merge_heads(read, like=src))


@torch.no_grad()
def largest_logits(queries: torch.Tensor, keys: torch.Tensor, k: int) -> torch.Tensor:
    """(P, n, k) the keys (P, m, d) with the largest product with each query (P, n, d)."""
    columns = keys.transpose(1, 2).contiguous()

    def search(rows: slice, queries: torch.Tensor) -> torch.Tensor:
        return (queries @ columns).topk(k, dim=2, sorted=False).indices

    per_row = keys.shape[0] * keys.shape[1]
    return torch.cat(run_chunks(search, (queries,), 1, per_row), dim=1)


class LocalAttention(EdgeFunction):
    """Softmax over the dst rows within `window` of the src row, in space and time.

    Parmar et al. 2018, "Image Transformer", arXiv 1802.05751; windows centred on each query as in
    Hassani et al. 2022, "Neighborhood Attention Transformer", arXiv 2204.07143, but cut at the
    border, not shifted inward. Distances in t are canvas steps; h and w of the src row are first
    scaled to the dst region: it stands in the dst cell that its own cell's centre falls into. O(NW)
    for W cells in the window. A row without neighbours reads 0.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.project = HeadProjections(width, heads)
        lists = [neighbours(geometry, options.window) for geometry in geometries]
        self.keep("index", [index for index, _ in lists])
        self.keep("count", [count for _, count in lists])

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        index, count = self.kept("index", bucket), self.kept("count", bucket)
        read = attend_listed(*self.project(src, dst), index, count)
        return self.project.out(merge_heads(read, like=src))


def neighbours(
    geometry: EdgeGeometry, window: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each src row's dst rows within the window: index (G, n, W), and how many count (G, n).

    The lists are in ascending order, filled up with 0.
    """
    table = CellTable(geometry.dst_cells)
    centres = geometry.src_cells.clone()
    for axis in (0, 1):
        # floor((h + 0.5) H_dst / H_src), in integers
        scaled = (2 * centres[..., 1 + axis] + 1) * geometry.dst_size[axis]
        centres[..., 1 + axis] = scaled // (2 * geometry.src_size[axis])
    # In h and w no two cells of the dst region are further apart than this.
    farthest = (window[0], geometry.dst_size[0] - 1, geometry.dst_size[1] - 1)
    radii = [min(radius, far) for radius, far in zip(window, farthest, strict=True)]
    reach = (torch.arange(-r, r + 1, device=centres.device) for r in radii)
    around = torch.cartesian_prod(*reach)  # (W, 3)
    m = geometry.dst_rows
    size = chunk_size(geometry.groups * around.numel(), centres.device)
    found = []
    for part in centres.split(size, dim=1):
        index = table.find(part[:, :, None] + around)
        found.append(index.where(index >= 0, m).sort(-1).values)
    index = torch.cat(found, dim=1)
    count = (index < m).sum(-1)
    widest = max(1, int(count.max()))
    return index[..., :widest].where(index[..., :widest] < m, 0).clone(), count


class RandomFixed(EdgeFunction):
    """Softmax over `random_keys` distinct dst rows, drawn once for each src row.

    The random part of Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences",
    arXiv 2007.14062, for rows instead of blocks. The subset follows from the seed and the numbers
    of groups and rows alone, whatever the machine, so it need not be saved. O(NK).
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.project = HeadProjections(width, heads)
        self.keep(
            "index", [random_subsets(g, options.random_keys, options.seed) for g in geometries]
        )

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        read = attend_listed(*self.project(src, dst), self.kept("index", bucket))
        return self.project.out(merge_heads(read, like=src))


def random_subsets(geometry: EdgeGeometry, keys: int, seed: int) -> torch.Tensor:
    """(G, n, K) distinct dst rows for each src row, ascending; K = min(keys, m).

    Floyd's algorithm (Bentley and Floyd 1987, "A sample of brilliance", Communications of the ACM
    30(9)), all rows at once: in draw j of the last K numbers below m a number up to j is drawn, and
    j itself taken where that one is there already. Never m numbers for a row.
    """
    m, keys = geometry.dst_rows, min(keys, geometry.dst_rows)
    shape = (geometry.groups, geometry.src_rows)
    generator = torch.Generator("cpu").manual_seed(seed)
    chosen = torch.full((*shape, keys), -1, device="cpu")
    for i, last in enumerate(range(m - keys, m)):
        drawn = torch.randint(last + 1, shape, generator=generator, device="cpu")
        taken = (chosen[..., :i] == drawn[..., None]).any(-1)
        chosen[..., i] = drawn.where(~taken, last)
    return chosen.sort(-1).values
