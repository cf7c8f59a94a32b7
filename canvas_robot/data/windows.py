"""Windows: what a policy observes at a tick of a recorded episode, and what it should do then.

A window's frames are those that a `History` gives on the robot at the same tick: one function
samples for both. No torch here; stacking windows to batches is batches.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import lcm
from typing import NamedTuple, Protocol

import numpy as np

from canvas_robot.data.episode import ACTION_SIZE, STATE_SIZE
from canvas_robot.data.stored import STEP_NS
from canvas_robot.data.transitions import DataRules, Transitions, transitions
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals.binding import Binding, BindingError
from canvas_robot.signals.history import refresh_tick, sampled
from canvas_robot.signals.records import Frames
from canvas_robot.signals.signal import ImageSignal, Signal

STATE = "state"  # the dataset key of the states; others are cameras
_KEPT = 1024  # episodes whose numbers are remembered, about 4 kB each; four blocks of a sampler


class WindowError(ValueError):
    """An episode could not be read or cut; says which and why."""


class Draw(NamedTuple):
    """One window to read.

    episode: its number in the dataset.
    step: control tick, counted among the episode's transitions from 0.
    phase: shift of the refresh clock in ticks; 0: as after a reset at the first transition.
    ages: by region, ticks since what is acted on was observed, instead of what the clock says.
    crop: number of the picture crop; 0: the whole picture. Others exist in latent caches alone.
    """

    episode: int
    step: int
    phase: int = 0
    ages: tuple[tuple[str, int], ...] = ()
    crop: int = 0


@dataclass(frozen=True, eq=False)
class Window:
    """One training example: a recorded tick.

    name: of the episode; episode, step, phase: of the draw.
    instruction: the goal text.
    frames: of each observed region, as `History.observe` gives them at that tick; camera frames may
        be latents (F, C, h, w) float16 instead of pixels. Stamps count from the first transition.
    targets: of each output region. Action: values (horizon, 7) float32 in the signal's units, row j
        for tick `step` + j; the last one stands in beyond the end, `missing` there. Video: the
        frames that are `period` ticks apart from `step` + `period` on, likewise.
    past: where regions hold: what the others showed at the held regions' last refresh.
    """

    name: str
    episode: int
    step: int
    phase: int
    instruction: str
    frames: dict[str, Frames]
    targets: dict[str, Frames]
    past: dict[str, Frames] = field(default_factory=dict)


class StepReader(Protocol):
    """One recorded episode without its pictures: a `StoredEpisode`."""

    name: str
    instruction: str
    states: np.ndarray
    actions: np.ndarray

    def __len__(self) -> int: ...


class EpisodeReader(Protocol):
    """Episodes by number: a `BridgeV2`."""

    cameras: Sequence[str]

    def read(self, index: int) -> StepReader: ...

    def images(self, index: int, camera: str, steps: Sequence[int]) -> np.ndarray:
        """(n, H, W, 3) uint8; only the pictures that are asked for are read and decoded."""
        ...

    def name(self, index: int) -> str: ...


class FrameLatents(Protocol):
    """Encoded camera frames by episode and step: a `LatentCache`."""

    def frames(self, episode: int, steps: Sequence[int], crop: int = 0) -> np.ndarray:
        """(n, C, h, w) float16."""
        ...


@dataclass(frozen=True)
class _Stream:
    """What fills one region: `frames` samples of what the dataset calls `key`."""

    region: str
    key: str
    name: str
    signal: Signal
    frames: int
    period: int


class WindowReader:
    """Reads windows from a dataset. Can be pickled for worker processes if its parts can.

    Numbers are passed on as recorded: a state outside its signal's range, which a robot refuses, is
    part of a window like any other.

    Args:
        dataset: of the episodes.
        schema, binding: what is observed, how often; the binding's sources.dataset names for each
            signal a camera or "state".
        rules: what steps and actions mean.
        latents: by region, the cache that its frames are taken from instead of pictures.
    Raises:
        BindingError: the binding does not fit the schema or the dataset.
    """

    def __init__(
        self,
        dataset: EpisodeReader,
        schema: CanvasSchema,
        binding: Binding,
        rules: DataRules,
        latents: Mapping[str, FrameLatents] | None = None,
    ) -> None:
        binding.check_schema(schema)
        _check_rate(binding)
        _check_outputs(binding)
        self._dataset, self._rules, self._tick_ns = dataset, rules, binding.tick_ns
        streams = {
            region: _stream(region, schema, binding, dataset.cameras)
            for region in binding.observed_regions()
        }
        future = binding.future_regions(schema)
        self._observed = [streams[region] for region in streams if region not in future]
        self._future = [streams[region] for region in streams if region in future]
        self._action = binding.action_region()
        self._horizon = schema.layout.region_size(self._action)[0]
        specs = {region: schema.layout.region_spec(region) for region in schema.layout.regions}
        self._regions = frozenset(specs)
        self._holding = {region: spec.period for region, spec in specs.items() if spec.hold}
        self._latents = dict(latents or {})
        self._numbers: dict[int, _Numbers] = {}
        unknown = sorted(
            set(self._latents) - {s.region for s in streams.values() if s.key != STATE}
        )
        if unknown:
            raise BindingError(f"latents: expected those of camera regions, got {unknown}")

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras of the dataset that the windows show."""
        keys = [stream.key for stream in (*self._observed, *self._future)]
        return tuple(dict.fromkeys(key for key in keys if key != STATE))

    @property
    def phases(self) -> int:
        """Ticks after which all refreshes repeat: the number of different phases."""
        return lcm(*(stream.period for stream in self._observed), *self._holding.values())

    def windows(self, draws: Sequence[Draw]) -> list[Window]:
        """The windows of some draws of one episode, in their order.

        Its record is read once at most. Raises WindowError, naming the episode, whatever goes wrong
        with it.
        """
        episode = draws[0].episode
        if any(draw.episode != episode for draw in draws):
            raise ValueError(f"windows: expected draws of one episode, got {list(draws)}")
        try:
            tape = self._tape(episode)
            return [self._window(tape, draw) for draw in draws]
        except Exception as error:
            name = self._dataset.name(episode)
            raise WindowError(f"episode {name!r} (number {episode}): {error}") from error

    def _tape(self, episode: int) -> _Tape:
        """The episode; its record is read only for numbers that are not known."""
        numbers = self._numbers.get(episode)
        if numbers is None:
            record = self._dataset.read(episode)
            numbers = _Numbers(
                record.name,
                record.instruction,
                np.array(record.states),
                transitions(record, self._rules),
            )
            self._numbers[episode] = numbers
            if len(self._numbers) > _KEPT:
                del self._numbers[next(iter(self._numbers))]  # the one that came first
        return _Tape(episode, numbers, self._dataset, self._latents, self._tick_ns)

    def _window(self, tape: _Tape, draw: Draw) -> Window:
        self._check_draw(draw, tape.ticks)
        held = self._held_refresh(draw)
        return Window(
            tape.numbers.name,
            draw.episode,
            draw.step,
            draw.phase,
            tape.numbers.instruction,
            frames={s.region: self._observed_at(draw.step, s, tape, draw) for s in self._observed},
            targets={
                self._action: tape.chunk(draw.step, self._horizon),
                **{s.region: tape.coming(s, draw.step, draw.crop) for s in self._future},
            },
            past={
                s.region: self._observed_at(held, s, tape, draw)
                for s in self._observed
                if held is not None and s.region not in self._holding
            },
        )

    def _observed_at(self, tick: int, stream: _Stream, tape: _Tape, draw: Draw) -> Frames:
        return tape.observed(stream, _acted_on(tick, stream.region, stream.period, draw), draw.crop)

    def _held_refresh(self, draw: Draw) -> int | None:
        """The tick that all held regions are of; None where none hold, or with several periods."""
        if len(set(self._holding.values())) != 1:
            return None
        ticks = {_acted_on(draw.step, *held, draw) for held in self._holding.items()}
        if len(ticks) > 1:
            raise WindowError(
                f"ages: expected one for all regions that hold, {sorted(self._holding)}, "
                f"got {dict(draw.ages)}; draw them together"
            )
        return ticks.pop()

    def _check_draw(self, draw: Draw, count: int) -> None:
        if not 0 <= draw.step < count:
            raise WindowError(f"expected a step below {count} transitions, got {draw.step}")
        unknown = sorted({region for region, _ in draw.ages} - self._regions)
        if unknown:
            raise WindowError(f"ages: expected some of {sorted(self._regions)}, got {unknown}")


