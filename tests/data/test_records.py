"""Records come back whole from any place, and damage is named with its file, place and remedy."""

import multiprocessing
import os
import pickle
import struct

import google_crc32c
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.data.records import CorruptRecordError, Record, ShardFiles, open_shard

PAYLOADS = [os.urandom(size) for size in (1, 5000, 0, 70_000, 12)]


def masked(data):
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write_tfrecord(path, payloads):
    with path.open("wb") as file:
        for payload in payloads:
            length = struct.pack("<Q", len(payload))
            file.write(length + struct.pack("<I", masked(length)))
            file.write(payload + struct.pack("<I", masked(payload)))
    return path


def write_array_record(path, payloads):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for payload in payloads:
        writer.write(payload)
    writer.close()
    return path


WRITERS = {"tfrecord": write_tfrecord, "array_record": write_array_record}


@pytest.fixture(params=WRITERS)
def file_format(request):
    return request.param


@pytest.fixture
def shard(file_format, tmp_path):
    return open_shard(WRITERS[file_format](tmp_path / "shard", PAYLOADS), file_format)


def test_records_come_in_stored_order(shard):
    assert [bytes(record.data) for record in shard.records()] == PAYLOADS


def test_any_record_is_read_from_its_offset(shard):
    for record in reversed(list(shard.records())):
        assert bytes(shard.read(record.offset, record.length)) == bytes(record.data)


