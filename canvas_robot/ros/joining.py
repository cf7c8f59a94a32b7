"""Joining: samples of several topics made one, by their stamps. Plain Python."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any, final

MOST = 4096  # samples of each topic that are kept


@final
class Joining:
    """Joins samples of several topics by stamp, in whatever order they arrive.

    A sample of the first topic is completed by each other's that is stamped last at or before it,
    once one at or after it has arrived. Samples of the first that wait are dropped for one that is
    stamped before them: their clock was ahead, or went back.

    Args:
        topics: how many there are.
        kept_ns: so long before their newest, samples are kept, and the last one before; one that
            comes later still begins anew, for its clock went back.
        complete: called with the stamp of the first topic's sample, and (stamp, value) of each.
    """

    def __init__(
        self,
        topics: int,
        kept_ns: int,
        complete: Callable[[int, list[tuple[int, Any]]], object],
    ) -> None:
        self._complete = complete
        self._waiting: list[tuple[int, Any]] = []
        self._others = [_Kept(kept_ns) for _ in range(topics - 1)]

    def take(self, topic: int, stamp: int, value: Any) -> None:
        """A sample of a topic, counted from 0; completes what waited for it."""
        if topic == 0:
            waiting = [one for one in self._waiting if one[0] < stamp]
            self._waiting = [*waiting, (stamp, value)][-MOST:]
        else:
            self._others[topic - 1].add(stamp, value)
        while self._waiting and all(o.reaches(self._waiting[0][0]) for o in self._others):
            first = self._waiting.pop(0)
            before = [other.before(first[0]) for other in self._others]
            if None not in before:
                self._complete(first[0], [first, *before])


class _Kept:
    """The samples of one topic, in the order of their stamps."""

    def __init__(self, kept_ns: int) -> None:
        self._kept_ns = kept_ns
        self._stamps: list[int] = []
        self._values: list[Any] = []

    def add(self, stamp: int, value: Any) -> None:
        if self._stamps and stamp < self._stamps[-1] - self._kept_ns:
            self._stamps, self._values = [], []
        place = bisect_right(self._stamps, stamp)
        self._stamps.insert(place, stamp)
        self._values.insert(place, value)
        oldest = bisect_left(self._stamps, self._stamps[-1] - self._kept_ns) - 1
        oldest = max(oldest, 0, len(self._stamps) - MOST)
        del self._stamps[:oldest], self._values[:oldest]

    def reaches(self, stamp: int) -> bool:
        """Whether one at or after it has come."""
        return bool(self._stamps) and self._stamps[-1] >= stamp

    def before(self, stamp: int) -> tuple[int, Any] | None:
        """The last at or before it; None: there is none."""
        place = bisect_right(self._stamps, stamp) - 1
        return (self._stamps[place], self._values[place]) if place >= 0 else None
