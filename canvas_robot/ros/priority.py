"""Priority: threads that must keep time run before all others, where the system lets them.

As ros2_control's controller manager has it: its threads ask for SCHED_FIFO, and go on without.
"""

from __future__ import annotations

import os
import threading

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
