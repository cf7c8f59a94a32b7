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


def chunk_size(elements_per_row: int, device: torch.device, shared: int = 0) -> int:
    """Rows in a chunk: as many as the device likes, or as hold `shared` numbers if that is more."""
    most = CPU_CHUNK_ELEMENTS if device.type == "cpu" else DEVICE_CHUNK_ELEMENTS
    return max(1, max(most, shared) // max(1, elements_per_row))  # an empty batch has none


def even(size: int, count: int) -> int:
    """The largest size from `size` to half of it that divides the count, else `size` itself."""
    return next((s for s in range(size, size // 2, -1) if count % s == 0), size)


def run_chunks(
    function: Callable[..., torch.Tensor],
    tensors: tuple[torch.Tensor, ...],
    dim: int,
    elements_per_row: int,
    shared: int = 0,
) -> list[torch.Tensor]:
    """`function(rows, *parts)` of each chunk; what it computes inside is not kept for the gradient.

    Args:
        function: gets the chunk's rows as a slice and those rows of each tensor.
        tensors: cut along `dim`.
        elements_per_row: numbers in the largest tensor that `function` makes, for each row.
        shared: numbers in what every chunk reads whole. Its gradient is as large, once for each
            chunk; when one is wanted, chunks are large enough for this not to be the larger part.
    """
    rows = tensors[0].shape[dim]
    wanted = torch.is_grad_enabled()
    size = chunk_size(elements_per_row, tensors[0].device, shared if wanted else 0)
    chunks = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    # Split once: the gradient of a slice is as large as the whole, that of a split is not.
    parts = zip(*(tensor.split(size, dim) for tensor in tensors), strict=True)
    if len(chunks) == 1 or not wanted:
        return [function(chunk, *part) for chunk, part in zip(chunks, parts, strict=True)]
    return [
        checkpoint(function, chunk, *part, use_reentrant=False, preserve_rng_state=False)
        for chunk, part in zip(chunks, parts, strict=True)
    ]
