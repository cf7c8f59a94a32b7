"""WindowSampler: which windows an epoch shows, in which order, to which rank; exact to resume.

Everything follows from (seed, epoch, position) by counter-based generators, so nothing depends on
workers, and a place in an epoch is two numbers. Nothing is read here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from canvas_robot.data.windows import Draw

Shuffle = Literal["none", "block", "global"]
_SHUFFLES = ("none", "block", "global")
_MOST_WINDOWS = 2**32  # an epoch's order is kept in uint32: 4 bytes a window


class SamplerError(ValueError):
    """A sampler's arguments do not fit each other, or a state is another sampler's."""


class _Random(NamedTuple):
    """The independent streams of one epoch: a place in one of Philox's counters each."""

    seed: int
    epoch: int

    def order(self, block: int = 0) -> np.random.Generator:
        """For shuffling: of the whole epoch, or of one block of it."""
        return np.random.Generator(self._philox(0, block, 0))

    def draws(self, position: int, count: int, stream: int) -> np.ndarray:
        """(count, 4) uint64 of `count` positions from `position` on, the same for each whatever
        its neighbours: Philox makes four words a count."""
        return self._philox(position, stream, 1).random_raw(4 * count).reshape(count, 4)

    def _philox(self, *counter: int) -> np.random.Philox:
        key, place = (np.array(words, np.uint64) for words in (self, (*counter, 0)))
        return np.random.Philox(key=key, counter=place)


