"""Record files, read at random: TFRecord as published, and array_record copies of it.

What a record means is not known here. Every byte that is returned was checked.
"""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache
from mmap import ACCESS_READ, MADV_SEQUENTIAL, mmap
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np

REMEDY = (
    "download this file again, or leave it out with skip_corrupt=True (--skip-corrupt; of a "
    "training: data.skip_corrupt=true)"
)
_NEEDS = "RLDS data: expected {package}, got: {error}; pip install 'canvas_robot[rlds]'"
_HEADER = struct.Struct("<QI")  # length of the data, checksum of that length
_CHECKSUM = struct.Struct("<I")  # after the data
# The published files hold about 60 records each; a process keeps this many of them open.
_MOST_OPEN = 64


class CorruptRecordError(ValueError):
    """Stored bytes are damaged or missing; the message names the place, the problem, the remedy.

    file: the shard. offset: of the record in it: a byte in TFRecord, a number in array_record; -1
    for the whole file.
    """

    def __init__(
        self,
        message: str,
        file: str = "",
        offset: int = -1,
        problem: str = "",
        remedy: str = REMEDY,
    ) -> None:
        super().__init__(message)  # alone, so that workers can send it to their parent
        self.file, self.offset, self.problem, self.remedy = file, offset, problem, remedy

    @classmethod
    def at(cls, file: str | Path, offset: int, problem: str, remedy: str = REMEDY):
        """The error of a place."""
        where = f"{file}: record at {offset}" if offset >= 0 else str(file)
        return cls(f"{where}: {problem}; {remedy}", str(file), offset, problem, remedy)


class Record(NamedTuple):
    """Where a record lies in its shard, its length in bytes and its data."""

    offset: int
    length: int
    data: memoryview


class Shard(ABC):
    """One file of records. Final classes: TFRecordShard, ArrayRecordShard."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def records(self, verify: bool = False) -> Iterator[Record | CorruptRecordError]:
        """All records in stored order, and an error in the place of a damaged one.

        Where the file cannot be followed further, the error is the last item. The checksums of
        TFRecord's data are looked at only with verify: that reads all of the file.
        """

    @abstractmethod
    def read(self, offset: int, length: int) -> memoryview:
        """The checked data of one record. Raises CorruptRecordError."""

    @abstractmethod
    def part(self, offset: int, start: int, stop: int) -> memoryview | None:
        """Some bytes of a record that was read, and so checked, before; not checked again.

        None where the format gives records only whole.
        """

    def _corrupt(self, offset: int, problem: str) -> CorruptRecordError:
        return CorruptRecordError.at(self.path, offset, problem)


class TFRecordShard(Shard):
    """Records of u64 length, u32 masked CRC-32C of it, data, u32 masked CRC-32C of the data.

    Source: tensorflow/core/lib/io/record_writer.h. An offset is the byte where a record starts.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._descriptor = -1

    def records(self, verify: bool = False) -> Iterator[Record | CorruptRecordError]:
        file, offset = self._mapped(), 0
        while offset < len(file):
            try:
                end = offset + _HEADER.size + self._length(file[offset:], offset) + _CHECKSUM.size
                if end > len(file):
                    raise self._corrupt(offset, _cut(end - offset, len(file) - offset))
            except CorruptRecordError as error:
                yield error
                return
            stored = file[offset:end]
            try:
                data = self._checked(stored, offset) if verify else _data(stored)
                yield Record(offset, len(data), data)
            except CorruptRecordError as error:
                yield error
            offset = end

    def read(self, offset: int, length: int) -> memoryview:
        size = _HEADER.size + length + _CHECKSUM.size
        stored = self._bytes(size, offset)
        if len(stored) < size:
            raise self._corrupt(offset, _cut(size, len(stored)))
        if self._length(stored, offset) != length:
            raise self._corrupt(offset, f"expected {length} bytes as indexed, got another record")
        return self._checked(stored, offset)

    def part(self, offset: int, start: int, stop: int) -> memoryview:
        stored = self._bytes(stop - start, offset + _HEADER.size + start)
        if len(stored) < stop - start:
            raise self._corrupt(offset, "the file was cut since the record was read")
        return stored

    def _bytes(self, size: int, offset: int) -> memoryview:
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            finalize(self, os.close, self._descriptor)
        return memoryview(os.pread(self._descriptor, size, offset))

    def _mapped(self) -> memoryview:
        size = self.path.stat().st_size
        if size == 0:
            return memoryview(b"")
        with self.path.open("rb") as file:
            mapped = mmap(file.fileno(), size, access=ACCESS_READ)
        # Reading ahead suits disks and network drives better than a read for each place looked at.
        mapped.madvise(MADV_SEQUENTIAL)
        return memoryview(mapped)  # unmapped with the last view of it

    def _length(self, stored: memoryview, offset: int) -> int:
        if len(stored) < _HEADER.size:
            raise self._corrupt(offset, _cut(_HEADER.size, len(stored)))
        length, checksum = _HEADER.unpack_from(stored)
        if masked_crc(stored[:8]) != checksum:
            raise self._corrupt(offset, "wrong checksum of the record's length")
        return length

    def _checked(self, stored: memoryview, offset: int) -> memoryview:
        data = _data(stored)
        (checksum,) = _CHECKSUM.unpack_from(stored, _HEADER.size + len(data))
        if masked_crc(data) != checksum:
            raise self._corrupt(offset, f"wrong checksum of {len(data)} bytes of data")
        return data


