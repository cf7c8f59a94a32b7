"""Time slices: how long the scheduler of Linux lets a thread run before it looks at others.

A thread that wakes with a short slice is let in before those that run with a longer one; its share
of the processor stays the same. So what mostly waits, and then is waited for, should ask for one.
"""

from __future__ import annotations

import ctypes
import platform

SHORT_NS = 100_000  # the shortest there is; the scheduler's own is 0.7 to 3 ms
_SET_GET = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
_OTHER, _BATCH = 0, 3  # policies that have slices


class _Attributes(ctypes.Structure):
    """struct sched_attr, sched_setattr(2), as far as every kernel has it."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),  # of such a policy: the slice
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


def take_short_slices(nanoseconds: int = SHORT_NS) -> bool:
    """Asks for slices of that length for the calling thread, and what it starts from now on.

    Needs no permission. Whether that could be done: by Linux 6.12 or later, of a thread without
    real-time priority. Nothing else of how it is scheduled changes.
    """
    numbers = _SET_GET.get(platform.machine())
    call = getattr(ctypes.CDLL(None), "syscall", None)
    if platform.system() != "Linux" or numbers is None or call is None:
        return False
    set_number, get_number = numbers
    asked, told = _Attributes(), _Attributes()
    size = ctypes.sizeof(_Attributes)
    if call(get_number, 0, ctypes.byref(asked), size, 0) or asked.policy not in (_OTHER, _BATCH):
        return False
    asked.runtime_ns = nanoseconds
    if call(set_number, 0, ctypes.byref(asked), 0):
        return False
    # an older scheduler takes no notice
    call(get_number, 0, ctypes.byref(told), size, 0)
    return told.runtime_ns == nanoseconds
