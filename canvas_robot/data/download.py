"""Bridge V2 as published, fetched to this machine: which files, whether they fit, whether whole.

Names, counts and sizes come from the server's dataset_info.json, which is not trusted: it is
checked, and file names are put together here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Event
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from canvas_robot.data.records import CorruptRecordError, TFRecordShard
from canvas_robot.data.transfer import (
    Patience,
    RemoteFile,
    Transfer,
    TransferError,
    open_client,
)

PUBLISHED_AT = "https://rail.eecs.berkeley.edu/datasets/bridge_release/data/tfds"
METADATA = ("features.json", "dataset_info.json")

_MOST_METADATA_BYTES = 1 << 24
# Around each record of a TFRecord file: its length, and a checksum of both.
_FRAME_BYTES = 16
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_NAME = r"\A[A-Za-z][A-Za-z0-9_]{0,63}\Z"
_VERSION = r"\A[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}\Z"

_Name = Annotated[str, Meta(pattern=_NAME)]
_Count = Annotated[int, Meta(ge=0, le=10**9)]


class DownloadError(ValueError):
    """What the server offers is not the data set that was asked for, or does not fit here."""


class PublishedSplit(msgspec.Struct, frozen=True, rename="camel"):
    """A split as dataset_info.json lists it: records of each shard, bytes of all of them."""

    name: _Name
    shard_lengths: Annotated[tuple[_Count, ...], Meta(min_length=1, max_length=20_000)]
    num_bytes: Annotated[int, Meta(ge=0, le=10**15)]
    filepath_template: Literal["{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"] = _TEMPLATE

    @property
    def file_bytes(self) -> int:
        return self.num_bytes + _FRAME_BYTES * sum(self.shard_lengths)


class PublishedInfo(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of dataset_info.json, checked."""

    name: _Name
    version: Annotated[str, Meta(pattern=_VERSION)]
    splits: Annotated[tuple[PublishedSplit, ...], Meta(min_length=1, max_length=20)]
    file_format: Literal["tfrecord"] = "tfrecord"

    def shards(self) -> Iterator[PublishedShard]:
        for split in self.splits:
            count, episodes = len(split.shard_lengths), max(1, sum(split.shard_lengths))
            for number, records in enumerate(split.shard_lengths):
                name = f"{self.name}-{split.name}.tfrecord-{number:05d}-of-{count:05d}"
                share = split.file_bytes * records // episodes
                yield PublishedShard(name, split.name, records, share, split.file_bytes)


@dataclass(frozen=True)
class PublishedShard:
    """A file of records. about_bytes: its share of its split; most_bytes: of the whole split."""

    name: str
    split: str
    records: int
    about_bytes: int
    most_bytes: int

    def check(self, path: Path) -> None:
        """Every record of the file, by its checksums. Raises ValueError: what is wrong with it."""
        found = 0
        for record in TFRecordShard(path).records(verify=True):
            if isinstance(record, CorruptRecordError):
                raise ValueError(str(record).removesuffix(f"; {record.remedy}"))
            found += 1
        if found != self.records:
            raise ValueError(f"{path}: expected {self.records} records, got {found}")


@dataclass(frozen=True)
class Source:
    """Where a data set is published, and what of it is wanted.

    url: of the version folder; "": the publisher's own. splits: their names; (): all.
    only: a shell pattern of file names, such as "*-0000?-of-01024".

    Raises DownloadError for a name, version or address that cannot be one.
    """

    dataset: str = "bridge_dataset"
    version: str = "1.0.0"
    url: str = ""
    splits: tuple[str, ...] = ()
    only: str = "*"

    def __post_init__(self) -> None:
        for what, text, pattern in (
            ("dataset", self.dataset, _NAME),
            ("version", self.version, _VERSION),
        ):
            if not re.search(pattern, text):
                example = "bridge_dataset" if what == "dataset" else "1.0.0"
                raise DownloadError(f"{what}: expected a name like {example!r}, got {text!r}")
        if not self.url.startswith(("https://", "http://")) and self.url:
            raise DownloadError(f"url: expected https://..., got {self.url!r}")

    @property
    def folder_url(self) -> str:
        url = self.url or f"{PUBLISHED_AT}/{self.dataset}/{self.version}"
        return url.rstrip("/") + "/"