class ArrayRecordShard(Shard):
    """Records of an array_record file; an offset is a record's number.

    The format has checksums of its own, which every reading looks at.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._reader: Any = None

    def records(self, verify: bool = False) -> Iterator[Record | CorruptRecordError]:
        try:
            count = self._opened().num_records()
        except CorruptRecordError as error:
            yield error
            return
        for number in range(count):
            try:
                data = self._data(number)
                yield Record(number, len(data), data)
            except CorruptRecordError as error:
                yield error

    def read(self, offset: int, length: int) -> memoryview:
        data = self._data(offset)
        if len(data) != length:
            raise self._corrupt(offset, f"expected {length} bytes as indexed, got {len(data)}")
        return data

    def part(self, offset: int, start: int, stop: int) -> None:
        return None

    def _data(self, number: int) -> memoryview:
        try:
            return memoryview(self._opened().read([number])[0])
        except RuntimeError as error:
            raise self._corrupt(number, f"array_record: {error}") from error

    def _opened(self) -> Any:
        if self._reader is None:
            try:
                from array_record.python.array_record_module import ArrayRecordReader
            except ModuleNotFoundError as error:
                message = _NEEDS.format(package="array-record", error=error)
                raise ModuleNotFoundError(message) from error
            # Without threads and reading ahead, which only serve sequential reading.
            options = "readahead_buffer_size:0,max_parallelism:0"
            reader = ArrayRecordReader(str(self.path), options)
            if not reader.ok():
                raise self._corrupt(-1, "expected an array_record file, got damaged or cut bytes")
            self._reader = reader
        return self._reader


_FORMATS = {"tfrecord": TFRecordShard, "array_record": ArrayRecordShard}
FORMATS = tuple(_FORMATS)


def open_shard(path: Path, file_format: str) -> Shard:
    """A shard in one of FORMATS. It opens no file before it is read."""
    return _FORMATS[file_format](path)


class ShardFiles:
    """The shards of a folder by name; in each process a few of them are open at a time."""

    def __init__(self, folder: Path, file_format: str) -> None:
        self.folder, self.file_format = folder, file_format
        self._forget()

    def __getitem__(self, name: str) -> Shard:
        if self._process != os.getpid():  # after a fork
            self._forget()
        with self._lock:
            shard = self._open.pop(name, None) or open_shard(self.folder / name, self.file_format)
            self._open[name] = shard
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return shard

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "file_format": self.file_format}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def _forget(self) -> None:
        self._process, self._lock = os.getpid(), Lock()
        self._open: OrderedDict[str, Shard] = OrderedDict()


@cache
def _crc32c() -> Callable[[np.ndarray], int]:
    try:
        from google_crc32c import value
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_NEEDS.format(package="google-crc32c", error=error)) from error
    return value


def _data(stored: memoryview) -> memoryview:
    return stored[_HEADER.size : -_CHECKSUM.size]


def _cut(expected: int, got: int) -> str:
    return f"expected a record of {expected} bytes, got {got}: the file is cut"


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C, rotated and shifted as TFRecord stores it."""
    crc = _crc32c()(np.frombuffer(data, np.uint8))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
