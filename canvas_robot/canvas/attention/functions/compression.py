"""Functions that squeeze the dst rows into a few vectors first: perceiver and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

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


class Perceiver(EdgeFunction):
    """K learned latents attend to the dst rows; the src rows attend to the latents.

    Jaegle et al. 2021, "Perceiver: General Perception with Iterative Attention", arXiv 2103.03206,
    for the latents (which keep their own value beside what they read), and "Perceiver IO",
    arXiv 2107.14795, for reading them by queries. O((N+M) K). The latents start at unit scale, not
    at the paper's 0.02: without layers between, near-equal latents would read the same mean for
    long.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.latents = nn.Parameter(torch.randn(options.latents, width))
        self.compress = HeadProjections(width, heads)
        self.project = HeadProjections(width, heads)

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        latents = self.latents.expand(*dst.shape[:2], -1, -1)
        compressed = softmax_attention(*self.compress(latents, dst))
        latents = latents + self.compress.out(merge_heads(compressed, like=latents))
        read = softmax_attention(*self.project(src, latents))
        return self.project.out(merge_heads(read, like=src))


class Pooling(EdgeFunction):
    """The mean of the group's dst rows, the same for each of its src rows. No parameters.

    O(N+M).
    """

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        return dst.mean(2, keepdim=True).expand_as(src)
