"""RowBatch: blocks of a plan's rows of equal shape, as index tensors. No attention lives here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn

from canvas_robot.schema import EdgeBlock, RowGroup


class RowBatch(nn.Module):
    """G blocks of n rows each; every row of a block reads the same m rows.

    The buffers move with the module and are not saved, for the plan makes them anew.

    Args:
        blocks: row groups or edge blocks, all with the same n and m.
    """

    def __init__(self, blocks: Sequence[RowGroup | EdgeBlock]) -> None:
        super().__init__()
        rows = torch.tensor([range(b.start, b.stop) for b in blocks])
        reads = torch.tensor([_flat(b.reads) for b in blocks], dtype=torch.long)
        self.register_buffer("rows", rows, persistent=False)  # (G, n)
        self.register_buffer("reads", reads, persistent=False)  # (G, m)
        self._row_span, self._read_span = _span(rows), _span(reads)

    @property
    def silent(self) -> bool:
        """Whether these rows read nothing."""
        return self.reads.shape[1] == 0

    def take_rows(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, ...) to (B, G, n, ...): the blocks' own rows; a view where they lie together."""
        return _take(x, self.rows, self._row_span)

    def take_reads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, ...) to (B, G, m, ...): what they read; a view where that lies together."""
        return _take(x, self.reads, self._read_span)


def batches_of(blocks: Sequence[RowGroup | EdgeBlock]) -> list[RowBatch]:
    """The blocks in batches of equal shape, in the order of each shape's first block."""
    return [RowBatch(alike) for alike in alike_blocks(blocks)]


def alike_blocks(blocks: Sequence[RowGroup | EdgeBlock]) -> list[list[RowGroup | EdgeBlock]]:
    """The blocks sorted into lists of equal shape (rows, rows read)."""
    shapes = defaultdict(list)
    for block in blocks:
        shapes[block.stop - block.start, sum(b - a for a, b in block.reads)].append(block)
    return list(shapes.values())


def _flat(runs: tuple[tuple[int, int], ...]) -> list[int]:
    return list(chain.from_iterable(range(start, stop) for start, stop in runs))


def _span(index: torch.Tensor) -> slice | None:
    """The slice that one block's index (1, n) stands for; None where there is no such slice."""
    if len(index) != 1 or index.shape[1] == 0:
        return None
    start = int(index[0, 0])
    together = torch.equal(index[0], torch.arange(start, start + index.shape[1]))
    return slice(start, start + index.shape[1]) if together else None


def _take(x: torch.Tensor, index: torch.Tensor, span: slice | None) -> torch.Tensor:
    if span is not None:
        return x[:, None, span]
    return x.index_select(1, index.flatten()).unflatten(1, index.shape)