@dataclass(frozen=True)
class Download:
    """What is to be fetched, and where to: made by `plan_download`, done by `run_download`.

    folder: the version folder. shards: those that were asked for. metadata: the contents of
    METADATA, in that order.
    """

    source: Source
    folder: Path
    info: PublishedInfo
    shards: tuple[PublishedShard, ...]
    metadata: tuple[bytes, ...]

    @property
    def about_bytes(self) -> int:
        """Of all shards that were asked for, whether they are here or not."""
        return sum(shard.about_bytes for shard in self.shards)

    def missing_bytes(self) -> int:
        """About how many are still to come, by the names and parts that are here."""
        missing = [shard for shard in self.shards if not (self.folder / shard.name).exists()]
        here = sum(self._file(shard).part_size() for shard in missing)
        return max(0, sum(shard.about_bytes for shard in missing) - here)

    def free_bytes(self) -> int:
        """On the disk that the folder is on, or will be on."""
        there = next(path for path in (self.folder, *self.folder.parents) if path.is_dir())
        return shutil.disk_usage(there).free

    def check_space(self) -> None:
        """Raises DownloadError when the disk has less than is still to come."""
        missing, free = self.missing_bytes(), self.free_bytes()
        if missing > free:
            raise DownloadError(
                f"{self.folder}: expected {gigabytes(missing)} free, got {gigabytes(free)}; "
                f"free {gigabytes(missing - free)}, choose a folder on another disk, or fetch a "
                "part with --split or --only"
            )

    def _file(self, shard: PublishedShard) -> RemoteFile:
        return RemoteFile(
            url=self.source.folder_url + shard.name,
            target=self.folder / shard.name,
            most_bytes=shard.most_bytes,
            check=shard.check,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a shard; problem and remedy are empty unless it failed."""

    name: str
    result: Literal["fetched", "resumed", "kept", "failed"]
    size: int = 0
    problem: str = ""
    remedy: str = ""


def plan_download(
    data_dir: str | Path, source: Source, patience: Patience | None = None
) -> Download:
    """Ask the server what there is. Nothing is written.

    data_dir: the data set will be in `data_dir/dataset/version`, as TFDS has it.

    Raises TransferError when the server does not answer; DownloadError when the answer is another
    data set, has none of what was asked for, or differs from what is in the folder already.
    """
    # A server that does not answer at all is said soon.
    patience = patience or Patience(tries=3)
    folder = Path(data_dir) / source.dataset / source.version
    metadata = _fetch_metadata(source, patience)
    info = _checked_info(source.folder_url, json.loads(metadata[1]))
    if (info.name, info.version) != (source.dataset, source.version):
        raise DownloadError(
            f"{source.folder_url}: expected {source.dataset} {source.version}, got {info.name} "
            f"{info.version}; ask for it with --dataset and --version, or choose another --url"
        )
    _check_same(folder, info, metadata)
    return Download(source, folder, info, _chosen(source, info), metadata)


def run_download(
    download: Download,
    jobs: int = 4,
    moved: Callable[[int], None] = lambda count: None,
    done: Callable[[Outcome], None] = lambda outcome: None,
    patience: Patience | None = None,
) -> list[Outcome]:
    """Fetch what is missing and check every file; outcomes in the order of `download.shards`.

    jobs: files at a time. moved: told how many bytes have come, negative when some are thrown
    away; called from several threads. done: told of each file, in the order they are finished.

    Raises DownloadError when the disk is too small or another download fills this folder. A file
    that cannot be fetched is an outcome, not an exception. When interrupted, what has come is kept.
    """
    patience = patience or Patience()
    download.check_space()
    download.folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    stop = Event()
    with _only_here(download.folder), open_client(download.source.folder_url, patience) as client:
        _write_metadata(download)
        transfer = Transfer(client, patience, stop, moved)
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            files = [(shard, download._file(shard)) for shard in download.shards]
            running = [pool.submit(_bring, shard, file, transfer) for shard, file in files]
            try:
                for finished in as_completed(running):
                    outcome = finished.result()
                    outcomes[outcome.name] = outcome
                    done(outcome)
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [outcomes[shard.name] for shard in download.shards]


def gigabytes(count: int) -> str:
    """As "123.4 GB", or in smaller units where that says more."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _bring(shard: PublishedShard, file: RemoteFile, transfer: Transfer) -> Outcome:
    """The outcome of one shard, which is in its place afterwards unless that failed."""
    if file.target.exists() and _is_whole(shard, file.target):
        return Outcome(shard.name, "kept", file.target.stat().st_size)
    try:
        resumed = transfer.fetch(file)
    except TransferError as error:
        return Outcome(shard.name, "failed", problem=error.problem, remedy=error.remedy)
    result = "resumed" if resumed else "fetched"
    return Outcome(shard.name, result, file.target.stat().st_size)


def _is_whole(shard: PublishedShard, path: Path) -> bool:
    try:
        shard.check(path)
    except ValueError:
        return False
    return True


def _fetch_metadata(source: Source, patience: Patience) -> tuple[bytes, ...]:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_client(source.folder_url, patience) as client,
    ):
        transfer = Transfer(client, patience, Event())
        for name in METADATA:
            url, target = source.folder_url + name, Path(folder, name)
            transfer.fetch(RemoteFile(url, target, _MOST_METADATA_BYTES, _read_json))
        return tuple(Path(folder, name).read_bytes() for name in METADATA)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        name = path.name.removesuffix(".part")
        raise DownloadError(f"{name}: expected JSON, got: {error}") from error


