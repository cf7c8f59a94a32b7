"""RowBatch: blocks of a plan's rows of equal shape, as index tensors. No attention lives here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from canvas_robot.canvas.attention.functions.gathering import take_rows
from canvas_robot.canvas.static import StaticModule
from canvas_robot.schema import EdgeBlock, RowGroup
from canvas_robot.schema.plan import rows_in

EVERY = slice(None)


class RowBatch(StaticModule):
    """G blocks of n rows each; every row of a block reads the same m rows.

    Args:
        blocks: row groups or edge blocks, all with the same n and m.
        places: (N,) int64, where each of the plan's rows lies in the tensors to take from; None:
            they come in the plan's order.
    """

    def __init__(
        self, blocks: Sequence[RowGroup | EdgeBlock], places: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        rows, reads = indices(blocks)
        if places is not None:
            rows, reads = places[rows], places[reads]
        self._first_row, self._first_read = _first(rows), _first(reads)
        self.keep_static(rows=rows, reads=reads)

    @property
    def silent(self) -> bool:
        """Whether these rows read nothing."""
        return self.reads.shape[1] == 0

    def take_rows(self, x: torch.Tensor, blocks: slice = EVERY) -> torch.Tensor:
        """(B, N, ...) to (B, G, n, ...): the blocks' own rows; a view where they lie together."""
        return _take(x, self.rows, blocks, self._first_row)

    def take_reads(self, x: torch.Tensor, blocks: slice = EVERY) -> torch.Tensor:
        """(B, N, ...) to (B, G, m, ...): what they read; a view where that lies together."""
        return _take(x, self.reads, blocks, self._first_read)

    def view_rows(self, x: torch.Tensor) -> torch.Tensor | None:
        """As `take_rows` of all blocks, into `x`; None where they do not lie together."""
        return None if self._first_row is None else self.take_rows(x)

    def put_rows(self, out: torch.Tensor, values: torch.Tensor, blocks: slice = EVERY) -> None:
        """Writes (B, G, n, ...) to where `take_rows` took it from in `out`."""
        if self._first_row is None:
            out.index_copy_(1, self.rows[blocks].flatten(), values.flatten(1, 2))
        else:
            self.take_rows(out, blocks).copy_(values)


def alike_blocks(blocks: Sequence[RowGroup | EdgeBlock]) -> list[list[RowGroup | EdgeBlock]]:
    """The blocks sorted into lists of equal shape (rows, rows read)."""
    shapes = defaultdict(list)
    for block in blocks:
        shapes[block.stop - block.start, sum(b - a for a, b in block.reads)].append(block)
    return list(shapes.values())


def indices(blocks: Sequence[RowGroup | EdgeBlock]) -> tuple[torch.Tensor, torch.Tensor]:
    """The plan's rows of each block (G, n) and those that it reads (G, m), on the CPU."""
    rows = [range(block.start, block.stop) for block in blocks]
    reads = [rows_in(block.reads) for block in blocks]
    return tuple(torch.tensor(index, dtype=torch.long, device="cpu") for index in (rows, reads))


def _first(index: torch.Tensor) -> int | None:
    """Where a run of rows starts that the index (G, n) goes through in order; None: it is none."""
    if index.numel() == 0:
        return None
    first = int(index[0, 0])
    run = torch.arange(first, first + index.numel(), device=index.device)
    return first if torch.equal(index.flatten(), run) else None


def _take(x: torch.Tensor, index: torch.Tensor, blocks: slice, first: int | None) -> torch.Tensor:
    chosen = index[blocks]
    if first is None:
        return take_rows(x, chosen.expand(x.shape[0], *chosen.shape))
    start = first + (blocks.start or 0) * index.shape[1]
    return x[:, start : start + chosen.numel()].unflatten(1, chosen.shape)
