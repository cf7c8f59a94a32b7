"""History: time-stamped samples in, observations out.

The one sampler for dataset, simulator and robot. Frame i of a region is the newest sample stamped
at or before t_tick - i * period * dt; a missing past repeats the first sample with the mask set. A
region refreshes at ticks that are multiples of its period since the reset and keeps its frames in
between. Regions of the future have no frames here: what they show is still to come.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from canvas_robot.schema import CanvasSchema
from canvas_robot.signals.binding import Binding
from canvas_robot.signals.records import Frames, Observation
from canvas_robot.signals.signal import ImageSignal, SignalError

_MARGIN_NS = 1_000_000_000  # samples are kept this much longer than the oldest frame needs


class StampError(ValueError):
    """A sample's stamp does not move forward."""


class NotReadyError(RuntimeError):
    """A signal has no sample at or before the tick."""


def newest_at(stamps_ns: Sequence[int], stamp_ns: int) -> int:
    """Index of the newest of rising stamps at or before `stamp_ns`; -1 where there is none."""
    return bisect_right(stamps_ns, stamp_ns) - 1


def sampled(
    stamps_ns: Sequence[int], stamp_ns: int, steps: int, period_ns: int
) -> tuple[list[int], list[bool]]:
    """Which samples fill a region's `steps` frames at `stamp_ns`, oldest first.

    Args:
        stamps_ns: of all samples since the reset, rising, at least one.
    Returns:
        Indices of the samples, and where the past did not exist, so that the first one stands in.
    """
    wanted = [newest_at(stamps_ns, stamp_ns - i * period_ns) for i in reversed(range(steps))]
    return [max(0, index) for index in wanted], [index < 0 for index in wanted]


def refresh_tick(tick: int, period: int, phase: int = 0) -> int:
    """The last tick up to `tick` at which a region of this period took new frames.

    Ticks count from the reset, which is a refresh itself. `phase` 0 is the robot's clock; others
    shift it, as if the reset had come later or earlier in the cycle.
    """
    return max(0, tick - (tick - phase) % period)


@dataclass
class _Stream:
    stamps_ns: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def keep_from(self, first: int) -> None:
        del self.stamps_ns[:first], self.values[:first]

    def newest_at(self, stamp_ns: int) -> int:
        return newest_at(self.stamps_ns, stamp_ns)


