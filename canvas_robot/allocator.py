"""What the C library does with memory that was given back: by default, it returns much of it at
once and fetches it again, page by page, for the next picture.
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT_BYTES = 256 << 20  # at most so much that was given back is kept
_LARGEST_KEPT = 32 << 20  # of one piece; glibc accepts no more


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
