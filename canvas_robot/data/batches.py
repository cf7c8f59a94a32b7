"""Batches: windows stacked to tensors, read by worker processes in exactly the sampler's order.

Workers hold a WindowReader and nothing else: no model, no TensorFlow. What they read comes over in
shared memory that is used again and again; pixels stay uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from canvas_robot.data.sampling import WindowSampler
from canvas_robot.data.shared_room import Place, SharedRoom
from canvas_robot.data.windows import Draw, Window, WindowError, WindowReader
from canvas_robot.signals.records import Frames


class Stacked(NamedTuple):
    """One region's frames of B windows: values (B, F, ...) and missing (B, F) bool."""

    values: torch.Tensor
    missing: torch.Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows.

    frames, targets, past: by region, as in `Window`. Pictures are (B, F, H, W, 3) uint8, latents
        (B, F, C, h, w) float16, vectors (B, F, size) float32 in their units.
    instructions, names: of each window's episode; steps, phases: (B,) int64.
    """

    frames: dict[str, Stacked]
    targets: dict[str, Stacked]
    instructions: list[str]
    names: list[str]
    steps: torch.Tensor
    phases: torch.Tensor
    past: dict[str, Stacked] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; from pinned memory the copies do not wait."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from where a GPU copies fastest."""
        return self.each(torch.Tensor.pin_memory)

    def each(self, of: Callable[[Any], Any]) -> Batch:
        """The batch with what `of` makes of each of its tensors, always in the same order."""

        def stacked(regions: Mapping[str, Stacked]) -> dict[str, Stacked]:
            return {name: Stacked(*map(of, parts)) for name, parts in regions.items()}

        return replace(
            self,
            frames=stacked(self.frames),
            targets=stacked(self.targets),
            past=stacked(self.past),
            steps=of(self.steps),
            phases=of(self.phases),
        )


def collate(windows: Sequence[Window]) -> Batch:
    """Stacks windows of one reader, in order.

    Raises WindowError where they differ in size, naming two episodes.
    """

    def stacked(part: str) -> dict[str, Stacked]:
        return {
            region: _stacked(region, windows, [getattr(window, part)[region] for window in windows])
            for region in getattr(windows[0], part)
        }

    return Batch(
        frames=stacked("frames"),
        targets=stacked("targets"),
        past=stacked("past"),
        instructions=[window.instruction for window in windows],
        names=[window.name for window in windows],
        steps=torch.tensor([window.step for window in windows]),
        phases=torch.tensor([window.phase for window in windows]),
    )


def _stacked(region: str, windows: Sequence[Window], frames: Sequence[Frames]) -> Stacked:
    first = frames[0].values
    for window, other in zip(windows, frames, strict=True):
        if other.values.shape != first.shape or other.values.dtype != first.dtype:
            raise WindowError(
                f"region {region!r}: expected frames of one size in a batch, got {first.shape} of "
                f"episode {windows[0].name!r} and {other.values.shape} of {window.name!r}"
            )
    return Stacked(
        torch.from_numpy(np.stack([each.values for each in frames])),
        torch.from_numpy(np.stack([each.missing for each in frames])),
    )