class History:
    """Samples by signal name, and the regions' frames of their last refresh. Not thread-safe."""

    def __init__(self, schema: CanvasSchema, binding: Binding) -> None:
        binding.check_schema(schema)
        self._binding = binding
        future = binding.future_regions(schema)
        regions = [name for name in binding.observed_regions() if name not in future]
        self._specs = {name: schema.layout.region_spec(name) for name in regions}
        self._streams = {binding.regions[name].signal: _Stream() for name in self._specs}
        self._regions = {
            signal: [name for name in self._specs if binding.regions[name].signal == signal]
            for signal in self._streams
        }
        self._span_ns = _MARGIN_NS + max(
            ((spec.size[0] - 1) * spec.period * binding.tick_ns for spec in self._specs.values()),
            default=0,
        )
        self._held: dict[str, tuple[int, Frames]] = {}
        # Of each region the frames last made, and for when: the same until its signal has more.
        self._made: dict[str, tuple[int, Frames]] = {}

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals that the observed regions sample."""
        return tuple(self._streams)

    def newest_stamp_ns(self, signal: str) -> int | None:
        """Stamp of the signal's newest sample; None where there is none."""
        stamps = self._streams[signal].stamps_ns
        return stamps[-1] if stamps else None

    def newest(self, signal: str) -> np.ndarray:
        """The signal's newest sample; raises NotReadyError where there is none."""
        if not self._streams[signal].values:
            raise NotReadyError(f"signal {signal!r}: no sample yet")
        return self._streams[signal].values[-1]

    def push(self, signal: str, stamp_ns: int, value: np.ndarray) -> None:
        """Adds one sample; the caller must not write into `value` afterwards.

        Raises SignalError when the value is not what the signal declares or an image changes its
        size before a reset, StampError when the stamp is not positive or not after the newest one.
        Nothing is kept then.
        """
        value = self.checked(signal, stamp_ns, value)
        stream = self._streams[signal]
        stream.stamps_ns.append(stamp_ns)
        stream.values.append(value)
        for region in self._regions[signal]:
            self._made.pop(region, None)
        stream.keep_from(max(0, stream.newest_at(stamp_ns - self._span_ns)))

    def checked(self, signal: str, stamp_ns: int, value: np.ndarray) -> np.ndarray:
        """The value as `push` would keep it; raises what `push` would raise."""
        declared = self._binding.signals[signal]
        value = declared.checked(signal, value)
        stream = self._streams[signal]
        newest = stream.stamps_ns[-1] if stream.stamps_ns else 0
        if stamp_ns <= newest:
            raise StampError(
                f"signal {signal!r}: expected a stamp after {newest} ns, got {stamp_ns} ns"
            )
        if (
            isinstance(declared, ImageSignal)
            and stream.values
            and stream.values[-1].shape != value.shape
        ):
            (h0, w0), (h1, w1) = stream.values[-1].shape[:2], value.shape[:2]
            raise SignalError(
                f"signal {signal!r}: expected images of {w0}x{h0} as before, got {w1}x{h1}; "
                f"the size may change only with a reset"
            )
        return value

    def reset(self, stamp_ns: int) -> None:
        """Starts an episode: tick 0 comes next.

        Of the samples at or before `stamp_ns` only the newest remains.
        """
        for stream in self._streams.values():
            stream.keep_from(max(0, stream.newest_at(stamp_ns)))
        self._held, self._made = {}, {}

    def clear(self) -> None:
        """Forgets all samples."""
        for stream in self._streams.values():
            stream.keep_from(len(stream.stamps_ns))
        self._held, self._made = {}, {}

    def observe(self, tick: int, stamp_ns: int) -> Observation:
        """The observation of control tick `tick` (0 after a reset) at `stamp_ns`.

        Raises NotReadyError, naming the signal, where a due region's signal has no sample at or
        before the tick.
        """
        self._held = self._refreshed(tick, stamp_ns)
        return _observation(tick, stamp_ns, self._held)

    def taken(self, region: str) -> tuple[int, int]:
        """The tick at which a region took its present frames, and the stamp of the newest."""
        tick, frames = self._held[region]
        return tick, int(frames.stamps_ns[-1])

    def foreseen(self, tick: int, stamp_ns: int) -> Observation:
        """What `observe` would give now; more samples may come first."""
        return _observation(tick, stamp_ns, self._refreshed(tick, stamp_ns))

    def refreshed(self, tick: int) -> list[str]:
        """The regions that take new frames at a control tick."""
        return [n for n, spec in self._specs.items() if refresh_tick(tick, spec.period) == tick]

    def _refreshed(self, tick: int, stamp_ns: int) -> dict[str, tuple[int, Frames]]:
        """What is held at a control tick, by region: frames, and the tick that took them."""
        held = dict(self._held)
        for name, spec in self._specs.items():
            due = refresh_tick(tick, spec.period)
            if name not in held or due != refresh_tick(held[name][0], spec.period):
                held[name] = (tick, self._frames(name, stamp_ns))
        return held

    def _frames(self, region: str, stamp_ns: int) -> Frames:
        made = self._made.get(region)
        if made is None or made[0] != stamp_ns:
            made = self._made[region] = stamp_ns, self._new_frames(region, stamp_ns)
        return made[1]

    def _new_frames(self, region: str, stamp_ns: int) -> Frames:
        spec, signal = self._specs[region], self._binding.regions[region].signal
        stream = self._streams[signal]
        if stream.newest_at(stamp_ns) < 0:
            raise NotReadyError(
                f"signal {signal!r}: no sample at or before the tick at {stamp_ns} ns"
            )
        period_ns = spec.period * self._binding.tick_ns
        indices, missing = sampled(stream.stamps_ns, stamp_ns, spec.size[0], period_ns)
        return Frames(
            values=(
                stream.values[indices[0]][None]  # a picture is large: no copy of a single one
                if len(indices) == 1
                else np.stack([stream.values[i] for i in indices])
            ),
            stamps_ns=np.array([stream.stamps_ns[i] for i in indices], dtype=np.int64),
            missing=np.array(missing),
        )


def _observation(tick: int, stamp_ns: int, held: dict[str, tuple[int, Frames]]) -> Observation:
    return Observation(tick, stamp_ns, {name: frames for name, (_, frames) in held.items()})
