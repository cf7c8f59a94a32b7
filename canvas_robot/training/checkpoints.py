"""Checkpoint folders of a run: written whole or not at all, named by step, only the newest kept.

What is in them is training_state.py's. A folder is trusted no more than any other input: what is
not exactly what was written is refused by its name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from canvas_robot.backbone.digest import digest_of_file

MANIFEST = "checkpoint.json"
FORMAT = 1
_NAME = re.compile(r"step_(\d{8,12})")


class CheckpointFileError(ValueError):
    """A training checkpoint is not what was written, or not of this run."""


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and contents of one file."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """checkpoint.json: which step of which training, and every other file of the folder."""

    step: int
    processes: int
    data_fingerprint: str
    gradient_checkpointing: bool
    files: dict[str, FileRecord] = {}
    format: int = FORMAT


class CheckpointFolders:
    """The folder `checkpoints` of a run."""

    def __init__(self, root: Path, keep: int) -> None:
        self.root, self._keep = root, keep

    def steps(self) -> list[int]:
        """Steps of the checkpoints that there are, rising; unfinished ones are none."""
        found = [_NAME.fullmatch(path.name) for path in self.root.glob("step_*") if path.is_dir()]
        return sorted(int(match[1]) for match in found if match)

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step lies, or would lie."""
        return self.root / f"step_{step:08d}"

    def part(self, step: int) -> Path:
        """Where that of a step is written."""
        return self.root / f".step_{step:08d}.part"

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of a step into; what a crash left goes."""
        self.sweep()
        self.part(step).mkdir(parents=True)
        return self.part(step)

    def sweep(self) -> None:
        """Removes what a crash left half written or half removed."""
        for leftover in (*self.root.glob(".step_*.part"), *self.root.glob(".step_*.gone")):
            shutil.rmtree(leftover)

    def finish(self, step: int, manifest: Manifest) -> Path:
        """Makes what was written the checkpoint of its step, and removes the oldest ones.

        Everything is on disk before the folder gets its name.
        """
        part, folder = self.part(step), self.folder(step)
        names = sorted(path.name for path in part.iterdir())
        records = {name: _record(part / name) for name in names}
        whole = msgspec.structs.replace(manifest, files=records)
        text = msgspec.json.format(msgspec.json.encode(whole)) + b"\n"
        (part / MANIFEST).write_bytes(text)
        for name in (*names, MANIFEST):
            sync(part / name)
        sync(part)
        os.rename(part, folder)
        sync(self.root)
        for old in self.steps()[: -self._keep]:
            gone = self.root / f".step_{old:08d}.gone"
            os.rename(self.folder(old), gone)
            shutil.rmtree(gone)
        return folder

    def newest(self) -> Path | None:
        """The folder of the last step; None where there is none."""
        steps = self.steps()
        return self.folder(steps[-1]) if steps else None


def read_manifest(folder: Path) -> Manifest:
    """What a checkpoint says of itself; raises CheckpointFileError for one that says nothing."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise CheckpointFileError(f"{folder}: expected a checkpoint; {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointFileError(f"{path}: {error}; {_remedy(folder)}") from error
    if manifest.format != FORMAT:
        raise CheckpointFileError(
            f"{path}: expected format {FORMAT}, got {manifest.format}; use the canvas_robot that "
            "wrote it"
        )
    match = _NAME.fullmatch(folder.name)
    if match is None or int(match[1]) != manifest.step:
        raise CheckpointFileError(
            f"{path}: expected the step of its folder's name, got {manifest.step}"
        )
    return manifest


def verified(folder: Path, needed: Iterable[str]) -> Manifest:
    """A checkpoint's manifest, once every file is known to be there as it was written.

    Args:
        needed: files that there must be.
    Raises:
        CheckpointFileError: a file that is missing, too many, truncated or changed, by its name.
    """
    manifest = read_manifest(folder)
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    for name in sorted({*needed, *manifest.files} - there):
        raise CheckpointFileError(f"{folder / name}: missing; {_remedy(folder)}")
    for name in sorted(there - set(manifest.files)):
        raise CheckpointFileError(f"{folder / name}: is not of this checkpoint; remove it")
    for name, record in manifest.files.items():
        path = folder / name
        size = path.stat().st_size
        if size != record.bytes:
            raise CheckpointFileError(
                f"{path}: expected {record.bytes:,} bytes, got {size:,}; {_remedy(folder)}"
            )
        if _record(path) != record:
            raise CheckpointFileError(
                f"{path}: its contents are not those that were written; {_remedy(folder)}"
            )
    return manifest


def sync(path: Path) -> None:
    """Returns once a file's contents, or a folder's names, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _record(path: Path) -> FileRecord:
    return FileRecord(path.stat().st_size, digest_of_file(path))


def _remedy(folder: Path) -> str:
    return f"remove {folder} to go on from the checkpoint before it"
