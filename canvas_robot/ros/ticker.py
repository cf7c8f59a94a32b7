"""Ticker: calls a function at the control rate, on absolute deadlines of the node's clock.

It does so in a thread of its own, and watches the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import final

from rclpy.clock import JumpThreshold, ROSClock
from rclpy.duration import Duration

CLOCK_STOPPED_S = 0.5  # a simulation clock that stands still this long is a fault
# A clock that parts from the steady one by more than this between two looks has jumped. Clocks are
# slewed by half a thousandth at most, so the system's is known to be stepped; a simulation's comes
# in steps, and may be slow, but never goes back.
SYSTEM_JUMP_S, SIMULATION_JUMP_S = 0.1, 0.5
_READ_NS = 10_000_000  # two clocks that are read within so long are read at once
_WALL_NAP_S = 0.05  # longest sleep, so that a stepped system clock is noticed
_NS = 1_000_000_000


@final
class ClockWatch:
    """Tells a clock that jumps from one that goes, by the steady clock."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self._was_simulated: bool | None = None

    def saw(self, now_ns: int, steady_ns: int, simulated: bool) -> float | None:
        """Seconds that the clock jumped by since the last look, ahead above 0; None: it did not.

        A simulation's reads 0 until its first message. One clock in place of the other, as with
        use_sim_time, is a jump from one's time to the other's.
        """
        last, other = self._last, self._was_simulated not in (None, simulated)
        self._was_simulated = simulated
        if other:
            self._last = (now_ns, steady_ns) if now_ns else None
            return (now_ns - last[0]) / _NS if last is not None else None
        if now_ns == 0 or (simulated and last is not None and now_ns == last[0]):
            return None  # time since the last change counts: changes come in messages
        self._last = now_ns, steady_ns
        if last is None:
            return None
        passed, ahead = now_ns - last[0], now_ns - last[0] - (steady_ns - last[1])
        limit_ns = (SIMULATION_JUMP_S if simulated else SYSTEM_JUMP_S) * _NS
        if simulated and passed < 0:
            return passed / _NS
        if ahead > limit_ns or (ahead < -limit_ns and not simulated):
            return ahead / _NS
        return None


class Ticker:
    """Ticks index 0, 1, 2, ... at origin + index * period.

    A tick that is late by whole periods is skipped.

    Args:
        clock: ROS time: the system's, or /clock where the node uses simulation time.
        period_ns: of the control ticks.
        tick: called with (index, nominal time in ns).
        ahead: what is called with the same so many ns before, the most first; not for a tick that
            is due at once, nor where a simulation's clock passes over that time.
        stopped: called once each time the simulation clock has stood still for CLOCK_STOPPED_S.
        jumped: called with the seconds by which the clock jumped, ahead above 0; the grid starts
            anew.
        begins: called once in the thread, before all else.
    """

    def __init__(
        self,
        clock: ROSClock,
        period_ns: int,
        tick: Callable[[int, int], None],
        ahead: Mapping[int, Callable[[int, int], None]],
        stopped: Callable[[], None],
        jumped: Callable[[float], None],
        begins: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock, self._period_ns = clock, period_ns
        self._tick, self._ahead = tick, ahead
        self._stopped, self._jumped, self._begins = stopped, jumped, begins
        self._running = True
        self._awake = threading.Event()
        self._anew = threading.Event()
        self._looking, self._watch = threading.Lock(), ClockWatch()
        self.missed = 0
        self._deadline = 0  # of the tick that runs, or comes next
        threshold = JumpThreshold(
            min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1)
        )
        self._jumps = clock.create_jump_callback(threshold, post_callback=self._on_jump)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread, if it was started; False where its tick did not return in time."""
        self._running = False
        self._awake.set()
        self._jumps.unregister()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def due_within(self, ns: int) -> bool:
        """Whether the next tick begins so soon, by its clock, or has begun."""
        return self._deadline - self._now() <= ns

    def look(self) -> None:
        """Notices a clock that jumped, and says so; for any thread, while a tick may take long."""
        before_ns = time.monotonic_ns()
        with self._looking:
            now_ns, simulated = self._now(), self._clock.ros_time_is_active
            steady_ns = time.monotonic_ns()
            if steady_ns - before_ns > _READ_NS:
                return
            jump_s = self._watch.saw(now_ns, steady_ns, simulated)
            if jump_s is None:
                return
            self._anew.set()
            self._jumped(jump_s)  # no tick of the new grid begins before
        self._awake.set()

    def _on_jump(self, jump) -> None:
        """Of a simulation clock, with each of its messages."""
        self._awake.set()

    def _now(self) -> int:
        return self._clock.now().nanoseconds

    def _run(self) -> None:
        self._begins()
        origin, index = None, 0
        while self._running:
            if origin is None or self._anew.is_set():
                self._anew.clear()
                if not self._wait_until(1):  # a simulation clock reads 0 until its first message
                    continue
                origin, index = self._now(), 0
            deadline = self._deadline = origin + index * self._period_ns
            if not (self._announce(index, deadline) and self._wait_until(deadline)):
                continue
            self._tick(index, deadline)
            if self._anew.is_set():  # no tick was missed
                continue
            due = max(index + 1, -(-(self._now() - origin) // self._period_ns))
            self.missed += due - index - 1
            index = due

    def _announce(self, index: int, deadline: int) -> bool:
        """False where the ticker stops or the clock jumped first."""
        for ahead_ns, announce in self._ahead.items():
            if not self._wait_until(deadline - ahead_ns):
                return False
            if self._now() < deadline:
                announce(index, deadline)
        return True

    def _wait_until(self, deadline: int) -> bool:
        """True at the deadline; False where the ticker stops or the clock jumped first."""
        reported = False
        while self._running:
            self._awake.clear()
            self.look()
            if self._anew.is_set():
                return False
            remaining = deadline - self._now()
            if remaining <= 0:
                return True
            simulated = self._clock.ros_time_is_active
            heard = self._awake.wait(
                CLOCK_STOPPED_S if simulated else min(remaining / _NS, _WALL_NAP_S)
            )
            if simulated and not heard and not reported:
                reported = True
                self._stopped()
        return False
