"""Instructions: which one is asked for, which is followed, what became of the others. No ROS."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import final

from canvas_robot.ros.decisions import InstructionState, InstructionTurn


@dataclass(frozen=True)
class Asked:
    """An instruction that was asked for, and its number, from 1 on."""

    number: int
    text: str


@final
class Instructions:
    """Of those that are asked for the last one counts.

    Not thread-safe: the control loop's lock guards it.

    followed: None where there is none. turn: whose it is. state: which of them were refused.
    """

    def __init__(self) -> None:
        self.followed: str | None = None
        self.turn = InstructionTurn(0, 0)
        self.state = InstructionState(0, "")
        self._asked = 0  # how often one was asked for
        self._pending: str | None = None
        self._read: str | None = None  # while the model reads it

    @property
    def newest(self) -> str:
        """The one that is asked for or followed; empty where there is none."""
        asked = self._pending if self._pending is not None else self._read
        return (self.followed or "") if asked is None else asked

    def ask(self, text: str) -> int:
        """Asks for one; its number."""
        self._pending = text
        self._asked += 1
        return self._asked

    def read(self) -> Asked | None:
        """The one that is asked for, to be read now; None where there is none.

        Then `take`, `refuse` or `put_back` says what became of it.
        """
        if self._pending is None:
            return None
        self._read, self._pending = self._pending, None
        return Asked(self._asked, self._read)

    def take(self, asked: Asked) -> None:
        """What was read is followed; of a blank one nothing is."""
        self._read, self.followed = None, asked.text if asked.text.strip() else None
        self.turn = dataclasses.replace(self.turn, taken=asked.number)
        self.state = dataclasses.replace(self.state, fault="")

    def refuse(self, asked: Asked, why: str) -> None:
        """What was read is refused; what was followed still is."""
        self._read = None
        self.turn = dataclasses.replace(self.turn, refused=asked.number)
        self.state = InstructionState(self.state.refused + 1, why)

    def put_back(self, asked: Asked) -> None:
        """What was read could not be: it is asked for again, unless another one is."""
        self._read = None
        if self._pending is None:
            self._pending = asked.text
