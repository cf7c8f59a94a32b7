"""Offline evaluation: a policy's chunks for every recorded window, beside what was recorded.

Windows go the policy's own path, many at a time: its codecs, its ticks, its head. Which episodes
are judged is held_out.py's, what the errors say offline_errors.py's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.transitions import DataRules, Selection, transitions
from canvas_robot.data.windows import Draw, Window, WindowReader
from canvas_robot.evaluation.offline_errors import (
    GRIPPER,
    Sums,
    previous_actions,
    repeated,
    still,
)
from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.signals import Frames

POLICY, PREVIOUS, ZERO = "policy", "previous action", "zero action"
WINDOWS_AT_A_TIME = 64  # read of one episode: their pictures are in memory at once

# Called after each episode with how many are done, and how many there are.
Progress = Callable[[int, int], None]


class OfflineError(ValueError):
    """A policy cannot be judged on recorded windows; says why."""


class ChunkPredictor:
    """A policy's decisions on windows, each as if the policy were at that tick after a reset.

    Args:
        policy: whose weights they are; its own state is left alone.
        batch: windows that are computed at once.
    Raises:
        OfflineError: regions hold with several periods, which windows cannot show.
    """

    def __init__(self, policy: CanvasPolicy, batch: int) -> None:
        self._model, self._batch = policy.model, batch
        region = policy.model.action_region
        self._ticks = TickRunner(policy.model.runner, outputs=[region], batch=batch)
        needed = [r for r in policy.model.plan.regions if r.name in self._ticks.regions]
        self._held = {r.name for r in needed if r.hold}
        periods = {r.period for r in needed if r.hold}
        if len(periods) > 1:
            raise OfflineError(
                f"schema: regions {sorted(self._held)} hold and have periods {sorted(periods)}; "
                "what each read at its own last refresh is not in one window: give them one period"
            )
        self._seen, self._episode = FrameCache(), -1

    def each(self, windows: Iterable[Window]) -> Iterator[tuple[Window, np.ndarray]]:
        """Windows with their chunks (horizon, 7), in the action's units."""
        rest = iter(windows)
        while some := list(islice(rest, self._batch)):
            yield from zip(some, self.chunks(some), strict=True)

    @torch.inference_mode()
    def chunks(self, windows: Sequence[Window]) -> np.ndarray:
        """(n, horizon, 7) of at most `batch` windows, in the action's units.

        Raises OfflineError, naming the window, for a decision that is not finite.
        """
        now = self._tokens(windows, [window.frames for window in windows], self._ticks.regions)
        self._ticks.reset()
        if self._held:  # first as of their last refresh, then the others as of now
            past = [window.past for window in windows]
            self._ticks.tick(now | self._tokens(windows, past, past[0].keys() & now.keys()))
            rows = self._ticks.tick({r: t for r, t in now.items() if r not in self._held})
        else:
            rows = self._ticks.tick(now)
        region = self._model.action_region
        tokens = self._model.output_tokens(rows, region, self._ticks.modulator)
        values = self._model.action.to_units(self._model.action.decode(tokens))[: len(windows)]
        for window, chunk in zip(windows, values, strict=True):
            if not np.isfinite(chunk).all():
                raise OfflineError(
                    f"{window.name}, step {window.step}: expected finite actions, got {chunk[0]}"
                )
        return values

    def _tokens(
        self,
        windows: Sequence[Window],
        frames: Sequence[Mapping[str, Frames]],
        regions: Iterable[str],
    ) -> dict[str, torch.Tensor]:
        """Input tokens (batch, n, D) of some regions; the last window fills up the batch."""
        regions, encoded = sorted(regions), []
        for window, shown in zip(windows, frames, strict=True):
            if window.episode != self._episode:
                self._seen.clear()
                self._episode = window.episode
            try:
                made = self._model.encode(shown, window.instruction, self._seen, regions)
            except ValueError as error:
                raise OfflineError(f"{window.name}: {error}") from error
            encoded.append(made)
        encoded += encoded[-1:] * (self._batch - len(encoded))
        stacked = {region: torch.cat([each[region] for each in encoded]) for region in regions}
        return self._model.tokens(stacked)


@dataclass(frozen=True)
class JudgedEpisode:
    """Which episode, and how many windows of it were judged."""

    number: int
    name: str
    instruction: str
    windows: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was judged, episode by episode. `sums`: by predictor, POLICY and the baselines."""

    episodes: list[JudgedEpisode]
    sums: dict[str, Sums]
    seconds: float

    @property
    def windows(self) -> int:
        return sum(episode.windows for episode in self.episodes)


@dataclass(frozen=True, eq=False)
class Recording:
    """An episode's n windows: chunks (n, H, 7), where they are beyond its end (n, H), and the
    action before each window (n, 7)."""

    episode: JudgedEpisode
    predicted: np.ndarray
    recorded: np.ndarray
    missing: np.ndarray
    previous: np.ndarray

    def sums(self) -> dict[str, Sums]:
        """By predictor."""
        horizon, kept = self.recorded.shape[1], self.previous[:, GRIPPER]
        chunks = {
            POLICY: self.predicted,
            PREVIOUS: repeated(self.previous, horizon),
            ZERO: still(self.previous, horizon),
        }
        return {
            name: Sums.of(chunk, self.recorded, self.missing, kept)
            for name, chunk in chunks.items()
        }


class Judge:
    """Reads episodes and lets a policy decide on every window of them.

    Args:
        policy: on its device.
        dataset, rules: what is read, and what its steps and actions mean.
        batch: windows that are computed at once.
    Raises:
        BindingError: the policy's binding does not fit the data. OfflineError: as ChunkPredictor.
    """

    def __init__(
        self, policy: CanvasPolicy, dataset: BridgeV2, rules: DataRules, batch: int
    ) -> None:
        self._dataset, self._rules = dataset, rules
        self.reader = WindowReader(dataset, policy.schema, policy.binding, rules)
        self._predictor = ChunkPredictor(policy, batch)
        self._action = policy.model.action_region

    def recordings(self, selection: Selection) -> Iterator[Recording]:
        """Every window of every episode, once, the refresh clock as after a reset at its start."""
        decided = self._predictor.each(self._windows(selection))
        for number, pairs in groupby(decided, key=lambda pair: pair[0].episode):
            windows, chunks = zip(*pairs, strict=True)
            targets = [window.targets[self._action] for window in windows]
            record = self._dataset.read(number)
            rows = transitions(record, self._rules)
            yield Recording(
                JudgedEpisode(number, record.name, record.instruction, len(windows)),
                np.stack(chunks),
                np.stack([target.values for target in targets]),
                np.stack([target.missing for target in targets]),
                previous_actions(rows.actions, rows.states[0]),
            )

    def evaluate(self, selection: Selection, progress: Progress | None = None) -> Evaluation:
        """The errors of all windows of the episodes."""
        started, episodes, parts = time.perf_counter(), [], []
        for recording in self.recordings(selection):
            episodes.append(recording.episode)
            parts.append(recording.sums())
            if progress is not None:
                progress(len(episodes), len(selection))
        sums = {name: Sums.joined([part[name] for part in parts]) for name in parts[0]}
        return Evaluation(episodes, sums, time.perf_counter() - started)

    def _windows(self, selection: Selection) -> Iterator[Window]:
        for episode, count in zip(selection.episodes, selection.counts, strict=True):
            for start in range(0, count, WINDOWS_AT_A_TIME):
                steps = range(start, min(start + WINDOWS_AT_A_TIME, count))
                yield from self.reader.windows([Draw(int(episode), step) for step in steps])
