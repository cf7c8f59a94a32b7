"""Bounded memory: the same result a few rows at a time, recomputed for the backward pass.

Nothing here changes a value. Rabe and Staats 2021, "Self-attention Does Not Need O(n^2) Memory",
arXiv 2112.05682; recomputing: Chen et al. 2016, arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

# Numbers in the largest tensor of a chunk. A processor is fastest while a chunk stays in its cache
# (measured at 4,096 rows of width 64: from 2^18 to 2^20 alike, at 2^23 up to 1.5 times slower); an
# accelerator wants enough work in a kernel.
CPU_CHUNK_ELEMENTS = 2**20
DEVICE_CHUNK_ELEMENTS = 2**25


def row_chunks(rows: int, elements_per_row: int, device: torch.device) -> list[slice]:
    """Slices that cover `rows`, each of few enough rows for the device."""
    most = CPU_CHUNK_ELEMENTS if device.type == "cpu" else DEVICE_CHUNK_ELEMENTS
    step = max(1, most // elements_per_row)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def run_chunks(
    function: Callable[[slice], torch.Tensor],
    rows: int,
    elements_per_row: int,
    device: torch.device,
) -> list[torch.Tensor]:
    """`function` of each chunk of rows; what it computes inside is not kept for the gradient."""
    chunks = row_chunks(rows, elements_per_row, device)
    if len(chunks) == 1 or not torch.is_grad_enabled():
        return [function(chunk) for chunk in chunks]
    return [
        checkpoint(function, chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in chunks
    ]
