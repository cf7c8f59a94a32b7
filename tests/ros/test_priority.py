"""Laws of real-time priority: asked for by the threads that keep time, and by no others."""

import os
import re
import subprocess
import sys
import threading

import pytest

from canvas_robot.ros.priority import (
    WAITING_S,
    WORKING_S,
    priority_refused,
    switching_after,
    take_priority,
)
from tests.ros.conftest import FOLLOWING, TIMEOUT_S
from tests.threads import in_a_thread

NOBODY = 65534
REFUSED = re.compile(
    r"no real-time priority 7: .+; allow it to the user \(rtprio .+thread_priority"
)


def policy_of(native_id: int) -> tuple[int, int]:
    policy = os.sched_getscheduler(native_id) & ~os.SCHED_RESET_ON_FORK
    return policy, os.sched_getparam(native_id).sched_priority


def may_have_priority() -> bool:
    return in_a_thread(lambda: take_priority(1)) == ""


needs_permission = pytest.mark.skipif(
    not may_have_priority(), reason="this user may have no real-time priority"
)


@needs_permission
def test_asking_whether_it_would_be_given_changes_nothing():
    before = policy_of(0)
    assert priority_refused(7) == "" and policy_of(0) == before


def test_none_is_asked_for_by_0():
    def ask():
        before = policy_of(0)
        return take_priority(0), before == policy_of(0)

    assert in_a_thread(ask) == ("", True)


@needs_permission
def test_it_is_the_calling_threads_and_not_that_of_what_it_starts():
    def ask():
        said = take_priority(7)
        child = in_a_thread(lambda: policy_of(0))
        program = "import os; print(os.sched_getscheduler(0))"
        process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        return said, policy_of(0), child, process.stdout.strip()

    normal = (os.SCHED_OTHER, 0)
    assert in_a_thread(ask) == ("", (os.SCHED_FIFO, 7), normal, str(os.SCHED_OTHER))
    assert policy_of(0) == normal


def test_a_user_who_may_not_is_told_the_remedy_and_goes_on():
    program = (
        "import os\n"
        "from canvas_robot.ros.priority import priority_refused, take_priority\n"
        f"os.geteuid() or os.setuid({NOBODY})\n"
        "print(take_priority(7))\n"
        "print(priority_refused(7))\n"
        "print(os.sched_getscheduler(0))\n"
    )
    if os.geteuid() and may_have_priority():
        pytest.skip("this user may have real-time priority and can be no other")
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    said, asked, scheduler = told.stdout.splitlines()
    assert REFUSED.match(said) and said == asked and scheduler == str(os.SCHED_OTHER), told.stderr


def test_the_switch_interval_is_what_it_was_after_whatever_happens():
    before = sys.getswitchinterval()
    with pytest.raises(KeyError), switching_after(WORKING_S):
        assert sys.getswitchinterval() == pytest.approx(WORKING_S)
        with switching_after(WAITING_S):
            assert sys.getswitchinterval() == pytest.approx(WAITING_S)
        assert sys.getswitchinterval() == pytest.approx(WORKING_S)
        raise KeyError
    assert sys.getswitchinterval() == before


@needs_permission
@pytest.mark.parametrize("asked, control", [(50, 49), (1, 0), (0, 0)])
def test_an_active_nodes_threads_have_what_is_asked_for(
    start_policy, robot, monitor, asked, control
):
    start_policy(**FOLLOWING, stand_in="constant", thread_priority=asked)
    assert monitor.wait_for(lambda: any(s.active for s in monitor.statuses), TIMEOUT_S)
    assert monitor.wait_for(lambda: monitor.motions, TIMEOUT_S)  # both threads run
    threads = {thread.name: thread.native_id for thread in threading.enumerate()}
    assert policy_of(threads["commands"])[1] == asked
    assert policy_of(threads["control"])[1] == control
