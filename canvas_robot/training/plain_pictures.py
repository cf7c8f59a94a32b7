"""SquashedPictures: a camera's pictures of a data set, decoded and squashed once, in one file.

Decoding takes longer than a small network does. Which windows show them is data/windows.py's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.policy.codecs.squash import squash

Progress = Callable[[int, int], None]


class PicturesError(ValueError):
    """The pictures are more than may be kept, or a file holds others."""


class SquashedPictures:
    """Pictures by episode and step, as a WindowReader takes encoded frames.

    Args:
        path: the file, (N, h, w, 3) uint8; it is mapped, so that only what is asked for is read,
            and a process that it is sent to maps it too.
        first: (episodes,) int64, by number in the data set, where in the file an episode begins.
    """

    def __init__(self, path: Path, first: np.ndarray) -> None:
        self._path, self._first = path, first
        self._pictures = np.load(path, mmap_mode="r", allow_pickle=False)

    def frames(self, episode: int, steps: Sequence[int], crop: int = 0) -> np.ndarray:
        """(n, h, w, 3) uint8; there are whole pictures only, crop 0."""
        return self._pictures[self._first[episode] + np.asarray(steps)]

    def __reduce__(self):
        return SquashedPictures, (self._path, self._first)


def bytes_of(dataset: BridgeV2, episodes: np.ndarray, size: tuple[int, int]) -> int:
    """How large the file of these episodes' pictures is, its header of 128 bytes left out."""
    return int(dataset.steps[episodes].sum()) * size[0] * size[1] * 3


def squashed_pictures(
    path: Path,
    dataset: BridgeV2,
    camera: str,
    episodes: np.ndarray,
    size: tuple[int, int],
    progress: Progress | None = None,
) -> SquashedPictures:
    """The pictures of these episodes; the file is written, whole or not at all, if it is not there.

    Args:
        size: (height, width) in pixels.
        progress: called with how many episodes are done, and how many there are.
    Raises:
        PicturesError: a file that holds others; what the data set raises.
    """
    counts = dataset.steps[episodes].astype(np.int64)
    first = np.zeros(len(dataset), np.int64)
    first[episodes] = np.cumsum(counts) - counts
    shape = (int(counts.sum()), *size, 3)
    if not path.is_file():
        _write(path, dataset, camera, episodes, shape, progress)
    try:
        pictures = SquashedPictures(path, first)
    except (ValueError, EOFError) as error:
        raise PicturesError(f"{path}: {error}; delete it, and it is made again") from error
    found = pictures._pictures
    if found.shape != shape or found.dtype != np.uint8:
        raise PicturesError(
            f"{path}: expected pictures {shape} uint8, got {found.shape} {found.dtype}; delete it, "
            "and it is made again"
        )
    return pictures


def _write(
    path: Path,
    dataset: BridgeV2,
    camera: str,
    episodes: np.ndarray,
    shape: tuple[int, ...],
    progress: Progress | None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    try:
        with part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for done, episode in enumerate(episodes.tolist(), start=1):
                stored = dataset.read(episode)
                for image in stored.images(camera, range(len(stored))):
                    file.write(np.ascontiguousarray(squash(image, shape[1:3])))
                if progress is not None:
                    progress(done, len(episodes))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