class WindowSampler:
    """Batches of draws: every window once an epoch, over all ranks.

    Iterating gives what is left of the epoch and moves on with it: each batch that is handed out
    counts as done, and behind the last one the next epoch begins. `ahead` looks without moving.

    The windows of an epoch, in its order, are dealt out in batches, one to each rank in turn. What
    does not fill a batch for every rank is left out of that epoch: `dropped` windows, other ones
    every epoch unless nothing is shuffled.

    Args:
        counts: (n,) windows of each episode; episodes: (n,) their numbers in the dataset.
        batch_size: windows in a batch of one rank.
        seed: 0 <= seed < 2**64.
        shuffle: "none"; "global", a permutation of all windows; or "block", which reads records
            less often: shuffled episodes are taken `block_episodes` at a time, and within such a
            block visits of `clips_per_visit` windows of one episode come in any order.
        rank, world_size: which share of the batches this is, and of how many.
        phases: refresh phases to draw from, 0 to phases - 1; 1: the robot's own clock alone.
        crops: picture crops to draw from, 0 to crops - 1.
        ages: by region or tuple of regions, the lowest and highest age in ticks to draw from;
            regions of a tuple get one age. None: no ages are drawn.
    Raises:
        SamplerError: a number out of range, or too few windows for one batch on every rank.
    """

    def __init__(
        self,
        counts: Sequence[int] | np.ndarray,
        episodes: Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        seed: int,
        shuffle: Shuffle = "block",
        clips_per_visit: int = 4,
        block_episodes: int = 256,
        rank: int = 0,
        world_size: int = 1,
        phases: int = 1,
        crops: int = 1,
        ages: Mapping[str | tuple[str, ...], tuple[int, int]] | None = None,
    ) -> None:
        self._counts = np.asarray(counts, dtype=np.int64)
        self._episodes = np.asarray(episodes, dtype=np.int64)
        self.batch_size, self.seed, self.shuffle = int(batch_size), int(seed), shuffle
        self._clips, self._block_episodes = int(clips_per_visit), int(block_episodes)
        self._rank, self._world_size = int(rank), int(world_size)
        self._phases, self._crops = int(phases), int(crops)
        self._ages = [
            ((regions,) if isinstance(regions, str) else tuple(regions), int(low), int(high))
            for regions, (low, high) in (ages or {}).items()
        ]
        self._check()
        self._ends = np.cumsum(self._counts)
        self.windows = int(self._counts.sum())
        self._length = self.windows // (batch_size * world_size)
        if not 0 < self._length or self.windows >= _MOST_WINDOWS:
            raise SamplerError(
                f"batch_size: expected at least one batch of {batch_size} for each of {world_size} "
                f"ranks, and fewer than {_MOST_WINDOWS} windows, got {self.windows} windows of "
                f"{len(self._counts)} episodes"
            )
        self.epoch = 0
        self.batch = 0

    def __len__(self) -> int:
        """Batches of a whole epoch for one rank."""
        return self._length

    @property
    def dropped(self) -> int:
        """Windows that an epoch leaves out, because they do not fill a batch for every rank."""
        return self.windows - self._length * self.batch_size * self._world_size

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches left of this epoch; `state_dict` counts those that were handed out."""
        for draws in self.ahead():
            self.advance()
            yield draws

    def ahead(self) -> Iterator[list[Draw]]:
        """The batches left of this epoch, without moving on."""
        random, order = _Random(self.seed, self.epoch), self._order(self.epoch)
        for batch in range(self.batch, self._length):
            start = (batch * self._world_size + self._rank) * self.batch_size
            yield self._draws(random, order, start)

    def advance(self) -> None:
        """Counts one batch as done; behind the last one the next epoch begins."""
        self.batch += 1
        if self.batch == self._length:
            self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The place, `batch` batches into `epoch`, and whose place it is, as plain JSON values.

        It is the same on every rank.
        """
        return {"epoch": self.epoch, "batch": self.batch, "of": self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken.

        Raises SamplerError where it was taken from a sampler that gives other batches.
        """
        if set(state) != {"epoch", "batch", "of"}:
            raise SamplerError(f"state: expected epoch, batch and of, got {sorted(state)}")
        mine, other = self._identity(), dict(state["of"])
        differing = sorted(key for key in mine | other if mine.get(key) != other.get(key))
        if differing:
            raise SamplerError(
                "state: expected that of the same batches, got other values of "
                + ", ".join(f"{k} ({other.get(k)}, here {mine.get(k)})" for k in differing)
                + "; resume with the data and settings of the run that wrote it"
            )
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if not 0 <= epoch < 2**63 or not 0 <= batch < self._length:
            raise SamplerError(
                f"state: expected an epoch from 0 and a batch below {self._length}, "
                f"got {epoch} and {batch}"
            )
        self.epoch, self.batch = epoch, batch

    def _identity(self) -> dict[str, Any]:
        """All that the batches of all ranks follow from."""
        digest = zlib.crc32(self._counts.tobytes() + self._episodes.tobytes())
        return {
            "seed": self.seed,
            "shuffle": self.shuffle,
            "batch_size": self.batch_size,
            "world_size": self._world_size,
            "clips_per_visit": self._clips,
            "block_episodes": self._block_episodes,
            "phases": self._phases,
            "crops": self._crops,
            "ages": [[list(regions), low, high] for regions, low, high in self._ages],
            "windows": self.windows,
            "episodes": digest,
        }

    def _order(self, epoch: int) -> np.ndarray:
        """(windows,) uint32, the numbers of all windows in the epoch's order."""
        order = np.arange(self.windows, dtype=np.uint32)
        random = _Random(self.seed, epoch)
        if self.shuffle == "global":
            random.order().shuffle(order)
        elif self.shuffle == "block":
            starts, at = self._ends - self._counts, 0
            shuffled = random.order().permutation(len(self._counts))
            for block, first in enumerate(range(0, len(shuffled), self._block_episodes), start=1):
                chosen = shuffled[first : first + self._block_episodes]
                windows = _visits(
                    starts[chosen], self._counts[chosen], self._clips, random.order(block)
                )
                order[at : at + len(windows)] = windows
                at += len(windows)
        return order

    def _draws(self, random: _Random, order: np.ndarray, start: int) -> list[Draw]:
        windows = order[start : start + self.batch_size].astype(np.int64)
        place = np.searchsorted(self._ends, windows, side="right")
        steps = windows - (self._ends - self._counts)[place]
        words = random.draws(start, len(windows), 0)
        return [
            Draw(*draw)
            for draw in zip(
                self._episodes[place].tolist(),
                steps.tolist(),
                (words[:, 0] % self._phases).tolist(),
                self._drawn_ages(random, start, len(windows)),
                (words[:, 1] % self._crops).tolist(),
                strict=True,
            )
        ]

    def _drawn_ages(
        self, random: _Random, start: int, count: int
    ) -> list[tuple[tuple[str, int], ...]]:
        """For each of `count` positions an age for every region that gets one."""
        columns = []
        for stream, (regions, low, high) in enumerate(self._ages, start=1):
            ages = low + random.draws(start, count, stream)[:, 0] % (high - low + 1)
            columns += [[(region, age) for age in ages.tolist()] for region in regions]
        return list(zip(*columns, strict=True)) if columns else [()] * count

    def _check(self) -> None:
        counts, episodes = self._counts, self._episodes
        if counts.shape != episodes.shape or counts.ndim != 1 or (counts < 0).any():
            raise SamplerError(
                f"counts, episodes: expected as many counts >= 0 as episodes, "
                f"got {counts.shape} and {episodes.shape}"
            )
        if self.shuffle not in _SHUFFLES:
            raise SamplerError(f"shuffle: expected one of {_SHUFFLES}, got {self.shuffle!r}")
        for name, value in {
            "batch_size": self.batch_size,
            "clips_per_visit": self._clips,
            "block_episodes": self._block_episodes,
            "world_size": self._world_size,
            "phases": self._phases,
            "crops": self._crops,
        }.items():
            if value < 1:
                raise SamplerError(f"{name}: expected at least 1, got {value}")
        if not 0 <= self._rank < self._world_size:
            raise SamplerError(f"rank: expected below {self._world_size}, got {self._rank}")
        if not 0 <= self.seed < 2**64:
            raise SamplerError(f"seed: expected 0 to 2**64 - 1, got {self.seed}")
        for regions, low, high in self._ages:
            if not 0 <= low <= high:
                raise SamplerError(
                    f"ages of {list(regions)}: expected 0 <= low <= high, got {low} and {high}"
                )
        named = [region for regions, *_ in self._ages for region in regions]
        if len(named) != len(set(named)):
            raise SamplerError(f"ages: expected each region once, got {sorted(named)}")


def _visits(
    starts: np.ndarray, counts: np.ndarray, clips: int, random: np.random.Generator
) -> np.ndarray:
    """The windows of a block: each episode's shuffled, cut into visits, and the visits shuffled.

    starts, counts: (n,) the first window and the number of windows of each episode.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    shuffled = np.lexsort((random.random(len(owner)), owner))
    windows = (starts[owner] + place)[shuffled]
    visits = -(-counts // clips)
    visit = (np.cumsum(visits) - visits)[owner] + place // clips
    return windows[np.argsort(random.permutation(int(visits.sum()))[visit], kind="stable")]
