"""GroupedSoftmax: one softmax per row over everything it reads, mask-free, by the plan's groups.

No projections live here: the backbone brings its own, CanvasAttention has others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from canvas_robot.canvas.attention.batches import EVERY, RowBatch, alike_blocks
from canvas_robot.canvas.attention.functions.chunks import chunk_size, even
from canvas_robot.canvas.attention.functions.gathering import take_rows
from canvas_robot.canvas.attention.products import multiply_blocks, suits
from canvas_robot.canvas.static import StaticModule
from canvas_robot.schema import RowGroup

PAD_TO = 8  # fused attention kernels take head widths that are multiples of this


class GroupedSoftmax(StaticModule):
    """Attention of every row over its readable set; a row that reads nothing gets 0.

    Groups of equal shape run as one batch, without any mask, which would turn fused kernels off.

    Args:
        groups: of a plan, at least one; together they hold its rows, in order.
        places: (N,) int64 on the CPU, where each of the plan's rows lies in q, k, v and the result;
            None: they come in the plan's order.
    """

    def __init__(self, groups: Sequence[RowGroup], places: torch.Tensor | None = None) -> None:
        super().__init__()
        if places is not None:  # groups that lie together one after another: fewer copies
            groups = sorted(groups, key=lambda group: int(places[group.start]))
        self.batches = nn.ModuleList(
            SoftmaxBatch(blocks, places) for blocks in alike_blocks(groups)
        )
        order = torch.cat([batch.rows.flatten() for batch in self.batches]).cpu()
        in_order = torch.equal(order, torch.arange(len(order), device="cpu"))
        self.keep_static(ranks=None if in_order else order.argsort())

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """(B, N, heads, d) each, to (B, N, heads, d)."""
        if torch.is_grad_enabled():
            parts = [batch.attend(q, k, v, EVERY).flatten(1, 2) for batch in self.batches]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            return out if self.ranks is None else take_rows(out, self.ranks.expand(len(q), -1))
        out = q.new_empty(q.shape)  # every row is written once, where it belongs
        for batch in self.batches:
            batch.write(q, k, v, out)
        return out


class SoftmaxBatch(RowBatch):
    """The softmax of G groups of equal shape.

    Weights ride in two extra head channels, where q is 1 and k is log(weight) * sqrt(d), split into
    what its dtype holds and the rest: the logit is shifted by log(weight), forward and backward,
    to within float32 rounding even in half precision. Where all that a row reads weighs the same
    there is nothing to shift.
    """

    def __init__(self, groups: Sequence[RowGroup], places: torch.Tensor | None = None) -> None:
        super().__init__(groups, places)
        log_weights = None
        if any(len(set(g.weights)) > 1 for g in groups):
            log_weights = [_log_weights(g) for g in groups]
            log_weights = torch.tensor(log_weights, dtype=torch.float64, device="cpu")
        self.keep_static(log_weights=log_weights)  # (G, m)

    def write(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        """Puts the result where its rows lie in `out`; without a backward pass."""
        if suits(self, q, k, v):
            multiply_blocks(self, q, k, v, self.log_weights, out)
            return
        for groups in self.portions(q):
            self.put_rows(out, self.attend(q, k, v, groups), groups)

    def portions(self, q: torch.Tensor) -> Iterator[slice]:
        """The groups a few at a time on a CPU: what they read then stays in its cache."""
        size = len(self.rows)
        if q.device.type == "cpu":
            taken = 2 * (self.rows.shape[1] + self.reads.shape[1]) * q.shape[2] * q.shape[3]
            size = even(chunk_size(taken, q.device), len(self.rows))
        for start in range(0, len(self.rows), size):
            yield slice(start, start + size)

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: slice
    ) -> torch.Tensor:
        """(B, N, heads, d) each, to (B, G, n, heads, d) of some groups."""
        q = self.take_rows(q, groups)
        if self.silent:
            return torch.zeros_like(q)
        k, v = self.take_reads(k, groups), self.take_reads(v, groups)
        d = q.shape[-1]
        if self.log_weights is not None:
            q, k, v = self._with_weights(q, k, v, groups)
        shape = q.shape[:2]
        q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))  # (B * G, heads, n, d)
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0 / math.sqrt(d))
        return out.transpose(1, 2).unflatten(0, shape)[..., :d]

    def _with_weights(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: slice
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        d = q.shape[-1]
        pad = -(d + 2) % PAD_TO
        exact = self.log_weights[groups] * math.sqrt(d)
        shift = exact.to(k.dtype)
        shift = torch.stack([shift, (exact - shift).to(k.dtype)], dim=-1)  # (G, m, 2)
        shift = shift[None, :, :, None].expand(*k.shape[:-1], 2)
        return (
            F.pad(torch.cat([q, q.new_ones(*q.shape[:-1], 2)], dim=-1), (0, pad)),
            F.pad(torch.cat([k, shift], dim=-1), (0, pad)),
            F.pad(v, (0, 2 + pad)),
        )


def _log_weights(group: RowGroup) -> list[float]:
    """The logarithm of each read row's weight."""
    pairs = zip(group.reads, group.weights, strict=True)
    return [math.log(weight) for (start, stop), weight in pairs for _ in range(start, stop)]
