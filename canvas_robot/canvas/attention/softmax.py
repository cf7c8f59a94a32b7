"""GroupedSoftmax: one softmax per row over everything it reads, mask-free, by the plan's groups.

No projections live here: the backbone brings its own, CanvasAttention has others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from canvas_robot.canvas.attention.batches import RowBatch, alike_blocks
from canvas_robot.schema import RowGroup

PAD_TO = 8  # fused attention kernels take head widths that are multiples of this


class GroupedSoftmax(nn.Module):
    """Attention of every row over its readable set; a row that reads nothing gets 0.

    Groups of equal shape run as one batch, without any mask, which would turn fused kernels off.

    Args:
        groups: of a plan, at least one; together they hold its rows, in order.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        super().__init__()
        self.batches = nn.ModuleList(SoftmaxBatch(blocks) for blocks in alike_blocks(groups))
        order = torch.cat([batch.rows.flatten() for batch in self.batches])
        in_order = torch.equal(order, torch.arange(len(order)))
        self.register_buffer("places", None if in_order else order.argsort(), persistent=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """(B, N, heads, d) each, in the plan's rows, to (B, N, heads, d)."""
        out = [batch(q, k, v).flatten(1, 2) for batch in self.batches]
        joined = out[0] if len(out) == 1 else torch.cat(out, dim=1)
        return joined if self.places is None else joined.index_select(1, self.places)


class SoftmaxBatch(RowBatch):
    """The softmax of G groups of equal shape.

    Weights ride in an extra head channel, where q is 1 and k is log(weight) * sqrt(d): the logit is
    shifted by log(weight), exactly, forward and backward. Where all that a row reads weighs the
    same there is nothing to shift.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        super().__init__(groups)
        weighted = any(len(set(g.weights)) > 1 for g in groups)
        log_weights = torch.tensor([_log_weights(g) for g in groups], dtype=torch.float64)
        self.register_buffer("log_weights", log_weights if weighted else None, persistent=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """(B, N, heads, d) to (B, G, n, heads, d)."""
        q = self.take_rows(q)
        if self.silent:
            return torch.zeros_like(q)
        k, v = self.take_reads(k), self.take_reads(v)
        d = q.shape[-1]
        if self.log_weights is not None:
            q, k, v = self._with_weights(q, k, v)
        shape = q.shape[:2]
        q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))  # (B * G, heads, n, d)
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0 / math.sqrt(d))
        return out.transpose(1, 2).unflatten(0, shape)[..., :d]

    def _with_weights(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        d = q.shape[-1]
        pad = -(d + 1) % PAD_TO
        shift = (self.log_weights * math.sqrt(d)).to(k.dtype)[None, :, :, None, None]
        shift = shift.expand(*k.shape[:-1], 1)
        return (
            F.pad(torch.cat([q, torch.ones_like(q[..., :1])], dim=-1), (0, pad)),
            F.pad(torch.cat([k, shift], dim=-1), (0, pad)),
            F.pad(v, (0, 1 + pad)),
        )


def _log_weights(group: RowGroup) -> list[float]:
    """The logarithm of each read row's weight."""
    pairs = zip(group.reads, group.weights, strict=True)
    return [math.log(weight) for (start, stop), weight in pairs for _ in range(start, stop)]
