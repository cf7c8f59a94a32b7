"""Laws of the ticker: its grid is the clock's, and a clock that jumps is told."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.clock import ROSClock
from rclpy.time import Time

from canvas_robot.ros.ticker import SIMULATION_JUMP_S, SYSTEM_JUMP_S, ClockWatch, Ticker

SECOND = 1_000_000_000
PERIOD_NS = 20_000_000
TIMEOUT_S = 10.0


def saw(watch: ClockWatch, simulated: bool, *moments: tuple[float, float]) -> list:
    """What a watch says of (clock, steady) in seconds, one after the other."""
    return [
        watch.saw(round(now * SECOND), round(steady * SECOND), simulated) for now, steady in moments
    ]


@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(-4e-4, 4e-4)), max_size=20), st.booleans())
def test_a_clock_that_is_slewed_however_long_has_not_jumped(steps, simulated):
    watch, now, steady = ClockWatch(), 1000.0, 5.0
    for seconds, slew in steps:
        now, steady = now + seconds * (1 + slew), steady + seconds
        assert saw(watch, simulated, (now, steady)) == [None]


@pytest.mark.parametrize("jump_s", [10.0, -10.0, 0.2, -0.2])
def test_a_system_clock_that_is_stepped_has_jumped_once(jump_s):
    assert abs(jump_s) > SYSTEM_JUMP_S
    told = saw(ClockWatch(), False, (100, 5), (100.02, 5.02), (100.04 + jump_s, 5.04))
    assert told[:2] == [None, None] and told[2] == pytest.approx(jump_s)
    watch = ClockWatch()
    saw(watch, False, (100, 5), (100 + jump_s, 5))
    assert saw(watch, False, (100.02 + jump_s, 5.02)) == [None]


def test_a_simulation_may_wait_go_slowly_or_fast_but_not_back_nor_far_ahead():
    fast = [(100 + 10 * k * 0.02, 5 + k * 0.02) for k in range(50)]
    slow = [(100 + 0.1 * k * 0.02, 5 + k * 0.02) for k in range(50)]
    stands = [(100.0, 5 + k * 0.5) for k in range(20)] + [(100.02, 15.0)]
    for moments in (fast, slow, stands):
        assert saw(ClockWatch(), True, *moments) == [None] * len(moments)
    assert saw(ClockWatch(), True, (100, 5), (99.99, 5.02))[1] == pytest.approx(-0.01)
    ahead = 2 * SIMULATION_JUMP_S
    assert saw(ClockWatch(), True, (100, 5), (100 + ahead, 5))[1] == pytest.approx(ahead)


def test_messages_of_a_simulations_clock_that_were_late_are_no_jump():
    """Looked at often, it changes rarely: the time since its last change counts."""
    late = [(100.0, 5 + k * 0.02) for k in range(100)]
    assert saw(ClockWatch(), True, *late, (102.0, 7.0))[-1] is None


def test_the_first_time_of_a_simulation_is_no_jump():
    assert saw(ClockWatch(), True, (0, 5), (0, 6), (1e6, 6.02)) == [None] * 3


def test_one_clock_in_place_of_the_other_is_a_jump():
    watch = ClockWatch()
    assert saw(watch, False, (100, 5)) == [None]
    assert saw(watch, True, (0, 5.02), (0, 5.04), (30, 5.06), (30.02, 5.08)) == [-100, *[None] * 3]
    assert saw(watch, False, (100, 5.1), (100.02, 5.12)) == [pytest.approx(69.98), None]


@dataclass
class SteppedClock:
    """A system clock that can be set: setting the machine's is not for tests."""

    offset_ns: int = 0
    ros_time_is_active = False

    def now(self) -> Time:
        return Time(nanoseconds=time.time_ns() + self.offset_ns)

    def create_jump_callback(self, threshold, *, post_callback):
        return ROSClock().create_jump_callback(threshold, post_callback=post_callback)


