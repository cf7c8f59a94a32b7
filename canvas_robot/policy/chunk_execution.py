"""Which action a robot takes at each control step, when every decision is a chunk of them.

A step is one control period of motion. A decision rests on what was seen when some number of steps
had begun; its row j is for the step that begins j steps later. How many have begun when it arrives
is counted, never estimated. NumPy only; no clock, no robot.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol, final

import numpy as np

from canvas_robot.signals import GoingOn

REMEMBERED = 10  # decisions, of which the one in which most steps began foretells the next


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

    def going_on(self, begun: int) -> GoingOn | None:
        """What a decision that counts so many steps as begun may go on with; None for nothing."""

    def decided(self, chunk: np.ndarray, begun: int, continues: bool = False) -> None:
        """Takes a decision: its rows (horizon, size), and `begun` as of when it was observed.

        continues: whether it was drawn to go on with what `going_on` said.
        """

    def step(self) -> np.ndarray | None:
        """Begins the next step: its action (size,), or None where no decision reaches so far."""


class _Counted:
    """Counts the steps that have begun."""

    at_once = waits = False
    unattended = 1

    def __init__(self) -> None:
        self.begun = 0

    def going_on(self, begun: int) -> GoingOn | None:
        return None

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

    def decided(self, chunk: np.ndarray, begun: int, continues: bool = False) -> None:
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

    def decided(self, chunk: np.ndarray, begun: int, continues: bool = False) -> None:
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

    def decided(self, chunk: np.ndarray, begun: int, continues: bool = False) -> None:
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
    """Goes on with the old chunk while the next one is decided, then passes over to the new one.

    The new chunk's rows for steps that have begun meanwhile are passed over. A head that can is
    told what goes on, and its chunk, drawn to go on with that, is taken as it is. Any other head's
    is mixed with the old one where both say something, the old weighing as `soft_mask` says. How
    many steps will have begun is foretold for the drawing only: as many as in the one of the last
    ten decisions in which most did. Source: Black et al. 2025, Real-Time Execution of Action
    Chunking Flow Policies (arXiv 2506.07339), algorithm 1.
    """

    wants_decision = True

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[np.ndarray] = []
        self._first = 0  # the step of the first of them: the last that began, or the next
        self._passed: deque[int] = deque(maxlen=REMEMBERED)

    def reset(self) -> None:
        self.begun, self._first, self._rows = 0, 0, []

    def going_on(self, begun: int) -> GoingOn | None:
        rows = self._rows[begun - self._first :]
        return GoingOn(np.stack(rows), max(self._passed, default=1)) if rows else None

    def decided(self, chunk: np.ndarray, begun: int, continues: bool = False) -> None:
        passed, at = self.begun - begun, self.begun - self._first
        if self._rows[begun - self._first :]:
            self._passed.append(passed)
        new = list(chunk[passed:])
        if not new:  # it came too late to say anything
            return
        if not continues:
            left = self._rows[at:]
            for i, weight in enumerate(soft_mask(min(len(left), len(new)), 0)):
                new[i] = (weight * left[i] + (1.0 - weight) * new[i]).astype(chunk.dtype)
        last_begun = self._rows[max(at - 1, 0) : at]
        self._rows, self._first = last_begun + new, self.begun - len(last_begun)

    def step(self) -> np.ndarray | None:
        at = self.begun - self._first
        return self._begin(self._rows[at] if at < len(self._rows) else None)


def soft_mask(rows: int, frozen: int) -> np.ndarray:
    """How much each of the rows of an old chunk binds the new one, (rows,).

    1 for those that are frozen; then c (e^c - 1) / (e - 1), c falling from nearly 1 in equal steps
    to nearly 0 at the last. Source: as `RealTimeChunking`, equation 5.
    """
    fixed = min(frozen, rows)
    free = rows - fixed
    remaining = np.arange(free, 0, -1) / (free + 1)
    return np.append(np.ones(fixed), remaining * np.expm1(remaining) / math.expm1(1.0))


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
