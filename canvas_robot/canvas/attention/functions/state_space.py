"""Functions that write the dst rows, in order, into a state that src rows read: mamba and rwkv.

Only the last state is needed, so no recurrence runs: it is one sum over the dst rows, each decayed
by what came after it. Every exponent is <= 0, at any length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from canvas_robot.canvas.attention.functions.chunks import run_chunks
from canvas_robot.canvas.attention.functions.convolution import ShortConvolution
from canvas_robot.canvas.attention.functions.heads import (
    HeadProjections,
    linear,
    merge_heads,
    split_heads,
)
from canvas_robot.canvas.attention.functions.interface import (
    EdgeFunction,
    EdgeGeometry,
    EdgeOptions,
    EdgeShapeError,
)

CONVOLUTION_TAPS = 4
STEP_RANGE = (1e-3, 1e-1)  # of mamba's step sizes at first, as in the paper


class Mamba(EdgeFunction):
    """S = exp(delta_j A) S + delta_j u_j B_j over the dst rows, y_i = C_i . S * silu(z_i), way out.

    Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
    arXiv 2312.00752 (S6): u is the projected dst row after a causal depthwise convolution of 4 and
    silu, delta (softplus, low rank) and B come from u, A is negative, one for each channel and
    state. C and z come from the src row, which reads the last state only, so src rows never see
    each other. Left out: the paper's doubled inner width, and its skip from input to output (the
    src row keeps its own value beside the edge). O(N+M). Rows long before the end fade by
    exp(A sum delta): over thousands of dst rows the start is forgotten unless the steps learn to
    be small.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        states, rank = options.state_size, math.ceil(width / 16)
        self.value = linear(width, width)
        self.short = ShortConvolution(width, CONVOLUTION_TAPS, ahead=0)
        self.step_down = linear(width, rank)
        self.step_up = nn.Linear(rank, width)
        low, high = map(math.log, STEP_RANGE)
        steps = torch.empty(width).uniform_(low, high).exp()
        with torch.no_grad():
            self.step_up.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus undone
        self.write = linear(width, states)
        self.read = linear(width, states)
        self.log_rate = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(width, 1))
        self.gate = linear(width, width)
        self.out = linear(width, width)

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        rows = F.silu(self.short(self.value(dst)))  # (B, G, m, D)
        steps = F.softplus(self.step_up(self.step_down(rows)))
        state = last_selective_state(rows * steps, steps, self.write(rows), -self.log_rate.exp())
        read = self.read(src) @ state.transpose(-1, -2)  # (B, G, n, D)
        return self.out(read * F.silu(self.gate(src)))


def last_selective_state(
    inputs: torch.Tensor, steps: torch.Tensor, write: torch.Tensor, rates: torch.Tensor
) -> torch.Tensor:
    """The state (B, G, D, S) after m rows: sum_j exp(rates sum_{l>j} steps_l) inputs_j write_j.

    Args:
        inputs, steps: (B, G, m, D), steps >= 0.
        write: (B, G, m, S).
        rates: (D, S), <= 0.
    """
    later = steps.flip(2).cumsum(2).flip(2)
    # What follows row j, without row j itself; subtracting it would lose digits.
    later = F.pad(later[:, :, 1:], (0, 0, 0, 1))[..., None]

    def add_up(
        rows: slice, later: torch.Tensor, inputs: torch.Tensor, write: torch.Tensor
    ) -> torch.Tensor:
        return ((rates * later).exp() * inputs[..., None] * write[:, :, :, None]).sum(2)

    batch, groups, _, width = inputs.shape
    per_row = batch * groups * width * rates.shape[1]
    return torch.stack(run_chunks(add_up, (later, inputs, write), 2, per_row)).sum(0)


class RWKV(EdgeFunction):
    """S = sum_j diag(w)^(m-1-j) k_j v_j^T, y_i = norm(r_i S) * silu(g_i), then the way out.

    Peng et al. 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence",
    arXiv 2404.05892, Eagle (RWKV-5): one matrix state for each head, a learned decay w in (0, 1)
    for each key channel, token shift before keys and values, group norm for each head. The
    receptance r and the gate g come from the src row, which reads the last state only; with no
    current dst row, Eagle's bonus for it is left out. O(N+M). A dst row p rows before the end
    counts w^p.

    Raises:
        EdgeShapeError: heads of width 1, which the norm would turn to 0.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        if width == heads:
            raise EdgeShapeError(
                f"rwkv: expected heads at least 2 wide, got width {width} and {heads} heads"
            )
        self.project = HeadProjections(width, heads)
        self.gate = linear(width, width)
        place = (torch.arange(width) + 0.5) / width
        self.mix_key = nn.Parameter(place.clone())
        self.mix_value = nn.Parameter(place.clone())
        # w = exp(-exp(log_rate)): from 0.998 to 0.69 over the channels, as Eagle's lower layers.
        self.log_rate = nn.Parameter(-6 + 5 * place)
        self.norm = nn.GroupNorm(heads, width)

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        previous = F.pad(dst, (0, 0, 1, -1))
        keys = self.project.key(torch.lerp(previous, dst, self.mix_key))
        values = self.project.value(torch.lerp(previous, dst, self.mix_value))
        after = torch.arange(dst.shape[2] - 1, -1, -1, device=dst.device)[:, None]
        keys = keys * (-self.log_rate.exp() * after).exp()
        keys, values, receptances = (
            split_heads(rows, self.heads) for rows in (keys, values, self.project.query(src))
        )
        state = torch.einsum("rmhk,rmhv->rhkv", keys, values)
        read = torch.einsum("rnhk,rhkv->rnhv", receptances, state)
        read = merge_heads(self.norm(read.reshape(-1, self.width)), like=src)
        return self.project.out(read * F.silu(self.gate(src)))