class _Numbers(NamedTuple):
    """What an episode of T steps holds beside pictures; states: (T, 7)."""

    name: str
    instruction: str
    states: np.ndarray
    rows: Transitions


class _Tape:
    """One episode's samples by control tick; each picture is decoded once.

    ticks: its transitions.
    """

    def __init__(
        self,
        episode: int,
        numbers: _Numbers,
        dataset: EpisodeReader,
        latents: Mapping[str, FrameLatents],
        tick_ns: int,
    ) -> None:
        self.numbers, self.ticks = numbers, len(numbers.rows)
        self._episode, self._dataset = episode, dataset
        self._latents, self._tick_ns = latents, tick_ns
        self._pictures: dict[tuple[str, int], np.ndarray] = {}

    def observed(self, stream: _Stream, tick: int, crop: int) -> Frames:
        """What a history that saw tick 0 and all after it observes at `tick`."""
        return self._frames(stream, crop, _observed(tick, stream.frames, stream.period))

    def coming(self, stream: _Stream, tick: int, crop: int) -> Frames:
        """What comes a period after `tick`, and so on, up to the last step of the episode."""
        last = len(self.numbers.states) - self._first - 1
        return self._frames(stream, crop, _coming(tick, stream.frames, stream.period, last))

    def chunk(self, tick: int, horizon: int) -> Frames:
        """The actions of `tick` and those after it, up to the last transition."""
        at = _coming(tick - 1, horizon, 1, self.ticks - 1)
        return Frames(self.numbers.rows.actions[at.ticks], at.ticks * self._tick_ns, at.missing)

    @property
    def _first(self) -> int:
        """The step of the episode that is tick 0."""
        return int(self.numbers.rows.steps[0])

    def _frames(self, stream: _Stream, crop: int, at: _Ticks) -> Frames:
        values = self._values(stream, at.ticks + self._first, crop)
        return Frames(values, at.ticks * self._tick_ns, at.missing)

    def _values(self, stream: _Stream, steps: np.ndarray, crop: int) -> np.ndarray:
        if stream.key == STATE:
            return self.numbers.states[steps]
        if stream.region in self._latents:
            return self._latents[stream.region].frames(self._episode, steps.tolist(), crop)
        if crop:
            raise WindowError(
                f"region {stream.region!r}: crop {crop}: pictures are read whole; other crops are "
                "in latent caches alone"
            )
        images = self._images(stream.key, steps.tolist())
        stream.signal.checked(stream.name, images[0])
        return images

    def _images(self, camera: str, steps: list[int]) -> np.ndarray:
        new = [step for step in dict.fromkeys(steps) if (camera, step) not in self._pictures]
        if new:
            images = self._dataset.images(self._episode, camera, new)
            self._pictures.update(zip(((camera, step) for step in new), images, strict=True))
            if new == steps:
                return images
        return np.stack([self._pictures[camera, step] for step in steps])