def test_parts_of_a_record_are_read_where_the_format_gives_them(shard, file_format):
    for record in shard.records():
        for start, stop in ((0, record.length), (record.length // 3, record.length // 2)):
            part = shard.part(record.offset, start, stop)
            if file_format == "array_record":
                assert part is None
            else:
                assert bytes(part) == bytes(record.data[start:stop])


def test_a_part_that_was_cut_off_since_is_missed(tmp_path):
    path = write_tfrecord(tmp_path / "shard", PAYLOADS[:1] * 2)
    shard = open_shard(path, "tfrecord")
    *_, last = shard.records()
    os.truncate(path, last.offset + 5)
    with pytest.raises(CorruptRecordError, match=f"record at {last.offset}: the file was cut"):
        shard.part(last.offset, 0, last.length)


def test_checksums_of_whole_files_agree(shard):
    assert all(isinstance(item, Record) for item in shard.records(verify=True))


def test_a_shard_without_records_has_none(file_format, tmp_path):
    path = WRITERS[file_format](tmp_path / "shard", [])
    assert not list(open_shard(path, file_format).records())


def test_the_published_files_are_in_this_format(bridge_sample):
    path = bridge_sample / "bridge_dataset-train.tfrecord-00000-of-00001"
    records = list(open_shard(path, "tfrecord").records(verify=True))
    assert len(records) == 25 and all(record.data[0] == 0x0A for record in records)


def test_a_record_of_another_length_than_indexed_is_refused(shard):
    record = next(iter(shard.records()))
    with pytest.raises(CorruptRecordError, match=r"record at 0: expected \d+ bytes as indexed"):
        shard.read(record.offset, record.length + 3)


# Damaged TFRecord files.


@pytest.fixture
def damaged(tmp_path):
    """A function that writes PAYLOADS, changes the bytes of the file, and opens it."""

    def make(change):
        path = write_tfrecord(tmp_path / "shard", PAYLOADS)
        path.write_bytes(change(bytearray(path.read_bytes())))
        return open_shard(path, "tfrecord")

    return make


SECOND = 16 + 1  # where the second record starts
THIRD = SECOND + 16 + 5000


def flipped(at):
    def change(data):
        data[at] ^= 1
        return data

    return change


def test_a_wrong_length_ends_the_file_there(damaged):
    *before, error = damaged(flipped(THIRD)).records()
    assert len(before) == 2 and isinstance(error, CorruptRecordError)
    assert error.offset == THIRD and "wrong checksum of the record's length" in str(error)


def test_wrong_data_is_found_by_reading_and_by_verifying_but_not_by_walking(damaged):
    shard = damaged(flipped(SECOND + 2000))
    walked, verified = list(shard.records()), list(shard.records(verify=True))
    assert len(walked) == len(verified) == 5
    with pytest.raises(CorruptRecordError, match=f"record at {SECOND}: wrong checksum of 5000"):
        shard.read(walked[1].offset, walked[1].length)
    assert [isinstance(item, CorruptRecordError) for item in verified] == [0, 1, 0, 0, 0]
    assert bytes(shard.read(walked[2].offset, walked[2].length)) == PAYLOADS[2]


@pytest.mark.parametrize("size", [SECOND + 4, SECOND + 12, SECOND + 3000, THIRD - 1])
def test_a_cut_file_ends_with_its_last_whole_record(damaged, size):
    first, error = damaged(lambda data: data[:size]).records()
    assert bytes(first.data) == PAYLOADS[0]
    assert error.offset == SECOND and "the file is cut" in str(error)


def test_a_file_that_is_cut_after_it_was_indexed_is_refused_when_read(damaged):
    shard = damaged(lambda data: data)
    records = [(record.offset, record.length) for record in shard.records()]
    os.truncate(shard.path, THIRD - 100)
    with pytest.raises(CorruptRecordError, match=f"record at {SECOND}: .* the file is cut"):
        shard.read(*records[1])


def test_an_error_names_the_file_the_offset_and_the_remedy(damaged):
    (error,) = [item for item in damaged(flipped(0)).records()]
    assert error.file.endswith("shard") and error.offset == 0
    for part in (error.file, "record at 0", "download this file again", "--skip-corrupt"):
        assert part in str(error)


def test_an_error_survives_the_way_out_of_a_worker(damaged):
    (error,) = [item for item in damaged(flipped(0)).records()]
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.file, copy.offset) == (str(error), error.file, 0)
    # torch's DataLoader raises it again from its text alone.
    assert str(CorruptRecordError(str(error))) == str(error)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_records_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("noise") / "shard"
    path.write_bytes(data)
    items = list(open_shard(path, "tfrecord").records(verify=True))
    if data:  # a checksum of 32 bits does not agree by chance
        assert isinstance(items[-1], CorruptRecordError)


# Damaged array_record files.


def test_a_damaged_array_record_is_named_and_the_others_are_read(tmp_path):
    path = write_array_record(tmp_path / "shard", [os.urandom(70_000) for _ in range(3)])
    data = bytearray(path.read_bytes())
    data[100_000] ^= 1
    path.write_bytes(data)
    items = list(open_shard(path, "array_record").records())
    assert [isinstance(item, CorruptRecordError) for item in items] == [False, True, False]
    assert items[1].offset == 1 and "hash mismatch" in str(items[1])


@pytest.mark.parametrize("size", [0, 100, 60_000])
def test_a_cut_array_record_file_is_damaged_as_a_whole(tmp_path, size):
    path = write_array_record(tmp_path / "shard", [os.urandom(70_000)])
    os.truncate(path, size)
    (error,) = open_shard(path, "array_record").records()
    assert error.offset == -1 and "expected an array_record file" in str(error)


# Several shards, several processes.


@pytest.fixture
def folder(file_format, tmp_path):
    for k in range(100):
        WRITERS[file_format](tmp_path / f"shard-{k}", [b"shard %d" % k])
    return tmp_path


def first_of(shards, name):
    record = next(iter(shards[name].records()))
    return bytes(shards[name].read(record.offset, record.length))


def test_a_process_keeps_few_files_open(folder, file_format):
    shards = ShardFiles(folder, file_format)
    before = len(os.listdir("/proc/self/fd"))
    for k in range(100):
        assert first_of(shards, f"shard-{k}") == b"shard %d" % k
    assert len(os.listdir("/proc/self/fd")) - before <= 64


def test_a_pickled_reader_holds_no_file(folder, file_format):
    shards = ShardFiles(folder, file_format)
    first_of(shards, "shard-7")
    copy = pickle.loads(pickle.dumps(shards))
    assert first_of(copy, "shard-7") == b"shard 7"


def answer(shards, names, pipe):
    pipe.send([first_of(shards, name) for name in names])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # from Python 3.12 on
def test_a_forked_process_opens_its_own(folder, file_format):
    shards = ShardFiles(folder, file_format)
    names = [f"shard-{k}" for k in range(5)]
    expected = [first_of(shards, name) for name in names]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=answer, args=(shards, names, theirs)
    )
    process.start()
    assert ours.poll(20) and ours.recv() == expected
    process.join()
    assert [first_of(shards, name) for name in names] == expected
