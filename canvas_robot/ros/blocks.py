"""Blocks: what stops the motion until it is let go, and which of it is told. No ROS."""

from __future__ import annotations

from typing import final

from canvas_robot.ros.decisions import HoldReason

THEN_START = "~/start goes on with the policy"
# Reasons to hold the policy through which the arm may be led otherwise, and what they say.
LED_THROUGH = {
    HoldReason.HOME: f"sent to the binding's home; {THEN_START}",
    HoldReason.PARK: f"sent to the binding's park; {THEN_START}",
    HoldReason.TELEOPERATED: "somebody leads the arm; the policy goes on when that ends",
    HoldReason.STOPPED: "",
}


@final
class Blocks:
    """Reasons that stand, each with its words, in the order in which they came.

    Not thread-safe: the control loop's lock guards it.

    ended: the reason, and its words, for which the node deactivates itself; it stands before all
        others, until somebody activates.
    """

    def __init__(self) -> None:
        self._words: dict[HoldReason, str] = {}
        self.ended: tuple[HoldReason, str] | None = None

    def __contains__(self, reason: HoldReason) -> bool:
        return reason in self._words

    def __getitem__(self, reason: HoldReason) -> str:
        """The words of a reason that stands."""
        return self._words[reason]

    def add(self, reason: HoldReason, detail: str) -> None:
        """A reason comes, again perhaps: the last that came is told first."""
        self._words.pop(reason, None)
        self._words[reason] = detail

    def retell(self, reason: HoldReason, detail: str) -> None:
        """A reason that stands has other words from now on."""
        self._words[reason] = detail

    def remove(self, reason: HoldReason) -> None:
        """A reason stands no more, if it did."""
        self._words.pop(reason, None)

    def end(self, reason: HoldReason, detail: str) -> None:
        """The node is to deactivate itself; the first reason for it is kept."""
        if self.ended is None:
            self.ended = reason, detail

    @property
    def foremost(self) -> tuple[HoldReason, str] | None:
        """What is told of all that stands: an emergency stop, or the last that came."""
        if HoldReason.ESTOP in self._words:
            return HoldReason.ESTOP, self._words[HoldReason.ESTOP]
        return next(reversed(self._words.items()), None)

    @property
    def against_leading(self) -> str:
        """Why nobody may lead the arm, in words; "" where somebody may."""
        if self.ended is not None:
            return f"the node deactivates itself: {': '.join(self.ended)}"
        return next((f"{r}: {why}" for r, why in self._words.items() if r not in LED_THROUGH), "")

    def copy(self) -> Blocks:
        """What stands now."""
        copied = Blocks()
        copied._words, copied.ended = dict(self._words), self.ended
        return copied

    def take_over(self, others: Blocks) -> None:
        """What stands elsewhere stands here too; whoever led the arm there does not here."""
        self._words.update(others._words)
        self.remove(HoldReason.TELEOPERATED)
        self.ended = others.ended
