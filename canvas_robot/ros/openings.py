"""Openings: which openings of the gripper are told to a driver that moves there by itself."""

from __future__ import annotations

from typing import final

STEP = 0.02  # of the gripper's way from closed to open


@final
class Openings:
    """What was told last, 0 closed to 1 open; `last` is None where nothing was."""

    def __init__(self) -> None:
        self.last: float | None = None

    def forget(self) -> None:
        self.last = None

    def differs(self, share: float) -> bool:
        """Whether to tell an opening: STEP away from the last, or quite closed, or quite open."""
        if self.last is None:
            return True
        return share != self.last and (abs(share - self.last) >= STEP or share in (0.0, 1.0))