def _checked_info(where: str, content: object) -> PublishedInfo:
    try:
        # Protocol buffers write 64-bit integers as text.
        info = msgspec.convert(content, PublishedInfo, strict=False)
    except msgspec.ValidationError as error:
        raise DownloadError(
            f"{where}dataset_info.json: {error}; this is not a data set that can be fetched: "
            "choose another --url"
        ) from error
    names = [split.name for split in info.splits]
    if len(set(names)) < len(names):
        raise DownloadError(f"{where}dataset_info.json: expected each split once, got {names}")
    return info


def _chosen(source: Source, info: PublishedInfo) -> tuple[PublishedShard, ...]:
    known = [split.name for split in info.splits]
    if unknown := [name for name in source.splits if name not in known]:
        raise DownloadError(f"--split: expected some of {known}, got {unknown}")
    wanted = source.splits or known
    shards = [shard for shard in info.shards() if shard.split in wanted]
    chosen = tuple(shard for shard in shards if fnmatchcase(shard.name, source.only))
    if not chosen:
        raise DownloadError(
            f"--only: expected a pattern of some of {len(shards)} names such as "
            f"{shards[0].name!r}, got {source.only!r}"
        )
    return chosen


def _check_same(folder: Path, info: PublishedInfo, metadata: Sequence[bytes]) -> None:
    """Raises DownloadError when the folder already holds something else."""
    features, stored = (folder / name for name in METADATA)
    try:
        if features.exists() and _read_json(features) != json.loads(metadata[0]):
            raise DownloadError("features.json: expected what is published now, got other features")
        if stored.exists() and _checked_info("", _read_json(stored)) != info:
            raise DownloadError("dataset_info.json: expected the published shards, got others")
    except DownloadError as error:
        raise DownloadError(
            f"{folder}/{error}; choose another folder, or move this one away"
        ) from error


def _write_metadata(download: Download) -> None:
    for name, content in zip(METADATA, download.metadata, strict=True):
        part = download.folder / f"{name}.part"
        part.write_bytes(content)
        os.replace(part, download.folder / name)


@contextmanager
def _only_here(folder: Path) -> Iterator[None]:
    """Holds the folder against a second download, which would write into the same parts."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(
                f"{folder}: another download is filling this folder; wait for it, or end it"
            ) from error
        yield
    finally:
        os.close(descriptor)
