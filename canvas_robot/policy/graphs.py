"""CUDA graphs of a tick's passes and slices: captured once, replayed without launching kernels.

A captured pass reads and writes the same addresses every time; the tick runner's buffers are
static, so nothing is copied in or out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import torch

WARM_UPS = 3  # runs before a capture: libraries choose and load their kernels in them


class Graphs:
    """Graphs by key. What has no graph is run as it is.

    Args:
        device: where they run; on any other than CUDA nothing is captured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def capture(self, key: Hashable, function: Callable[[], None]) -> None:
        """Captures a function that works on static buffers only."""
        if self._device.type != "cuda":
            return
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
        self._graphs[key] = graph

    def capture_steps(self, key: Hashable, steps: Callable[[], Iterator[None]]) -> None:
        """Captures an iterator, a graph for each step, to be replayed in order.

        The steps share one memory pool, so that one finds what the one before left.
        """
        if self._device.type != "cuda":
            return
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in steps():
                pass
        torch.cuda.current_stream(self._device).wait_stream(side)
        pool, iterator, number = torch.cuda.graph_pool_handle(), steps(), 0
        while True:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                done = next(iterator, self) is self
            if done:
                return
            self._graphs[key, number] = graph
            number += 1

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
