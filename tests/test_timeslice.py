"""Laws of time slices: a thread gets a short one, and stays what it was in all else."""

import os
import platform

import pytest

from canvas_robot.timeslice import take_short_slices
from tests.threads import in_a_thread

KERNEL = tuple(int(number) for number in platform.release().split("-")[0].split(".")[:2])


def scheduled() -> tuple:
    policy = os.sched_getscheduler(0)
    return policy, os.sched_getparam(0).sched_priority, os.getpriority(os.PRIO_PROCESS, 0)


def test_a_short_slice_changes_nothing_else():
    def niced() -> tuple:
        os.nice(3)
        before, was_given = scheduled(), take_short_slices()
        return was_given, before, scheduled()

    was_given, before, after = in_a_thread(niced)
    assert after == before and before[2] >= 3
    assert was_given == (KERNEL >= (6, 12))


@pytest.mark.skipif(KERNEL < (6, 12), reason="this kernel's threads have no slices of their own")
def test_a_length_that_the_scheduler_does_not_allow_is_not_given():
    assert not in_a_thread(lambda: take_short_slices(1))


def test_a_thread_of_real_time_priority_is_left_alone():
    def real_time() -> tuple | None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            return None
        return scheduled(), take_short_slices(), scheduled()

    found = in_a_thread(real_time)
    if found is None:
        pytest.skip("this user may have no real-time priority")
    before, was_given, after = found
    assert before == after and before[:2] == (os.SCHED_FIFO, 1) and not was_given
