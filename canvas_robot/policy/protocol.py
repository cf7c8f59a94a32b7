"""Policy: what simulator, node and data set may ask of a policy, of whatever kind. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import ActionChunk, Binding, Observation


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

    def act(self, observation: Observation | Mapping[str, np.ndarray]) -> ActionChunk:
        """Decides on one observation."""
        ...

    def work(self) -> None:
        """Between decisions: what none of them waits for."""
        ...

    def forget(self) -> None:
        """Ends the episode."""
        ...
