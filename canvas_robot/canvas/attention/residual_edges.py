"""ResidualEdges: connections of every type but cross_attention, each behind a zero gate.

What each type computes lives in `functions`; which rows meet is the plan's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from canvas_robot.canvas.attention.batches import RowBatch, alike_blocks, indices
from canvas_robot.canvas.attention.functions import EDGE_FUNCTIONS
from canvas_robot.canvas.attention.functions.interface import EdgeGeometry, EdgeOptions
from canvas_robot.schema import CanvasLayout, EdgeBlock, Plan, ResidualEdge


class ResidualEdges(nn.Module):
    """What the residual edges add to their src rows: sum of gate * weight * function(src, dst).

    Every edge has one scalar gate that starts at 0 and is its only zero factor: at the first step
    the gate learns, from the second on the rest does. One module serves one block.

    Args:
        plan: its edges say which rows meet.
        layout: says where rows lie, for functions that look at places.
        width: channels of a row.
        heads: attention heads of the functions that have heads.
        options: sizes of windows, subsets and states.
        places: (N,) int64 on the CPU, where each of the plan's rows lies in the rows given; None:
            they come in the plan's order.
    """

    def __init__(
        self,
        plan: Plan,
        layout: CanvasLayout,
        width: int,
        heads: int,
        options: EdgeOptions,
        places: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(len(plan.edges)))
        self.weights = [edge.weight for edge in plan.edges]
        self.functions = nn.ModuleList()
        self.batches = nn.ModuleList()
        cells = [cell for region in plan.regions for cell in region.cells]
        cells = torch.tensor(cells, device="cpu")
        for edge in plan.edges:
            alike = alike_blocks(edge.blocks)
            geometries = [_geometry(edge, blocks, cells, layout) for blocks in alike]
            function = EDGE_FUNCTIONS[edge.fn](width, heads, geometries, options)
            self.functions.append(function)
            self.batches.append(nn.ModuleList(RowBatch(blocks, places) for blocks in alike))

    def forward(
        self,
        rows: torch.Tensor,
        chosen: Sequence[int] | None = None,
        ranks: torch.Tensor | None = None,
        count: int | None = None,
    ) -> torch.Tensor:
        """Rows (B, N, width) to what they gain: all of them, or the `count` rows that matter.

        It is computed in the parameters' precision, under autocast in autocast's, summed in the
        parameters' and returned in the rows' own.

        Args:
            rows: what the functions read.
            chosen: numbers of the edges that run; None: all.
            ranks: (N,) int64, where each row lies among those that matter; None: all matter.
            count: how many matter.
        """
        own = self.gates.dtype
        gained = rows.new_zeros(rows.shape[0], count or rows.shape[1], rows.shape[2], dtype=own)
        for i in range(len(self.functions)) if chosen is None else chosen:
            for bucket, batch in enumerate(self.batches[i]):
                src, dst = batch.take_rows(rows).to(own), batch.take_reads(rows).to(own)
                out = self.functions[i](src, dst, bucket)
                out = out.flatten(1, 2).to(own) * (self.gates[i] * self.weights[i])
                places = batch.rows.flatten()
                places = places if ranks is None else ranks[places]
                gained = gained.index_add(1, places, out)
        return gained.to(rows.dtype)


def _geometry(
    edge: ResidualEdge, blocks: Sequence[EdgeBlock], cells: torch.Tensor, layout: CanvasLayout
) -> EdgeGeometry:
    rows, reads = indices(blocks)
    return EdgeGeometry(
        _places(cells[rows], edge.src, layout),
        _places(cells[reads], edge.dst, layout),
        layout.region_size(edge.src)[1:],
        layout.region_size(edge.dst)[1:],
    )


def _places(cells: torch.Tensor, region: str, layout: CanvasLayout) -> torch.Tensor:
    """Flat cells (G, n) to (G, n, 3): canvas step, h and w from the region's corner."""
    _, _, h0, _, w0, _ = layout.region_spec(region).bounds
    t, rest = cells // (layout.H * layout.W), cells % (layout.H * layout.W)
    return torch.stack([t, rest // layout.W - h0, rest % layout.W - w0], dim=-1)
