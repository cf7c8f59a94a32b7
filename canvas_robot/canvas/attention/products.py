"""Softmax attention of many small blocks on a processor, as products in a few buffers.

Torch's fused attention asks for memory and calls a library for every few rows of every head, and
threads wait for each other there. Where the scores of a block fit in a processor's cache, several
threads are faster writing them out, where those of the blocks before lay. Here is no backward pass.
"""

from __future__ import annotations

import math

import torch

from canvas_robot.canvas.attention.batches import RowBatch
from canvas_robot.canvas.attention.eager import is_eager
from canvas_robot.canvas.attention.functions import chunks

# From where on it is faster, with 2 threads and 2 to 30 heads: rows of a block and rows that it
# reads; scores in all.
FEWEST, FEWEST_SCORES = 16, 2**18
MOST_ROWS = 2**31  # of a table: an int32 counts them
EXACT = (torch.float32, torch.float64)  # in which a library multiplies


def suits(batch: RowBatch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether `multiply_blocks` may be called, and is the faster way."""
    if not is_eager(q, k, v) or torch.get_num_threads() == 1:
        return False
    (blocks, n), m = batch.rows.shape, batch.reads.shape[1]
    scores = q.shape[0] * q.shape[2] * n * m
    if min(n, m) < FEWEST or scores * blocks < FEWEST_SCORES or scores > chunks.CPU_CHUNK_ELEMENTS:
        return False
    exact = q.dtype in EXACT and q.dtype == k.dtype == v.dtype
    return exact and _is_table(k) and _is_table(v)


def multiply_blocks(
    batch: RowBatch,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    log_weights: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """Writes the attention of the batch's rows to where they lie in `out`.

    Args:
        q, out: (B, N, heads, d); k, v: (B, M, heads, d), read in one go where each head's values
            lie behind its keys.
        log_weights: (G, m), added to the scores of each block's rows; None: nothing is.
    """
    (problems, _, heads, d), (blocks, n), m = q.shape, batch.rows.shape, batch.reads.shape[1]
    most = chunks.chunk_size(problems * heads * n * m, q.device)
    size = chunks.even(min(most, blocks), blocks)
    width = 2 * d if _is_pair(k, v) else d
    tables = [_Table(x, width) for x in ((k, v) if width == d else (k,))]
    read_rows = batch.reads.int()[:, None, None].split(size)
    place = batch.view_rows(out)
    results = q.new_empty(problems, blocks, n, heads, d) if place is None else place
    asked, told = (x.permute(1, 0, 3, 2, 4).split(size) for x in (batch.take_rows(q), results))
    shifts = [None] * len(asked)
    if log_weights is not None:
        shifts = log_weights.to(q.dtype)[:, None, None].expand(-1, problems, heads, -1).split(size)
    shapes = [(n, d), (n, m), (n, d), *((m, width) for _ in tables)]
    buffers = [q.new_empty(size, problems, heads, *shape) for shape in shapes]
    count, scale = 0, 1.0 / math.sqrt(d)
    for own, result, shift, rows in zip(asked, told, shifts, read_rows, strict=True):
        if len(own) != count:  # the first time, and where fewer are left at the end
            count = len(own)
            queries, _, summed, *_ = taken = [buffer[:count] for buffer in buffers]
            q_rows, scores, sums, *read = (x.flatten(0, 2) for x in taken)
            places = [x.view(-1, width) for x in read]
            keys, values = read[0][..., :d].transpose(1, 2), read[-1][..., width - d :]
        queries.copy_(own)
        for table, where in zip(tables, places, strict=True):
            table.read(rows, where)
        if shift is None:
            torch.baddbmm(scores, q_rows, keys, beta=0, alpha=scale, out=scores)
        else:
            torch.baddbmm(shift.flatten(0, 2)[:, None], q_rows, keys, alpha=scale, out=scores)
        torch.softmax(scores, -1, out=scores)
        torch.bmm(scores, values, out=sums)
        result.copy_(summed)
    if place is None:
        batch.put_rows(out, results)


def _is_table(x: torch.Tensor, width: int | None = None) -> bool:
    """Whether (B, M, heads, d) are the beginnings of rows of `width` numbers, or d, in memory."""
    width = width or x.shape[-1]
    counted = x.untyped_storage().nbytes() // x.element_size() < MOST_ROWS
    return counted and x.stride(-1) == 1 and not any(step % width for step in x.stride()[:-1])


def _is_pair(k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether each row of v lies behind that of k, in rows of both."""
    d = k.shape[-1]
    behind = v.data_ptr() == k.data_ptr() + d * k.element_size()
    return behind and k.stride() == v.stride() and _is_table(k, 2 * d)


class _Table:
    """The rows (R, width) that (B, M, heads, d) begins in memory."""

    def __init__(self, x: torch.Tensor, width: int) -> None:
        of_problem, self._step, of_head = (stride // width for stride in x.stride()[:-1])
        last = (len(x) - 1) * of_problem + (x.shape[1] - 1) * self._step
        last += (x.shape[2] - 1) * of_head
        self._rows = x.as_strided((last + 1, width), (width, 1))
        device = x.device  # not the default one
        problems, heads = (
            torch.arange(size, dtype=torch.int32, device=device) for size in x.shape[::2]
        )
        self._places = problems[:, None, None] * of_problem + heads[:, None] * of_head

    def read(self, rows: torch.Tensor, out: torch.Tensor) -> None:
        """Rows (g, 1, 1, m) int32 of each problem and head, to (g * B * heads * m, width)."""
        index = rows * self._step + self._places
        torch.index_select(self._rows, 0, index.flatten(), out=out)
