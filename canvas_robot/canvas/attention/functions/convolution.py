"""Convolutions along the dst rows: the short one that others use too, and hyena."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from canvas_robot.canvas.attention.functions.heads import linear
from canvas_robot.canvas.attention.functions.interface import (
    EdgeFunction,
    EdgeGeometry,
    EdgeOptions,
)

SHORT_TAPS = 3
FREQUENCIES = 8  # in the filter's positional features: 1 to 8 half periods over the offsets
FILTER_WIDTH = 64
SINE_FREQUENCY = 10.0
# The window is exp(-rate |offset|) + floor, offsets scaled to [-1, 1]; the rates run over channels
# from falling to 1 % at 1.5 times the sequence to falling to it at 0.3 times, as in the authors'
# code, and the floor keeps far rows in sight.
SLOWEST, FASTEST, FLOOR = math.log(100) / 1.5, math.log(100) / 0.3, 0.05


class ShortConvolution(nn.Module):
    """A depthwise convolution of rows (B, G, m, D) along m, zeros beyond both ends.

    Args:
        width: D.
        taps: rows that each row sees.
        ahead: how many of them lie after it; 0 is causal.
    """

    def __init__(self, width: int, taps: int, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead
        bound = taps**-0.5
        self.weight = nn.Parameter(torch.empty(taps, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        taps, m = self.weight.shape[0], rows.shape[2]
        padded = F.pad(rows, (0, 0, taps - 1 - self.ahead, self.ahead))
        shifted = (padded[:, :, i : i + m] * self.weight[i] for i in range(taps))
        return sum(shifted, start=self.bias)


class Hyena(EdgeFunction):
    """q_i * (h * (k v) + skip k v) at the src row's place, then the way out; h as long as the rows.

    Poli et al. 2023, "Hyena Hierarchy: Towards Larger Convolutional Language Models",
    arXiv 2302.10866, order 2: k and v pass a short depthwise convolution and multiply, an implicit
    filter (a sine network of the offset, times a window) convolves them by FFT, the query gates.
    Ours differs where the paper is a causal model of one sequence: both convolutions look both
    ways, so every row sees all dst rows of its group; src row i of n reads the result at row
    round(i (m-1) / (n-1)) of m, since it is no dst row; and the filter is scaled to a sum of
    magnitudes of 1 over the offsets, so that no length makes the result grow. Offsets are scaled
    to [-1, 1]: one filter serves every length. O(N + M log M).
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.query = linear(width, width)
        self.key = linear(width, width)
        self.value = linear(width, width)
        self.out = linear(width, width)
        self.short_key = ShortConvolution(width, SHORT_TAPS, ahead=SHORT_TAPS // 2)
        self.short_value = ShortConvolution(width, SHORT_TAPS, ahead=SHORT_TAPS // 2)
        self.filter = ImplicitFilter(width)
        self.skip = nn.Parameter(torch.randn(width))
        self.keep("place", [_proportional_places(g.src_rows, g.dst_rows) for g in geometries])

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        rows = self.short_key(self.key(dst)) * self.short_value(self.value(dst))
        rows = convolve_both_ways(rows, self.filter(dst.shape[2])) + self.skip * rows
        return self.out(self.query(src) * rows[:, :, self.kept("place", bucket)])


class ImplicitFilter(nn.Module):
    """A filter of any length, computed from the offsets: sine network times window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.features = nn.Linear(1 + 2 * FREQUENCIES, FILTER_WIDTH)
        self.hidden = nn.Linear(FILTER_WIDTH, FILTER_WIDTH)
        self.channels = linear(FILTER_WIDTH, width)

    def forward(self, m: int) -> torch.Tensor:
        """(2m-1, D) values at the offsets -(m-1) to m-1."""
        like = self.channels.weight
        offsets = torch.arange(1 - m, m, device=like.device).to(like.dtype) / max(m - 1, 1)
        offsets = offsets[:, None]
        angles = math.pi * offsets * torch.arange(1, FREQUENCIES + 1, device=like.device)
        features = torch.cat([offsets, angles.sin(), angles.cos()], dim=1)
        hidden = torch.sin(SINE_FREQUENCY * self.features(features))
        hidden = torch.sin(SINE_FREQUENCY * self.hidden(hidden))
        rates = torch.linspace(SLOWEST, FASTEST, self.width, device=like.device, dtype=like.dtype)
        values = self.channels(hidden) * ((-rates * offsets.abs()).exp() + FLOOR)
        return F.normalize(values, p=1, dim=0)


def convolve_both_ways(rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """y_p = sum_j values(p - j) rows_j for rows (B, G, m, D), values (2m-1, D), by FFT."""
    m = rows.shape[2]
    if rows.numel() == 0:  # an empty batch, which the FFT refuses
        return rows
    length = 1 << (2 * m - 2).bit_length()  # a power of two, no offset meets another in the circle
    dtype = torch.promote_types(rows.dtype, torch.float32)  # there is no FFT of half precision
    around = torch.cat([values[m - 1 :], values.new_zeros(length - 2 * m + 1, values.shape[1])])
    around = torch.cat([around, values[: m - 1]])
    spectrum = torch.fft.rfft(rows.to(dtype), n=length, dim=2)
    spectrum = spectrum * torch.fft.rfft(around.to(dtype), dim=0)
    return torch.fft.irfft(spectrum, n=length, dim=2)[:, :, :m].to(rows.dtype)


def _proportional_places(n: int, m: int) -> torch.Tensor:
    """(n,) row of m that lies as far along as each of n; halves round up."""
    span = 2 * max(n - 1, 1)
    return (2 * torch.arange(n, device="cpu") * (m - 1) + span // 2) // span