def _acted_on(tick: int, region: str, period: int, draw: Draw) -> int:
    """The tick whose observation of a region is acted on at `tick`."""
    for aged, age in draw.ages:
        if aged == region:
            return max(0, tick - age)
    return refresh_tick(tick, period, draw.phase)


class _Ticks(NamedTuple):
    """Which ticks fill a region's frames, and where others stand in: (F,) int64 and bool."""

    ticks: np.ndarray
    missing: np.ndarray


# The same few hundred of them are asked for again and again; they cannot be written to.
@lru_cache(maxsize=65_536)
def _observed(tick: int, frames: int, period: int) -> _Ticks:
    """Of what a history observes at `tick` that saw every tick from 0 on."""
    ticks, missing = sampled(range(tick + 1), tick, frames, period)
    return _fixed(ticks, missing)


@lru_cache(maxsize=65_536)
def _coming(tick: int, frames: int, period: int, last: int) -> _Ticks:
    """Of the ticks that are `period` apart from tick + period on; `last` for all beyond it."""
    ticks = [tick + (i + 1) * period for i in range(frames)]
    return _fixed([min(tick, last) for tick in ticks], [tick > last for tick in ticks])


def _fixed(ticks: list[int], missing: list[bool]) -> _Ticks:
    arrays = np.array(ticks, dtype=np.int64), np.array(missing)
    for array in arrays:
        array.flags.writeable = False
    return _Ticks(*arrays)


def _stream(region: str, schema: CanvasSchema, binding: Binding, cameras: Sequence[str]) -> _Stream:
    name, spec = binding.regions[region].signal, schema.layout.region_spec(region)
    signal = binding.signals[name]
    is_image = isinstance(signal, ImageSignal)
    there_are = list(cameras) if is_image else [STATE]
    key = binding.sources.dataset.get(name)
    if key not in there_are:
        raise BindingError(
            f"region {region!r}: sources.dataset: expected for signal {name!r} one of "
            f"{there_are}, got {'nothing' if key is None else repr(key)}"
        )
    if not is_image and signal.size != STATE_SIZE:
        raise BindingError(
            f"region {region!r}: signal {name!r}: the dataset's states have {STATE_SIZE} "
            f"components, the signal declares {signal.size}"
        )
    return _Stream(region, key, name, signal, spec.size[0], spec.period)


def _check_rate(binding: Binding) -> None:
    if binding.tick_ns != STEP_NS:
        raise BindingError(
            f"control_rate_hz: the dataset was recorded at {1e9 / STEP_NS:g} Hz, the binding says "
            f"{binding.control_rate_hz:g}; a window's frames would be those of other times"
        )


def _check_outputs(binding: Binding) -> None:
    rewards = binding.regions_by_role("reward")
    if rewards:
        raise BindingError(
            f"region {rewards[0]!r}: decodes to a reward, and recorded episodes hold none; leave "
            "it out of schema and binding"
        )
    size = binding.action_signal().size
    if size != ACTION_SIZE:
        raise BindingError(
            f"region {binding.action_region()!r}: the dataset's actions have {ACTION_SIZE} "
            f"components, the signal declares {size}"
        )
