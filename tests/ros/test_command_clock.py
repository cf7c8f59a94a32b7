"""Laws of the command clock: on its grid, skipping what it missed, gone when it is stopped."""

import threading
import time

from canvas_robot.ros.command_clock import CommandClock

TIMEOUT_S = 10.0


def test_calls_keep_to_the_grid_of_their_first_and_skip_what_a_slow_one_missed():
    """Whatever the machine does, each call is due a whole number of periods after the first."""
    times, done = [], threading.Event()

    def call() -> None:
        times.append(time.monotonic())
        if len(times) == 3:
            time.sleep(0.1)
        if len(times) == 8:
            done.set()

    clock = CommandClock(50.0, call)
    clock.start()
    assert done.wait(TIMEOUT_S) and clock.stop(TIMEOUT_S)
    assert clock.skipped >= 4
    assert times[3] - times[2] >= 0.1
    assert (len(times) + clock.skipped - 1) * 0.02 <= times[-1] - times[0] + 0.04
    assert clock.late_p99_ms >= 0.0


def test_a_stopped_clock_calls_no_more():
    times, first = [], threading.Event()

    def call() -> None:
        times.append(0)
        first.set()

    clock = CommandClock(100.0, call)
    assert clock.late_p99_ms == 0.0
    clock.start()
    assert first.wait(TIMEOUT_S) and clock.stop(TIMEOUT_S)
    count = len(times)
    threading.Event().wait(0.05)
    assert len(times) == count


def test_a_call_that_does_not_return_is_reported():
    release = threading.Event()
    started = threading.Event()

    def call() -> None:
        started.set()
        release.wait(TIMEOUT_S)

    clock = CommandClock(50.0, call)
    clock.start()
    assert started.wait(TIMEOUT_S)
    assert not clock.stop(0.05)
    release.set()
    assert clock.stop(TIMEOUT_S)
