"""Tally: what decisions and commands have come to, in numbers for /diagnostics. No ROS."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import final

import numpy as np

from canvas_robot.ros.decisions import Decision, HoldReason

LATEST_S = 10.0  # shares are of what came this recently, at full rate
STAGES = (
    "squash_ahead", "poll", "assembly", "exchange", "squash", "codec", "forward", "follow",
    "publish",
)  # fmt: skip


@final
class Tally:
    """Counts since it was made, and how long the stages of the latest decisions took.

    Args:
        control_rate_hz, command_rate_hz: how often decisions and commands come.
    """

    def __init__(self, control_rate_hz: float, command_rate_hz: float) -> None:
        self._lock = threading.Lock()
        self._totals = Counter()
        self._holds, self._refreshes = Counter(), Counter()
        self._reason: HoldReason | None = None
        decisions, commands = (
            max(round(LATEST_S * rate), 1) for rate in (control_rate_hz, command_rate_hz)
        )
        self._stages_ms = {stage: deque[float](maxlen=decisions) for stage in STAGES}
        self._image_ages_ms: deque[float] = deque(maxlen=commands)

    def decided(self, decision: Decision, publish_ms: float) -> None:
        """A tick, or a hold between ticks. publish_ms: how long it took to act on it."""
        with self._lock:
            held = decision.reason is not None
            self._totals["holds" if held else "ticks"] += 1
            if held and decision.reason is not self._reason:
                self._holds[decision.reason] += 1
            if decision.reason is not HoldReason.INTERRUPTED:  # a drop of what was being decided
                self._reason = decision.reason
            if decision.chunk is None:
                return
            self._refreshes.update(r for r, age in decision.chunk.ages.items() if age == 0)
            split = {**decision.timings_ms, "publish": publish_ms}
            if {"model", "codec", "forward"} <= split.keys():
                split["exchange"] = split["model"] - split["codec"] - split["forward"]
            for stage, latest in self._stages_ms.items():
                if stage in split:
                    latest.append(split[stage])

    def commanded(self, image_age_ms: float | None) -> None:
        """A command. image_age_ms: of the picture behind it; None where there is none."""
        with self._lock:
            self._totals["commands"] += 1
            if image_age_ms is not None:
                self._image_ages_ms.append(image_age_ms)

    def values(self) -> dict[str, object]:
        """ticks, holds, commands; by reason how often holding for it began, by region how often it
        was computed; and of the last LATEST_S two shares of each stage and of the pictures' ages.
        """
        with self._lock:
            counts = {name: self._totals[name] for name in ("ticks", "commands", "holds")}
            counts |= {f"holds.{reason}": self._holds[reason] for reason in HoldReason}
            counts |= {f"refreshes.{region}": n for region, n in self._refreshes.items()}
            spans = {stage: list(latest) for stage, latest in self._stages_ms.items()}
            spans["image_age"] = list(self._image_ages_ms)
        return counts | {
            f"{name}_p{percent}_ms": round(float(np.percentile(latest, percent)), 3)
            for name, latest in spans.items()
            if latest
            for percent in (50, 99)
        }
