"""CUDA graphs of a tick's passes and slices: captured once, replayed without launching kernels.

A captured pass reads and writes the same addresses every time; the tick runner's buffers are
static, so nothing is copied in or out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch

WARM_UPS = 3  # runs before a capture: libraries choose and load their kernels in them


class Graphs:
    """Graphs by key, on the current CUDA device. What has no graph is run as it is."""

    def __init__(self) -> None:
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def capture(self, key: Hashable, function: Callable[[], None]) -> None:
        """Captures a function that works on static buffers only."""
        with _aside():
            for _ in range(WARM_UPS):
                function()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
        self._graphs[key] = graph

    def capture_steps(self, key: Hashable, steps: Callable[[], Iterator[None]]) -> None:
        """Captures an iterator, a graph for each step, to be replayed in order.

        The steps share one memory pool, so that one finds what the one before left.
        """
        with _aside():
            count = sum(1 for _ in steps())
        pool, iterator = torch.cuda.graph_pool_handle(), steps()
        for number in range(count):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                next(iterator)
            self._graphs[key, number] = graph

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Replays the graph of this key, or calls the function where there is none."""
        graph = self._graphs.get(key)
        if graph is None:
            function()
        else:
            graph.replay()

    def steps(self, key: Hashable, steps: Callable[[], Iterator[None]]) -> Iterator[None]:
        """The steps one by one, replayed where they were captured."""
        if (key, 0) not in self._graphs:
            yield from steps()
            return
        number = 0
        while (key, number) in self._graphs:
            self._graphs[key, number].replay()
            yield
            number += 1


@contextmanager
def _aside() -> Iterator[None]:
    """On a stream of its own, as warm-ups before a capture must be."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)