class WindowLoader:
    """The batches of a sampler, read ahead by worker processes.

    Iterating gives what is left of the sampler's epoch. A batch counts as done when it is handed
    out, not when a worker reads it: `state_dict`, taken while batch n is in use, goes on with batch
    n + 1, however many were read ahead. Order and content do not depend on `workers`, and torch's
    own random numbers are not used.

    Args:
        reader: of the windows; it is sent to every worker.
        sampler: of this rank; the loader moves it on.
        workers: processes, started anew (not forked) at the first batch, then kept; 0: read in this
            one.
        ahead: batches that each worker reads ahead.
        pin_memory: hand out batches in page-locked memory.
    """

    def __init__(
        self,
        reader: WindowReader,
        sampler: WindowSampler,
        workers: int = 0,
        *,
        ahead: int = 2,
        pin_memory: bool = False,
    ) -> None:
        self.sampler = sampler
        by_workers = {
            "multiprocessing_context": "spawn",
            "persistent_workers": True,
            "prefetch_factor": ahead,
            "worker_init_fn": _start_worker,
        }
        # A worker is at most `ahead` batches beyond the one that is handed out.
        self._room = SharedRoom(workers, ahead + 1) if workers else None
        self._pin_memory = pin_memory
        self._loader = DataLoader(
            _Batches(reader, self._room, ahead + 1),
            batch_size=None,  # the sampler's entries are batches already
            sampler=_Ahead(sampler),
            collate_fn=_as_read,
            num_workers=workers,
            generator=torch.Generator(),  # else each epoch would move torch's own
            **(by_workers if workers else {}),
        )

    def __len__(self) -> int:
        """Batches of a whole epoch for this rank."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        """The batches left of this epoch.

        Raises WindowError, from whatever process, naming the episode that could not be read.
        """
        for batch in self._loader:
            if isinstance(batch, _Failed):
                raise WindowError(batch.text)
            if self._room is not None:
                batch = batch.each(self._taken)
            elif self._pin_memory:
                batch = batch.pin_memory()
            self.sampler.advance()
            yield batch

    def _taken(self, place: Place) -> torch.Tensor:
        """A tensor of its own of what a worker wrote: the worker will write there again."""
        written = self._room.read(place)
        own = torch.empty_like(torch.from_numpy(written), pin_memory=self._pin_memory)
        np.copyto(own.numpy(), written)  # torch would wake all its threads for it
        return own

    def state_dict(self) -> dict[str, Any]:
        """The place behind the last batch that was handed out, as plain JSON values."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken, with the next iteration; raises SamplerError."""
        self.sampler.load_state_dict(state)


class _Failed(NamedTuple):
    """What is handed out in place of a batch that could not be read: why."""

    text: str


class _Batches(Dataset):
    """Batches by their draws; what lives in a worker.

    With a room, what is given has places in it instead of tensors; see `SharedRoom`.
    """

    def __init__(self, reader: WindowReader, room: SharedRoom | None, slots: int) -> None:
        self._reader, self._room, self._slots, self._given = reader, room, slots, 0

    def __getitem__(self, draws: list[Draw]) -> Batch | _Failed:
        try:
            return self._batch(draws)
        except WindowError as error:  # else torch would add the worker's traceback to its text
            return _Failed(str(error))

    def _batch(self, draws: list[Draw]) -> Batch:
        places: dict[int, list[int]] = {}
        for place, draw in enumerate(draws):
            places.setdefault(draw.episode, []).append(place)
        windows: dict[int, Window] = {}
        for of_episode in places.values():
            read = self._reader.windows([draws[place] for place in of_episode])
            windows.update(zip(of_episode, read, strict=True))
        batch = collate([windows[place] for place in range(len(draws))])
        return batch if self._room is None else self._written(batch, self._room)

    def _written(self, batch: Batch, room: SharedRoom) -> Batch:
        slot, self._given = self._given % self._slots, self._given + 1
        arrays: list[np.ndarray] = []
        batch.each(lambda tensor: arrays.append(tensor.numpy()))
        places = iter(room.write(get_worker_info().id, slot, arrays))
        return batch.each(lambda _: next(places))


class _Ahead:
    """The sampler as DataLoader sees it: it looks ahead and leaves the sampler where it is."""

    def __init__(self, sampler: WindowSampler) -> None:
        self._sampler = sampler

    def __iter__(self) -> Iterator[list[Draw]]:
        return self._sampler.ahead()

    def __len__(self) -> int:
        return len(self._sampler)


def _as_read(batch: Batch) -> Batch:
    return batch


def _start_worker(_: int) -> None:
    """One thread for each worker: they are as many as there are cores to use."""
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
