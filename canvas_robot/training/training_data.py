"""TrainingData: the windows that a run learns from, and those that it is judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from canvas_robot.backbone.loading import Backbone
from canvas_robot.data.batches import Batch, WindowLoader, collate
from canvas_robot.data.bridge import BridgeV2, splits_of
from canvas_robot.data.encoding import open_latents
from canvas_robot.data.index import Progress
from canvas_robot.data.sampling import WindowSampler
from canvas_robot.data.statistics import signal_statistics
from canvas_robot.data.transitions import Selection, chosen
from canvas_robot.data.windows import STATE, Draw, WindowReader
from canvas_robot.policy.ticks import slow_regions
from canvas_robot.schema import CanvasSchema, compile_plan, needed_for
from canvas_robot.signals import Binding, Statistics
from canvas_robot.training.config import OFF, ConfigError, DataConfig, TrainConfig

Ages = dict[tuple[str, ...], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Source:
    """Episodes of one data set, and what reads windows of them."""

    dataset: BridgeV2
    reader: WindowReader
    selection: Selection

    def facts(self) -> dict[str, object]:
        """For the record: which data these are, and what was left out."""
        skipped = {str(skipped): skipped.episodes for skipped in self.dataset.index.skipped}
        return {
            "folder": str(self.dataset.folder),
            "split": self.dataset.split,
            "fingerprint": self.dataset.fingerprint,
            "episodes": len(self.selection),
            "windows": int(self.selection.counts.sum()),
            "first": self.dataset.name(int(self.selection.episodes[0])),
            "last": self.dataset.name(int(self.selection.episodes[-1])),
            "left_out": {**self.selection.left_out, **skipped},
            "environments": self.dataset.environments,
        }

    def part(self, start: int, stop: int) -> Source:
        """Its kept episodes number start to stop - 1 alone."""
        kept = self.selection
        episodes, counts = kept.episodes[start:stop], kept.counts[start:stop]
        return replace(self, selection=Selection(episodes, counts, kept.left_out))

    def balanced(self, most: int) -> Selection:
        """Episodes of rarer instructions several times, at most `most` times.

        An instruction with a third of the windows of the most frequent one comes three times. With
        `most` above 1, every episode's record is looked into once.
        """
        kept = self.selection
        if most == 1:
            return kept
        told = [self.dataset.read(episode).instruction for episode in kept.episodes.tolist()]
        _, which = np.unique(told, return_inverse=True)
        windows = np.bincount(which, weights=kept.counts)
        times = np.clip(np.rint(windows.max() / windows), 1, most).astype(np.int64)[which]
        return Selection(
            np.repeat(kept.episodes, times), np.repeat(kept.counts, times), kept.left_out
        )

    def draws(self, count: int, seed: int) -> list[Draw]:
        """Some of its windows, each once, by episode and step; the same for a seed."""
        ends = np.cumsum(self.selection.counts)
        random = np.random.default_rng(seed)
        numbers = np.sort(random.choice(ends[-1], min(count, int(ends[-1])), replace=False))
        places = np.searchsorted(ends, numbers, side="right")
        steps = numbers - (ends - self.selection.counts)[places]
        return [
            Draw(episode, step)
            for episode, step in zip(
                self.selection.episodes[places].tolist(), steps.tolist(), strict=True
            )
        ]

    def read(self, draws: list[Draw]) -> Batch:
        """Windows of several episodes, in their order."""
        by_episode = groupby(draws, key=lambda draw: draw.episode)
        return collate([w for _, some in by_episode for w in self.reader.windows(list(some))])


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What is trained on and what is held out (None: nothing).

    ages: how old what a slow region shows may be, as of WindowSampler; empty where the clock says.
    """

    config: DataConfig
    train: Source
    held_out: Source | None
    ages: Ages

    def loader(
        self, batch_size: int, seed: int, rank: int, processes: int, pin_memory: bool
    ) -> WindowLoader:
        """The batches of one process."""
        config, kept = self.config, self.train.balanced(self.config.balance)
        sampler = WindowSampler(
            kept.counts,
            kept.episodes,
            batch_size,
            seed=seed,
            shuffle=config.shuffle,
            clips_per_visit=config.clips_per_visit,
            block_episodes=config.block_episodes,
            rank=rank,
            world_size=processes,
            phases=self.train.reader.phases,
            crops=config.crops,
            ages=self.ages,
        )
        return WindowLoader(self.train.reader, sampler, config.workers, pin_memory=pin_memory)

    def statistics(self) -> dict[str, Statistics]:
        """Of "state" and "action", over all that is trained on."""
        train = self.train
        return signal_statistics(train.dataset, self.config.rules, selection=train.selection)

    def largest(self, count: int) -> Batch:
        """`count` windows as large as windows get: of the last phase, crop and age."""
        ages = tuple((r, high) for regions, (_, high) in self.ages.items() for r in regions)
        phase, crop = self.train.reader.phases - 1, self.config.crops - 1
        draws = self.train.draws(count, seed=0)
        draws = [draws[number % len(draws)] for number in range(count)]
        largest = [draw._replace(phase=phase, crop=crop, ages=ages) for draw in sorted(draws)]
        return self.train.read(largest)

    def held_out_batches(self, batch_size: int, rank: int, processes: int) -> list[Batch]:
        """One process's share of the held-out windows, as many for each, and always the same."""
        if self.held_out is None:
            return []
        draws = self.held_out.draws(self.config.holdout_windows, seed=0)
        draws = draws[: len(draws) // processes * processes][rank::processes]
        starts = range(0, len(draws), batch_size)
        return [self.held_out.read(draws[start : start + batch_size]) for start in starts]


def open_data(
    config: TrainConfig,
    schema: CanvasSchema,
    binding: Binding,
    backbone: Backbone,
    progress: Progress | None = None,
) -> TrainingData:
    """Opens the data sets of a configuration.

    Args:
        backbone: whose latents are read, where the configuration names a folder of them.
        progress: called while an index is made.
    Raises:
        what BridgeV2, WindowReader, `chosen`, `open_latents` and `slow_regions` raise; ConfigError
        for a held-out split that is not there, or a fraction that leaves no episode on one side.
    """
    data = config.data

    def opened(split: str, crops: int) -> Source:
        folder = Path(data.folder).expanduser()
        dataset = BridgeV2(folder, split, skip_corrupt=data.skip_corrupt, progress=progress)
        cached = None
        if data.latents:
            cached = open_latents(data.latents, dataset, schema, binding, backbone, crops)
        reader = WindowReader(dataset, schema, binding, data.rules, cached)
        return Source(dataset, reader, chosen(dataset, data.rules, reader.cameras))

    train, held_out = opened(data.split, data.crops), None
    if isinstance(data.holdout, float):
        train, held_out = divided(train, data.holdout)
    elif data.holdout != OFF:
        require_holdout(data, train.dataset)
        held_out = opened(data.holdout, 1)
    return TrainingData(data, train, held_out, _ages(config, schema, binding))


def require_holdout(data: DataConfig, dataset: BridgeV2) -> None:
    """Raises ConfigError where the split to hold out is none of a data set's."""
    splits = splits_of(dataset.folder)
    if data.holdout not in splits:
        raise ConfigError(
            f"data.holdout: expected one of the splits {sorted(splits)} of {dataset.folder}, a "
            f"share of {data.split!r} such as 0.1, or {OFF!r}, got {data.holdout!r}"
        )


def by_signal(computed: dict[str, Statistics], binding: Binding) -> dict[str, Statistics]:
    """Statistics of "state" and "action" by the binding's names of signals."""
    states = [signal for signal, key in binding.sources.dataset.items() if key == STATE]
    action = binding.regions[binding.action_region()].signal
    return {**dict.fromkeys(states, computed[STATE]), action: computed["action"]}


def divided(source: Source, fraction: float) -> tuple[Source, Source]:
    """The first episodes and the last ones, a fraction of them."""
    count = len(source.selection)
    held = round(fraction * count)
    if not 0 < held < count:
        raise ConfigError(
            f"data.holdout: expected a fraction that leaves episodes on both sides, got {fraction} "
            f"of {count} episodes"
        )
    return source.part(0, count - held), source.part(count - held, count)


def _ages(config: TrainConfig, schema: CanvasSchema, binding: Binding) -> Ages:
    """With slices a slow pass is P to 2P - 1 ticks old when it is acted on, see TickRunner."""
    if config.refresh == "inline":
        return {}
    plan = compile_plan(schema, config.loops)
    slow = slow_regions(plan, needed_for(plan, [binding.action_region()]))
    period = min(region.period for region in plan.regions if region.name in slow)
    shown = slow & {*binding.observed_regions(), *(r.name for r in plan.regions if r.hold)}
    return {tuple(sorted(shown)): (period, 2 * period - 1)} if shown else {}
