"""Policy: what simulator, node and data set may ask of a policy, of whatever kind. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import ActionChunk, Binding, GoingOn, Observation


@dataclass(frozen=True, eq=False)
class Imagined:
    """Pictures that a policy predicts.

    tick: of the decision that they follow. frames: by region of the future, (F, H, W, 3) uint8, the
    first of them one period of the region after that tick, and so on.
    """

    tick: int
    frames: dict[str, np.ndarray]


def nothing() -> None:
    """Stands where somebody may ask to be called."""


class Policy(Protocol):
    """What every policy is: a CanvasPolicy, a PlainPolicy or a ModelProcess.

    trained: whether any training made its weights. horizon: control ticks in an action chunk.
    """

    schema: CanvasSchema
    binding: Binding
    trained: bool

    @property
    def horizon(self) -> int: ...

    def reset(self, instruction: str) -> None:
        """Starts an episode under an instruction."""
        ...

    def act(
        self, observation: Observation | Mapping[str, np.ndarray], going_on: GoingOn | None = None
    ) -> ActionChunk:
        """Decides on one observation.

        going_on: what is carried out meanwhile; a head that can draws a chunk that goes on with it,
        all others pass it over (`ActionChunk.continues` says which).
        """
        ...

    def work(self) -> None:
        """Between decisions: what none of them waits for."""
        ...

    def forget(self) -> None:
        """Ends the episode."""
        ...

    def imagined(self, seconds: float) -> Imagined | None:
        """Between decisions, for who wants to see it: goes on predicting the pictures to come.

        It computes for about so long; None until they are done, the next call begins anew. No
        decision depends on it. None always where the schema has no video to come.
        """
        ...
