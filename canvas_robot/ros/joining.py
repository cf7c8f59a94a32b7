"""Joining: samples of several topics made one, by their stamps. Plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

KEPT = 64  # samples of each topic


@final
class Joining:
    """Joins samples of several topics by stamp, in whatever order they arrive.

    A sample of the first topic is completed by the newest of each other at or before its stamp,
    once one at or after it has arrived; of equal stamps that is the one of the same stamp. Samples
    of the first that wait are dropped for one that is stamped before them: their clock was ahead,
    or went back.

    Args:
        topics: how many there are.
        complete: called with the stamp of the first topic's sample, and (stamp, value) of each.
    """

    def __init__(
        self, topics: int, complete: Callable[[int, list[tuple[int, Any]]], object]
    ) -> None:
        self._complete = complete
        self._waiting: list[tuple[int, Any]] = []
        self._others: list[list[tuple[int, Any]]] = [[] for _ in range(topics - 1)]

    def take(self, topic: int, stamp: int, value: Any) -> None:
        """A sample of a topic, counted from 0; completes what waited for it."""
        if topic == 0:
            waiting = [one for one in self._waiting if one[0] < stamp]
            self._waiting = [*waiting, (stamp, value)][-KEPT:]
        else:
            self._others[topic - 1] = [*self._others[topic - 1], (stamp, value)][-KEPT:]
        while self._waiting and all(
            other and other[-1][0] >= self._waiting[0][0] for other in self._others
        ):
            first = self._waiting.pop(0)
            before = [[one for one in other if one[0] <= first[0]][-1:] for other in self._others]
            if all(before):
                self._complete(first[0], [first, *(newest for (newest,) in before)])
