"""CommandClock: calls a function at the command rate, on absolute deadlines of the steady clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

_KEPT = 500  # latenesses, ten seconds' worth at 50 Hz


class CommandClock:
    """Ticks in a thread of its own until stopped; a deadline that passed is skipped, not made up.

    The steady clock runs on where the simulation's stands still, so what watches over time does
    too. The first call comes half a period after the start: between the ticks of a slower clock
    that starts with this one.

    skipped: deadlines that passed while a call ran.

    Args:
        rate_hz: of the calls.
        call: must not raise.
        begins: called once in the thread, before all else; must not raise.
    """

    def __init__(
        self, rate_hz: float, call: Callable[[], None], begins: Callable[[], None] = lambda: None
    ) -> None:
        self._period_ns, self._call, self._begins = round(1e9 / rate_hz), call, begins
        self._running = True
        self._late_ms: deque[float] = deque(maxlen=_KEPT)
        self.skipped = 0
        self.late_ms = 0.0  # how late the present or last call began
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread, if it was started, a period later at most.

        False where its call did not return in time.
        """
        self._running = False
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def late_p99_ms(self) -> float:
        """How late the latest calls began, milliseconds: 99% of them no more than that."""
        late = sorted(self._late_ms)
        return late[int(0.99 * (len(late) - 1))] if late else 0.0

    def _run(self) -> None:
        self._begins()
        due_ns = time.monotonic_ns() + self._period_ns // 2
        while True:
            time.sleep(max(due_ns - time.monotonic_ns(), 0) / 1e9)
            if not self._running:
                return
            self.late_ms = (time.monotonic_ns() - due_ns) / 1e6
            self._late_ms.append(self.late_ms)
            self._call()
            passed = max((time.monotonic_ns() - due_ns) // self._period_ns, 0)
            self.skipped += passed
            due_ns += (passed + 1) * self._period_ns
