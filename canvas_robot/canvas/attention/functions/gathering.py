"""Attention where each query reads its own short list of keys. Who is on the list is not here."""

from __future__ import annotations

import torch

from canvas_robot.canvas.attention.functions.chunks import run_chunks


def take_rows(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows (R, m, ...) at index (R, ...) give (R, ..., ...): problem r takes from its own rows."""
    problems, m = rows.shape[:2]
    if problems > 1:
        first = torch.arange(problems, device=index.device) * m
        index = index + first.view(-1, *[1] * (index.dim() - 1))
    # Along the first axis of all: a CPU is twice as fast as along the second.
    taken = rows.flatten(0, 1).index_select(0, index.flatten())
    return taken.view(*index.shape, *rows.shape[2:])


def attend_listed(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    index: torch.Tensor,
    count: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of each query to the keys on its list; O(n K) time, bounded memory.

    Args:
        queries: (R, n, H, d).
        keys, values: (R, m, H, d).
        index: (G, n, K) int64, the keys of each query, with R a multiple of G: problem r reads
            list r % G.
        count: (G, n) int64, how many of a list's first entries count; None is all.

    Returns:
        (R, n, H, d); 0 where a list is empty.
    """
    problems, _, heads, size = queries.shape
    times = problems // max(1, index.shape[0])  # an empty batch has no lists
    scale = size**-0.5

    def attend(rows: slice, queries: torch.Tensor) -> torch.Tensor:
        listed = index[:, rows].repeat(times, 1, 1)
        logits = scale * dot(queries[:, :, None], take_rows(keys, listed))
        if count is None:
            weights = logits.softmax(2)
        else:
            places = torch.arange(index.shape[2], device=index.device)
            present = (places < count[:, rows, None]).repeat(times, 1, 1)[..., None]
            # The lowest finite number, not -inf: an empty list must not make nan.
            lowest = torch.finfo(logits.dtype).min
            weights = logits.masked_fill(~present, lowest).softmax(2) * present
        return (weights[..., None] * take_rows(values, listed)).sum(2)

    per_row = problems * index.shape[2] * heads * size
    return torch.cat(run_chunks(attend, (queries,), 1, per_row, shared=keys.numel()), dim=1)


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Dot products over the last axis, broadcast. For many tiny ones it beats einsum on a CPU."""
    return (a * b).sum(-1)
