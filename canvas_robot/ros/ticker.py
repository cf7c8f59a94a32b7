"""Ticker: calls a function at the control rate, on absolute deadlines of the node's clock.

It does so in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.clock import JumpThreshold, ROSClock
from rclpy.duration import Duration

CLOCK_STOPPED_S = 0.5  # a simulation clock that stands still this long is a fault
_WALL_NAP_S = 0.05  # longest sleep, so that a stepped system clock is noticed
_NS = 1_000_000_000


class Ticker:
    """Ticks index 0, 1, 2, ... at origin + index * period.

    A tick that is late by whole periods is skipped.

    Args:
        clock: ROS time: the system's, or /clock where the node uses simulation time.
        period_ns: of the control ticks.
        tick: called with (index, nominal time in ns).
        stopped: called once each time the simulation clock has stood still for CLOCK_STOPPED_S.
        jumped_back: called when the clock went backwards; the grid starts anew.
    """

    def __init__(
        self,
        clock: ROSClock,
        period_ns: int,
        tick: Callable[[int, int], None],
        stopped: Callable[[], None],
        jumped_back: Callable[[], None],
    ) -> None:
        self._clock, self._period_ns = clock, period_ns
        self._tick, self._stopped, self._jumped_back = tick, stopped, jumped_back
        self._running = True
        self._awake = threading.Event()
        self._back = threading.Event()
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
        """Ends the thread; False where its tick did not return in time."""
        self._running = False
        self._awake.set()
        self._jumps.unregister()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def due_within(self, ns: int) -> bool:
        """Whether the next tick begins so soon, by its clock, or has begun."""
        return self._deadline - self._now() <= ns

    def _on_jump(self, jump) -> None:
        if jump.delta.nanoseconds < 0:
            self._back.set()
        self._awake.set()

    def _now(self) -> int:
        return self._clock.now().nanoseconds

    def _run(self) -> None:
        origin, index = None, 0
        while self._running:
            if origin is None or self._back.is_set():
                if self._back.is_set():
                    self._back.clear()
                    self._jumped_back()
                if not self._wait_until(1):  # a simulation clock reads 0 until its first message
                    continue
                origin, index = self._now(), 0
            deadline = self._deadline = origin + index * self._period_ns
            if not self._wait_until(deadline):
                continue
            self._tick(index, deadline)
            due = max(index + 1, -(-(self._now() - origin) // self._period_ns))
            self.missed += due - index - 1
            index = due

    def _wait_until(self, deadline: int) -> bool:
        """True at the deadline; False where the ticker stops or the clock went back first."""
        reported = False
        while self._running and not self._back.is_set():
            self._awake.clear()
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
