"""Priority: threads that must keep time run before all others, where the system lets them.

As ros2_control's controller manager has it: its threads ask for SCHED_FIFO, and go on without.

Python's interpreter runs one thread of a process at a time and knows no priorities. A thread that
wants it asks for it after the switch interval. One that works gives it up for an instant at each
system call and has it again before another has woken; each time the interval of whoever waits
begins anew. With one longer than the time between two calls, an executor that writes diagnostics
keeps a decision waiting for 2 ms. A short interval ends that wait, but cuts into the work of the
threads that keep time as well. So it is short while they wait, and long while one of them works.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAITING_S, WORKING_S = 4e-5, 5e-4  # switch intervals; Python's own is 5e-3

_REMEDY = (
    "allow it to the user (rtprio in /etc/security/limits.conf; in a container --cap-add=sys_nice "
    "--ulimit rtprio=99), or set thread_priority to 0"
)


def take_priority(priority: int) -> str:
    """Asks for a real-time priority of the calling thread, 1 to 99; 0: for none.

    What it starts has none. "" where it was given; otherwise why not, and the remedy.
    """
    if priority == 0:
        return ""
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError as error:
        return f"no real-time priority {priority}: {error.strerror}; {_REMEDY}"
    return ""


def priority_refused(priority: int) -> str:
    """Why a thread that asks for a priority would not get it, and the remedy; "" where it would."""
    said: list[str] = []
    asks = threading.Thread(target=lambda: said.append(take_priority(priority)))
    asks.start()
    asks.join()
    return said[0]


@contextmanager
def switching_after(seconds: float) -> Iterator[None]:
    """Lets threads that want the interpreter meanwhile ask for it after so long, then as before.

    Of all threads, as there is one interval; where two do so at once, the last that ends decides.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
