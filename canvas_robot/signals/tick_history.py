"""TickHistory: a history for callers that keep no clock; each call is the next control tick."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from canvas_robot.schema import CanvasSchema
from canvas_robot.signals.binding import Binding
from canvas_robot.signals.history import History, NotReadyError
from canvas_robot.signals.records import Observation


class TickHistory:
    """Samples by signal name, one tick after another, to what a policy decides on."""

    def __init__(self, schema: CanvasSchema, binding: Binding) -> None:
        self._schema, self._binding = schema, binding
        self.clear()

    def clear(self) -> None:
        """Ends the episode: the next call is its first tick."""
        self._history, self._tick = History(self._schema, self._binding), 0

    def observe(self, samples: Mapping[str, np.ndarray]) -> Observation:
        """The next tick, as `History.observe` gives it.

        Raises NotReadyError where the first tick lacks an observed signal, SignalError for a sample
        that is wrong; nothing is kept of that tick then. Names that no region samples are passed
        over.
        """
        history, stamp_ns = self._history, (self._tick + 1) * self._binding.tick_ns
        missing = [s for s in history.signals if s not in samples and not self._tick]
        if missing:
            raise NotReadyError(
                f"observation: expected signals {missing} too; got {sorted(samples)}"
            )
        given = [signal for signal in history.signals if signal in samples]
        for signal in given:  # all are looked at before any is kept
            history.checked(signal, stamp_ns, samples[signal])
        for signal in given:
            history.push(signal, stamp_ns, samples[signal])
        observation = history.observe(self._tick, stamp_ns)
        self._tick += 1
        return observation
