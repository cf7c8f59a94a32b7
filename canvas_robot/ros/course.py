"""Course: a decision that is followed, and until when. Plain Python."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from canvas_robot.ros.decisions import Instant
from canvas_robot.ros.intake import Intake
from canvas_robot.signals import ActionChunk


@dataclass(frozen=True)
class Course:
    """A decision that is followed, and until when.

    decision: its index. image_stamp_ns: of the picture that it saw, 0 where it saw none.
    computed_ns: when it was made, on the robot's clock. until_ns: on the steady clock.
    timeout_ns: after which its picture is too old, where that is what ends it; 0: its chunk's end.
    """

    decision: int
    image_stamp_ns: int
    computed_ns: int
    until_ns: int
    timeout_ns: int = 0

    @property
    def end(self) -> str:
        """Why it is followed no longer, in words."""
        if not self.timeout_ns:
            return f"decision {self.decision}: its action chunk has ended"
        return (
            f"decision {self.decision}: its picture is older than decision_timeout "
            f"{self.timeout_ns / 1e9} s and no newer decision has come"
        )


def course_of(
    index: int,
    chunk: ActionChunk,
    now: Instant,
    cameras: Collection[str],
    tick_ns: int,
    intake: Intake,
    timeout_ns: int,
) -> Course:
    """How long a decision is followed: to its chunk's end, or until its picture is too old.

    cameras: names of the regions that pictures fill.
    """
    chunk_ns = now.steady_ns + chunk.horizon * tick_ns
    seen = [region for region in cameras if region in chunk.stamps_ns]
    image_ns = min((chunk.stamps_ns[region] for region in seen), default=0)
    if not seen:
        return Course(index, 0, now.ros_ns, chunk_ns)
    # By how much the picture of each region may lag, because the schema says so.
    aged = max(
        intake.picture_age_ns(region, chunk.stamps_ns[region], now)
        - intake.lag_ticks(region, chunk) * tick_ns
        for region in seen
    )
    picture_ns = now.steady_ns + timeout_ns - aged
    if picture_ns <= chunk_ns:
        return Course(index, image_ns, now.ros_ns, picture_ns, timeout_ns)
    return Course(index, image_ns, now.ros_ns, chunk_ns)
