"""What is written is what records.py, example.py and protocol buffers read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from canvas_robot.data.example import Example
from canvas_robot.data.record_writer import example, write_records
from canvas_robot.data.records import CorruptRecordError, TFRecordShard

floats = st.lists(st.floats(width=32, allow_nan=False), max_size=300)
integers = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40)
blobs = st.lists(st.binary(max_size=300), max_size=5)


@given(floats, integers, blobs, st.text(max_size=200))
def test_an_example_comes_back(numbers, counts, strings, name):
    features = {
        "floats": np.array(numbers, np.float32),
        "integers": np.array(counts, np.int64),
        f"blobs {name}": strings,
    }
    record = example(features)
    read = Example(record)
    np.testing.assert_array_equal(read.floats("floats"), features["floats"])
    assert read.integers("integers").tolist() == counts
    assert [bytes(blob) for blob in read.blobs(f"blobs {name}")] == strings
    parsed = tf_example_pb2.Example.FromString(record).features.feature
    np.testing.assert_array_equal(parsed["floats"].float_list.value, features["floats"])
    assert list(parsed["integers"].int64_list.value) == counts
    assert list(parsed[f"blobs {name}"].bytes_list.value) == strings


def test_flags_are_integers():
    assert Example(example({"is_last": np.array([False, True])})).integers("is_last").tolist() == [
        0,
        1,
    ]


def test_an_array_of_another_kind_is_refused_by_name():
    with pytest.raises(TypeError, match="state: expected float32, integers or flags, got float64"):
        example({"state": np.zeros(3)})


def test_records_come_back_checked(tmp_path):
    records = [b"", b"a", bytes(1000)]
    assert write_records(tmp_path / "shard", records) == 1001
    found = list(TFRecordShard(tmp_path / "shard").records(verify=True))
    assert not any(isinstance(item, CorruptRecordError) for item in found)
    assert [bytes(record.data) for record in found] == records


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    def broken():
        yield b"a"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_records(tmp_path / "shard", broken())
    assert not list(tmp_path.iterdir())
