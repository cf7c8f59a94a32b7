"""Being told to stop: SIGINT and SIGTERM are noted, the step is finished, then the run ends.

Whom signals reach is decided here; what is done then is the trainer's.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children, resource_tracker
from multiprocessing.process import BaseProcess

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """A context in which the first SIGINT or SIGTERM is noted; a second one ends the process.

    received: the signal's number; 0 until one comes.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: object) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class UndisturbedWorkers:
    """Worker processes that get no SIGINT or SIGTERM: those that are started inside `starting`.

    Ctrl-C reaches every process of a terminal, a scheduler's SIGTERM every process of a job, and
    readers of data are needed until their trainer has finished its step. It is for `close` to end
    them then: Python itself would send SIGTERM, and wait.
    """

    def __init__(self) -> None:
        self._processes: set[BaseProcess] = set()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Inside, this thread starts workers."""
        resource_tracker.ensure_running()  # where it is started it takes both signals off the mask
        there = set(active_children())
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._processes |= set(active_children()) - there

    def close(self) -> None:
        """Ends them; they hold nothing that could be lost."""
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's sees a failure in it
        try:
            for process in self._processes:
                process.kill()
                process.join()
        finally:
            signal.signal(signal.SIGCHLD, handler)
        self._processes = set()