class Told:
    """What a ticker says, and a way to wait for it."""

    def __init__(self, clock, ticking=lambda: None, jumping=lambda: None) -> None:
        self.ticks: list[tuple[int, int]] = []
        self.soon: list[tuple[int, int, str]] = []
        self.jumps: list[float] = []
        self._came = threading.Condition()
        self._ticking, self._jumping = ticking, jumping
        ahead = {
            5_000_000: functools.partial(self._announced, "a"),
            1_000_000: functools.partial(self._announced, "b"),
        }
        self.ticker = Ticker(clock, PERIOD_NS, self._tick, ahead, lambda: None, self._jumped)

    def __enter__(self) -> Told:
        self.ticker.start()
        return self

    def __exit__(self, *exception) -> None:
        assert self.ticker.stop(TIMEOUT_S)

    def _tick(self, index: int, stamp_ns: int) -> None:
        self._ticking()
        with self._came:
            self.ticks.append((index, stamp_ns))
            self._came.notify_all()

    def _announced(self, name: str, index: int, stamp_ns: int) -> None:
        with self._came:
            assert (index, stamp_ns) not in self.ticks
            self.soon.append((index, stamp_ns, name))
            self._came.notify_all()

    def _jumped(self, seconds: float) -> None:
        self._jumping()
        with self._came:
            self.jumps.append(seconds)
            self._came.notify_all()

    def wait_for(self, condition) -> bool:
        with self._came:
            return self._came.wait_for(condition, TIMEOUT_S)


def test_a_tick_is_announced_twice_shortly_before():
    def is_twice(soon: list) -> bool:
        return [name for *_, name in soon[-2:]] == ["a", "b"]

    with Told(SteppedClock()) as told:
        assert told.wait_for(lambda: len(told.soon) >= 5 and is_twice(told.soon))
    announced = [(index, stamp_ns) for index, stamp_ns, _ in told.soon]
    assert set(announced[:-2]) <= set(told.ticks)
    assert sorted(set(told.soon)) == told.soon
    assert told.ticks[0] not in announced  # it is due at once


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_stepped_system_clock_is_told_and_the_grid_starts_anew(jump_s):
    clock = SteppedClock()
    with Told(clock) as told:
        assert told.wait_for(lambda: len(told.ticks) >= 3)
        clock.offset_ns = round(jump_s * SECOND)
        assert told.wait_for(lambda: told.jumps)
        since = len(told.ticks)
        assert told.wait_for(lambda: len(told.ticks) >= since + 3)
        assert told.jumps == [pytest.approx(jump_s, abs=1.0)]
        index, stamp_ns = told.ticks[-1]
        assert index < since + 100 and abs(clock.now().nanoseconds - stamp_ns) < 5 * SECOND
        assert told.ticker.missed < 1000  # none for the hour that was jumped over


def test_no_tick_of_the_new_grid_begins_while_a_jump_is_told():
    """Whoever noticed it: what is told of it first holds the arm."""
    clock, ticked = SteppedClock(), []

    def jumping() -> None:
        ticked.append(len(told.ticks))
        time.sleep(3 * PERIOD_NS / SECOND)  # nothing can be waited for that is not to come
        ticked.append(len(told.ticks))

    told = Told(clock, jumping=jumping)
    with told:
        assert told.wait_for(lambda: len(told.ticks) >= 3)
        clock.offset_ns = 3600 * SECOND
        told.ticker.look()
        assert told.wait_for(lambda: told.jumps)
        before, after = ticked
        assert after - before <= 1  # one that had begun
        assert told.wait_for(lambda: len(told.ticks) > after)


def test_a_jump_is_told_by_who_looks_though_a_tick_takes_for_ever():
    clock, going, let_go = SteppedClock(), threading.Event(), threading.Event()

    def hang() -> None:
        going.set()
        let_go.wait(TIMEOUT_S)

    with Told(clock, hang) as told:
        assert going.wait(TIMEOUT_S)
        clock.offset_ns = 3600 * SECOND
        deadline = time.monotonic() + TIMEOUT_S
        while not told.jumps and time.monotonic() < deadline:
            told.ticker.look()
        let_go.set()
        assert told.jumps == [pytest.approx(3600, abs=1.0)]


def test_a_simulations_clock_that_jumps_is_told_at_its_message():
    clock = ROSClock()
    clock._set_ros_time_is_active(True)  # what a node does that is to use simulation time

    def say(seconds: float) -> None:
        clock.set_ros_time_override(Time(seconds=seconds, clock_type=clock.clock_type))

    with Told(clock) as told:
        say(100.0)
        assert told.wait_for(lambda: told.ticks)
        assert not told.jumps
        say(110.0)
        assert told.wait_for(lambda: told.jumps)
        say(90.0)
        assert told.wait_for(lambda: len(told.jumps) == 2)
        assert told.jumps == [pytest.approx(10.0, abs=1.0), -20.0]
        assert told.wait_for(lambda: told.ticks[-1] == (0, 90 * SECOND))
