"""Which action a robot takes at each control step, when every decision is a chunk of them.

A step is one control period of motion. A decision rests on what was seen when some number of steps
had begun; its row j is for the step that begins j steps later. How many have begun when it arrives
is counted, never estimated. NumPy only; no clock, no robot.
"""

from __future__ import annotations

import math
from typing import Protocol, final

import numpy as np


class ChunkExecution(Protocol):
    """What all ways of executing chunks have in common."""

    def reset(self) -> None:
        """Forgets every chunk and starts counting steps anew."""

    @property
    def wants_decision(self) -> bool:
        """Whether a decision should be made at this control tick."""

    @property
    def begun(self) -> int:
        """How many steps have begun since the reset; to be noted when a decision is observed."""

    @property
    def at_once(self) -> bool:
        """Whether a decision's step begins when it arrives, and not when the last step ends."""

    @property
    def waits(self) -> bool:
        """Whether a decision is observed only when the last step is over, and the arm stands."""

    @property
    def unattended(self) -> int:
        """How many steps follow one another without a decision between them."""

    def decided(self, chunk: np.ndarray, begun: int) -> None:
        """Takes a decision: its rows (horizon, size), and `begun` as of when it was observed."""

    def step(self) -> np.ndarray | None:
        """Begins the next step: its action (size,), or None where no decision reaches so far."""


class _Counted:
    """Counts the steps that have begun."""

    at_once = waits = False
    unattended = 1

    def __init__(self) -> None:
        self.begun = 0

    def _begin(self, action: np.ndarray | None) -> np.ndarray | None:
        if action is not None:
            self.begun += 1
        return action


@final
class First(_Counted):
    """Every decision's first row, as soon as it is there; the rest of the chunk is passed over."""

    at_once = True
    wants_decision = True

    def __init__(self) -> None:
        super().__init__()
        self._next: np.ndarray | None = None

    def reset(self) -> None:
        self.begun, self._next = 0, None

    def decided(self, chunk: np.ndarray, begun: int) -> None:
        self._next = chunk[0]

    def step(self) -> np.ndarray | None:
        action, self._next = self._next, None
        return self._begin(action)


@final
class Receding(_Counted):
    """The first `steps` rows of a decision, one after the other; only then the next decision.

    The arm waits while that is computed.
    """

    waits = True

    def __init__(self, steps: int) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, got {steps}")
        self._steps = self.unattended = steps
        self._left: list[np.ndarray] = []

    @property
    def wants_decision(self) -> bool:
        return not self._left

    def reset(self) -> None:
        self.begun, self._left = 0, []

    def decided(self, chunk: np.ndarray, begun: int) -> None:
        self._left = list(chunk[: self._steps])

    def step(self) -> np.ndarray | None:
        return self._begin(self._left.pop(0) if self._left else None)


@final
class TemporalEnsemble(_Counted):
    """The mean of what all decisions say of a step, the i-th oldest weighing exp(-decay i).

    Source: Zhao et al. 2023, Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware
    (ACT), whose decay is 0.01.
    """

    wants_decision = True

    def __init__(self, decay: float = 0.01) -> None:
        super().__init__()
        if not math.isfinite(decay):
            raise ValueError(f"decay: expected a finite number, got {decay}")
        self._decay = decay
        self._chunks: list[tuple[int, np.ndarray]] = []  # the step of its first row, oldest first

    def reset(self) -> None:
        self.begun, self._chunks = 0, []

    def decided(self, chunk: np.ndarray, begun: int) -> None:
        self._chunks.append((begun, chunk))

    def step(self) -> np.ndarray | None:
        self._chunks = [(at, rows) for at, rows in self._chunks if self.begun < at + len(rows)]
        rows = [rows[self.begun - at] for at, rows in self._chunks]
        if not rows:
            return None
        weights = np.exp(-self._decay * np.arange(len(rows)))
        return self._begin(np.average(rows, axis=0, weights=weights).astype(rows[0].dtype))


@final
class RealTimeChunking(_Counted):
    """Goes on with the old chunk while the next one is decided, then passes over to it softly.

    The new chunk's rows for steps that have begun meanwhile are passed over. Where old and new both
    say something, the old weighs w = c (e^c - 1) / (e - 1), c falling from nearly 1 at the first
    step that is left to 0 behind the old chunk's last: the weights with which real-time chunking
    guides a denoising head towards the old chunk. A regression head has nothing to guide, so the
    rows themselves are mixed. Source: Black et al. 2025, Real-Time Execution of Action Chunking
    Flow Policies (arXiv 2506.07339), equation 5.
    """

    wants_decision = True

    def __init__(self) -> None:
        super().__init__()
        self._left: list[np.ndarray] = []

    def reset(self) -> None:
        self.begun, self._left = 0, []

    def decided(self, chunk: np.ndarray, begun: int) -> None:
        new = list(chunk[self.begun - begun :])
        overlap = min(len(self._left), len(new))
        for i, weight in enumerate(_weights_of_old(overlap)):
            new[i] = (weight * self._left[i] + (1.0 - weight) * new[i]).astype(chunk.dtype)
        if new:  # else it came too late to say anything
            self._left = new

    def step(self) -> np.ndarray | None:
        return self._begin(self._left.pop(0) if self._left else None)


def _weights_of_old(overlap: int) -> np.ndarray:
    remaining = np.arange(overlap, 0, -1) / (overlap + 1)
    return remaining * np.expm1(remaining) / math.expm1(1.0)


EXECUTIONS = ("first", "receding", "temporal_ensemble", "rtc")


def make_execution(name: str, steps: int = 0, horizon: int = 1) -> ChunkExecution:
    """A way of executing chunks of `horizon` rows, by its name; `steps` as of `Receding`, 0: all.

    Raises ValueError for an unknown name, and for more steps than a chunk has.
    """
    if name not in EXECUTIONS:
        raise ValueError(f"execution: expected one of {', '.join(EXECUTIONS)}, got {name!r}")
    if not 0 <= steps <= horizon:
        raise ValueError(
            f"execute_steps: expected 0 (all) to {horizon}, the rows of a chunk, got {steps}"
        )
    if name == "receding":
        return Receding(steps or horizon)
    return {"first": First, "temporal_ensemble": TemporalEnsemble, "rtc": RealTimeChunking}[name]()
