"""Intake: what has come of each signal, and what is wrong with it: faults, silence, age, skew.

Plain Python. Not thread-safe: the control loop's lock guards it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from canvas_robot.ros.decisions import HoldReason, InputState, Instant
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import (
    ActionChunk,
    Binding,
    History,
    Observation,
    SignalError,
    StampError,
)

FUTURE_TOLERANCE_NS = 100_000_000  # a stamp further ahead of the clock than this is a fault
_SURELY_STAMPED_NS = 1_000_000_000  # a simulation's clock begins at 0, and so may its stamps
_KEPT = 256  # arrivals of a signal


def why_unstamped(stamp_ns: int, now_ns: int) -> str:
    """What a message without a stamp lacks; "" where it has one."""
    if stamp_ns == 0 and now_ns > _SURELY_STAMPED_NS:
        return (
            "expected a stamp, got 0; let its driver set header.stamp, or say stamp: received in "
            "the binding's source"
        )
    return ""


@dataclass(frozen=True)
class _Arrival:
    stamp_ns: int
    at: Instant


@final
class Intake:
    """Samples as `History` keeps them, and all that is known of how they come.

    Args:
        schema, binding: say which signals there are, and how old they may be.
        warn: receives one line for each thing that goes wrong.
    """

    def __init__(self, schema: CanvasSchema, binding: Binding, warn: Callable[[str], None]) -> None:
        self._binding, self._warn = binding, warn
        self._history = History(schema, binding)
        signals = self._history.signals
        self._arrivals = {signal: deque[_Arrival](maxlen=_KEPT) for signal in signals}
        self._faults: dict[str, str] = {}  # since the last tick
        self._last_faults: dict[str, str] = {}  # since the last good sample
        self._silent: dict[str, tuple[str, str]] = {}  # by event: the signal, and what it lacks
        self._lapses: dict[str, str] = {}  # the same since the last tick, though it may be over
        self._samples, self._refused, self._used = Counter(), Counter(), Counter()
        self._skipped = Counter()
        self._seen_stamps: dict[str, set[int]] = {signal: set() for signal in signals}

    def take(
        self, signal: str, stamp_ns: int, value: np.ndarray, now: Instant, waited_ns: int
    ) -> bool:
        """Takes one sample that came `waited_ns` ago; a bad one is refused and told.

        Whether it is a new one that was taken.
        """
        if stamp_ns == self._history.newest_stamp_ns(signal):
            return False  # the same sample again
        try:
            if unstamped := why_unstamped(stamp_ns, now.ros_ns):
                raise StampError(f"signal {signal!r}: {unstamped}")
            if stamp_ns > now.ros_ns + FUTURE_TOLERANCE_NS:
                raise StampError(
                    f"signal {signal!r}: expected a stamp no later than the clock "
                    f"{now.ros_ns} ns, got {stamp_ns} ns; "
                    f"synchronise the clocks or set use_sim_time on both sides"
                )
            self._history.push(signal, stamp_ns, value)
        except (SignalError, StampError) as error:
            self.fault(signal, str(error))
            return False
        came = Instant(max(now.ros_ns - waited_ns, stamp_ns), now.steady_ns - waited_ns)
        self._arrivals[signal].append(_Arrival(stamp_ns, came))
        self._samples[signal] += 1
        self._last_faults.pop(signal, None)
        return True

    def fault(self, signal: str, detail: str) -> None:
        """A message of a signal could not be read, or its sample not be believed."""
        if signal not in self._faults:
            self._warn(f"input refused: {detail}")
        self._refused[signal] += 1
        self._faults[signal] = self._last_faults[signal] = detail

    def silent(self, signal: str, event: str, detail: str) -> None:
        """A topic of a signal says less than was asked of it, until `heard` of the same event."""
        if event not in self._silent:
            self._warn(f"input silent: {detail}")
        self._silent[event] = (signal, detail)
        self._lapses[event] = self._last_faults[signal] = detail

    def heard(self, event: str) -> None:
        """What `silent` said is over."""
        self._silent.pop(event, None)

    def skipped(self, signal: str, messages: int) -> None:
        """Messages of a signal were published and not taken."""
        self._skipped[signal] += messages

    def unheard(self, signal: str, detail: str) -> None:
        """A publisher of a signal does not reach us; others may."""
        self._warn(f"input not heard: {detail}")
        self._last_faults[signal] = detail

    def clear(self) -> None:
        """Forgets all samples and faults, and none of the counts. What is silent stays so."""
        self._history.clear()
        self._faults, self._lapses = {}, {}
        for arrivals in self._arrivals.values():
            arrivals.clear()

    # ---------------------------------------------------------------- samples

    def has_come(self, signal: str) -> bool:
        """Whether there is a sample of a signal."""
        return bool(self._arrivals[signal])

    def newest(self, signal: str) -> np.ndarray:
        """The newest sample; raises NotReadyError where there is none."""
        return self._history.newest(signal)

    def newest_stamp_ns(self, signal: str) -> int | None:
        """Its stamp; None where there is none."""
        return self._history.newest_stamp_ns(signal)

    def begin(self, stamp_ns: int) -> None:
        """Tick 0 comes next, at `stamp_ns`."""
        self._history.reset(stamp_ns)

    def observe(self, tick: int, stamp_ns: int) -> Observation:
        """The observation of a control tick; raises NotReadyError, as `History.observe`."""
        observation = self._history.observe(tick, stamp_ns)
        for signal, before in self._seen_stamps.items():
            stamps = {
                int(stamp)
                for region, frames in observation.frames.items()
                if self._signal(region) == signal
                for stamp in frames.stamps_ns
            }
            self._used[signal] += len(stamps - before)
            self._seen_stamps[signal] = stamps
        return observation

    def foreseen(self, tick: int, stamp_ns: int) -> Observation:
        """What `observe` would give now; as `History.foreseen`."""
        return self._history.foreseen(tick, stamp_ns)

    # ---------------------------------------------------------------- what is wrong

    def trouble(self, now: Instant) -> tuple[HoldReason, str] | None:
        """Why nothing must be decided on what came, and since the last tick: a reason and words."""
        faults, self._faults = self._faults, {}
        if faults:
            return HoldReason.BAD_INPUT, "; ".join(faults.values())
        waiting = [f"{s!r}{self._why(s)}" for s in self._arrivals if not self.has_come(s)]
        if waiting:
            told = f"no sample yet of {', '.join(waiting)}"
            return HoldReason.WAITING_FOR_INPUT, "; ".join(filter(None, (told, self.silence)))
        lapses, self._lapses = self._lapses, {}
        silences = "; ".join({**lapses, **self._silences()}.values())
        stale = "; ".join(filter(None, (silences, self.stale(now))))
        return (HoldReason.STALE_INPUT, stale) if stale else None

    @property
    def silence(self) -> str:
        """What is silent, in words; empty where nothing is."""
        return "; ".join(self._silences().values())

    def silence_of(self, signal: str) -> str:
        """The same of one signal."""
        return "; ".join(told for silent, told in self._silent.values() if silent == signal)

    def stale(self, now: Instant) -> str:
        """What is too old, in words; empty where nothing is."""
        return "; ".join(
            f"signal {signal!r}: newest sample is {self.age_s(signal, now):.2f} s old, "
            f"expected at most {self._binding.signals[signal].max_age_s} s{self._why(signal)}"
            for signal in self._arrivals
            if self.is_old(signal, now)
        )

    def is_old(self, signal: str, now: Instant) -> bool:
        """Whether the newest sample is too old to be acted on, or there is none."""
        return self.age_s(signal, now) > self._binding.signals[signal].max_age_s

    def age_s(self, signal: str, now: Instant) -> float:
        """Age of the newest sample: by stamp or by arrival on the steady clock, the larger."""
        if not self.has_come(signal):
            return float("inf")
        newest = self._arrivals[signal][-1]
        return max(now.ros_ns - newest.stamp_ns, now.steady_ns - newest.at.steady_ns) / 1e9

    def skewed(self, observation: Observation) -> str:
        """What is too old beside what is seen with it, in words; empty where nothing is."""
        stamps = {
            region: int(observation.frames[region].stamps_ns[-1])
            for region in self._history.refreshed(observation.tick)
        }
        newest, told = max(stamps.values(), default=0), []
        for region, stamp in stamps.items():
            limit = self._binding.signals[self._signal(region)].max_skew_s
            if limit is not None and newest - stamp > limit * 1e9:
                told.append(
                    f"region {region!r}: its sample is {(newest - stamp) / 1e9:.3f} s older than "
                    f"the newest seen with it, expected at most {limit} s; synchronise the "
                    f"sources, or raise max_skew_s in the binding"
                )
        return "; ".join(told)

    def lag_ticks(self, region: str, chunk: ActionChunk) -> int:
        """By how many ticks the picture acted on lags because the schema says so.

        The same picture at one refresh after the other lags because no other came: that is no
        reason to follow it for longer.
        """
        tick, stamp_ns = self._history.taken(region)
        is_newest = chunk.stamps_ns[region] == stamp_ns
        return chunk.tick - tick if is_newest else chunk.ages.get(region, 0)

    # ---------------------------------------------------------------- how it came

    def states(self, now: Instant) -> dict[str, InputState]:
        """How each signal comes in."""
        return {
            signal: InputState(
                self._samples[signal],
                self._refused[signal],
                self._superseded(signal),
                self._skipped[signal],
                self.age_s(signal, now),
                self._last_faults.get(signal, ""),
            )
            for signal in self._arrivals
        }

    def picture_age_ns(self, region: str, stamp_ns: int, now: Instant) -> int:
        """Age of a region's picture, by its stamp or since it came on the steady clock."""
        came = self._came(region, stamp_ns)
        by_arrival = now.steady_ns - came.steady_ns if came is not None else 0
        return max(now.ros_ns - stamp_ns, by_arrival)

    def arrival_ns(self, region: str, stamp_ns: int) -> int:
        """When a region's sample came, on the robot's clock; its stamp where that is not known."""
        came = self._came(region, stamp_ns)
        return came.ros_ns if came is not None else stamp_ns

    def _came(self, region: str, stamp_ns: int) -> Instant | None:
        arrivals = self._arrivals[self._signal(region)]
        return next((a.at for a in reversed(arrivals) if a.stamp_ns == stamp_ns), None)

    def _signal(self, region: str) -> str:
        return self._binding.regions[region].signal

    def _superseded(self, signal: str) -> int:
        arrivals = self._arrivals[signal]
        waiting = bool(arrivals) and arrivals[-1].stamp_ns not in self._seen_stamps[signal]
        return max(self._samples[signal] - self._used[signal] - waiting, 0)

    def _silences(self) -> dict[str, str]:
        return {event: detail for event, (_, detail) in self._silent.items()}

    def _why(self, signal: str) -> str:
        """What is known of why nothing comes; empty where that is nothing, or said already."""
        fault = self._last_faults.get(signal, "")
        said = any(fault == detail for _, detail in self._silent.values())
        return f" ({fault})" if fault and not said else ""
