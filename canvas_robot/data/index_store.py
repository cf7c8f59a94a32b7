"""Arrays kept in one .npz file with the key they were made for, safely between processes.

What they mean is said in index.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

T = TypeVar("T")
_WRITE_BITS = 0o222
# What NumPy raises for bytes that are no whole .npz file, or hold Python objects.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)
_log = logging.getLogger(__name__)


def places_of(folder: Path, name: str, chosen: str | Path | None = None) -> tuple[Path, ...]:
    """Where a file that describes `folder` may lie, the best first: `chosen`, if it is given.

    Else in `folder`, or in canvas_robot/index in the user's cache ($XDG_CACHE_HOME or ~/.cache).
    """
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    if chosen is not None:
        return (Path(chosen) / f"{digest}-{name}",)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return folder / name, Path(cache) / "canvas_robot" / "index" / f"{digest}-{name}"


def load_arrays(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays, or None where there are none, they are for another key, or cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return {name: stored[name] for name in stored.files if name != "key"}
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        _log.warning("%s is made again: expected a whole .npz file, got %r", path, error)
        return None


def store_made(
    places: tuple[Path, ...],
    key: str,
    stored: Callable[[], T | None],
    make: Callable[[], T],
    to_arrays: Callable[[T], Mapping[str, np.ndarray]],
) -> T:
    """What `make` gives, stored in the first place that can be written, else nowhere.

    Other processes wait for the one that makes it, and then take what it `stored`.
    """
    for place in places:
        if not _can_write(place.parent):
            continue
        with _lock(place.with_name(f"{place.name}.lock")):
            found = stored()
            if found is not None:
                return found
            made = make()
            _replace(place, {"key": np.array(key), **to_arrays(made)})
        return made
    _log.warning("not kept, for none of these can be written: %s", ", ".join(map(str, places)))
    return make()


def _can_write(folder: Path) -> bool:
    """Makes the folder if need be. One that is marked read-only stays as it is, for root too."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marked = folder.stat().st_mode & _WRITE_BITS
    except OSError:
        return False
    return bool(marked) and os.access(folder, os.W_OK)


def _replace(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Whoever opens the file finds the old one or the whole new one."""
    descriptor, part = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **arrays)
            os.fchmod(file.fileno(), 0o644)  # mkstemp's files are for their owner alone
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the file is gone afterwards."""
    while True:
        with path.open("ab") as file:
            # A network drive without locks: several processes do the work, each result is whole.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):
                continue  # its holder removed it meanwhile
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
