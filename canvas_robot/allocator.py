"""What the C library does with memory that was given back: by default, it returns much of it at
once and fetches it again, page by page, for the next picture.

A page that is fetched costs up to 14 us, where this was measured, and a picture of 640x480 has 225.
Each thread has a share of its own (an arena, mallopt(3)); what one has fetched helps no other. So a
thread that took pictures seldom was 3 to 6 ms late with each of the first that it took.
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
KEPT_BYTES = 256 << 20  # at most so much that was given back is kept
_LARGEST_KEPT = 32 << 20  # of one piece; glibc accepts no more
_PIECE = 1 << 20  # bytes, of those that are fetched ahead


def keep_freed_memory() -> bool:
    """Lets this process keep up to KEPT_BYTES for the next use; whether that could be done.

    With glibc only, and unless the environment says something else of it. Taking a picture of
    640x480 costs a third less so; its encoding by the tiny VAE took 17 ms in place of 24
    (`canvas-robot bench policy`, with and without).
    """
    chosen = any(
        name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    )
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if chosen or mallopt is None:
        return False
    return all(
        mallopt(option, value) == 1
        for option, value in ((_M_MMAP_THRESHOLD, _LARGEST_KEPT), (_M_TRIM_THRESHOLD, KEPT_BYTES))
    )


def share_memory() -> bool:
    """Lets threads that start from now on use one share of memory; whether that could be done.

    With glibc only, and unless the environment says something else of it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if "MALLOC_ARENA_MAX" in os.environ or mallopt is None:
        return False
    return mallopt(_M_ARENA_MAX, 1) == 1


def fetch_memory(count: int) -> None:
    """Fetches so many bytes ahead, for what the calling thread and those of its share do next.

    They are kept where `keep_freed_memory` could be done; where not, this has no effect.
    """
    pieces = [b"x" * _PIECE for _ in range(-(-count // _PIECE))]
    del pieces
