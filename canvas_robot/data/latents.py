"""LatentCache: camera frames that the VAE encoded before, read row by row from mapped files.

A folder made by `canvas-robot data encode` holds a cache for each split, camera and size. What its
files say of themselves is latent_files.py's, what writes them encode_dataset.py's; no torch here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from canvas_robot.data.latent_files import (
    MANIFEST,
    LatentCacheError,
    LatentFile,
    LatentKey,
    LatentManifest,
    differences,
    open_file,
    read_manifest,
    tensor_name,
)

_MOST_OPEN = 64  # mapped files of a cache at a time; opening one again takes 0.1 ms
_NAMED = 3  # missing ranges that a message names


class LatentCache:
    """The encoded frames of one split, camera and size; `open` makes one.

    Can be pickled; each process maps files of its own, at most _MOST_OPEN at a time.
    """

    def __init__(self, folder: Path, manifest: LatentManifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._opened: OrderedDict[int, LatentFile] = OrderedDict()

    @classmethod
    def open(cls, folder: str | Path, expect: LatentKey) -> LatentCache:
        """The cache of a split, camera and size in a folder of `canvas-robot data encode`.

        Args:
            expect: what it must hold; it may have more crops.
        Raises:
            FileNotFoundError: there is none in the folder, which is named with those there are.
            LatentCacheError: it holds something else, by field; or it is not whole, with the
                command that finishes it.
        """
        folder = Path(folder).expanduser()
        own = folder / expect.folder
        if not (own / MANIFEST).is_file():
            there = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
            raise FileNotFoundError(
                f"{folder}: expected {expect.folder} in it, made by `canvas-robot data encode`; "
                f"there are {there or 'no caches'}"
            )
        manifest = read_manifest(own)
        _require_fit(own, manifest, expect)
        _require_whole(own, manifest)
        return cls(own, manifest)

    def frames(self, episode: int, steps: Sequence[int], crop: int = 0) -> np.ndarray:
        """(n, C, h, w) float16 latents of some steps of an episode, in the order given.

        Raises IndexError for an episode, step or crop that is not there, LatentCacheError for a
        file that is not what was written.
        """
        manifest = self.manifest
        if not (0 <= episode < manifest.episodes and 0 <= crop < manifest.key.crops):
            raise IndexError(
                f"{self.folder}: expected an episode below {manifest.episodes} and a crop below "
                f"{manifest.key.crops}, got {episode} and {crop}"
            )
        number, place = divmod(episode, manifest.episodes_per_file)
        opened, wanted = self._file(number), [int(step) for step in steps]
        count = opened.note.steps[place]
        first, last = min(wanted, default=-1), max(wanted, default=-1)
        if not 0 <= first <= last < count:
            raise IndexError(
                f"{self.folder}: episode {episode}: expected steps from 0 to {count - 1}, "
                f"got {wanted}"
            )
        rows = opened.rows.get_slice(tensor_name(episode, crop))
        if rows.get_shape()[0] == 1:  # all its frames are alike
            return np.repeat(rows[:1], len(wanted), axis=0)
        found = rows[first : last + 1]
        in_order = wanted == list(range(first, last + 1))
        return found if in_order else found[np.array(wanted) - first]

    def __repr__(self) -> str:
        return f"LatentCache({str(self.folder)!r}, {self.manifest.episodes} episodes)"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": OrderedDict()}

    def _file(self, number: int) -> LatentFile:
        """The opened file, as the one used last."""
        if number not in self._opened:
            self._opened[number] = open_file(self.folder, self.manifest, number)
            if len(self._opened) > _MOST_OPEN:
                self._opened.popitem(last=False)
        self._opened.move_to_end(number)
        return self._opened[number]


def _require_fit(folder: Path, manifest: LatentManifest, expect: LatentKey) -> None:
    wanted, there = msgspec.structs.asdict(expect), msgspec.structs.asdict(manifest.key)
    if there["crops"] >= wanted["crops"]:
        wanted["crops"] = there["crops"]
    wrong = differences(wanted, there)
    if wrong:
        raise LatentCacheError(
            f"{folder}: {wrong}; encode into another folder what is used here, or use what it was "
            f"made for: {manifest.command(folder.parent)}"
        )


def _require_whole(folder: Path, manifest: LatentManifest) -> None:
    there = {path.name for path in folder.glob("*.safetensors")}
    missing = []
    for number in range(manifest.files):  # at most as many turns as there are files, and a few
        if manifest.file(number) not in there:
            missing.append(manifest.episodes_of(number))
        if len(missing) > _NAMED:
            break
    if missing:
        named = ", ".join(f"{part[0]} to {part[-1]}" for part in missing[:_NAMED])
        more = " and others" if len(missing) > _NAMED else ""
        raise LatentCacheError(
            f"{folder}: not whole: expected {manifest.files} files, got {len(there)}; missing "
            f"episodes {named}{more}; finish it with: {manifest.command(folder.parent)}"
        )
