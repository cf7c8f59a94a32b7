"""What is walked is what protocol buffers parse, and other bytes are refused, not misread."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from canvas_robot.data.example import Example, ExampleError

features = st.one_of(
    st.lists(st.floats(width=32, allow_nan=False), max_size=40),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40),
    st.lists(st.binary(max_size=300), max_size=5),
)
examples = st.dictionaries(st.text(max_size=20), features, max_size=6)


def message(values):
    example = tf_example_pb2.Example()
    for key, items in values.items():
        feature = example.features.feature[key]
        if all(isinstance(item, bytes) for item in items):
            feature.bytes_list.value.extend(items)
        elif all(isinstance(item, int) for item in items):
            feature.int64_list.value.extend(items)
        else:
            feature.float_list.value.extend(items)
    return example.SerializeToString()


@given(examples)
def test_all_values_come_back(values):
    example = Example(message(values))
    for key, items in values.items():
        assert key in example
        if not items:
            continue
        if isinstance(items[0], bytes):
            assert [bytes(blob) for blob in example.blobs(key)] == items
        elif isinstance(items[0], int):
            assert example.integers(key).tolist() == items
        else:
            np.testing.assert_array_equal(example.floats(key), np.array(items, np.float32))


@given(examples, st.data())
@settings(max_examples=200)
def test_damaged_bytes_are_refused_or_read_and_nothing_else(values, data):
    record = bytearray(message(values))
    for _ in range(data.draw(st.integers(1, 4))):
        if record:
            record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    read = []
    try:
        example = Example(bytes(record[: data.draw(st.integers(0, len(record)))]))
        for key in values:
            for reader in (example.floats, example.integers, lambda key: list(example.blobs(key))):
                with contextlib.suppress(ExampleError):
                    read.append(reader(key))
    except ExampleError:
        assert not read, "what cannot be read as a whole gives nothing"
    assert all(isinstance(values, np.ndarray | list) for values in read)


def test_numbers_that_are_not_packed_are_read_too():
    # FloatList {value 1.0, value 2.0}, each with a tag of its own: allowed, though none writes it.
    values = b"\x0d\x00\x00\x80\x3f\x0d\x00\x00\x00\x40"
    feature = b"\x12" + bytes([len(values)]) + values
    entry = b"\x0a\x01x\x12" + bytes([len(feature)]) + feature
    record = b"\x0a" + bytes([len(entry) + 2]) + b"\x0a" + bytes([len(entry)]) + entry
    parsed = tf_example_pb2.Example.FromString(record)
    assert list(parsed.features.feature["x"].float_list.value) == [1.0, 2.0]
    assert Example(record).floats("x").tolist() == [1.0, 2.0]


def test_a_missing_feature_is_named_with_those_that_are_there():
    with pytest.raises(ExampleError, match=r"action: expected this feature, got \['state'\]"):
        Example(message({"state": [0.5]})).floats("action")


def test_a_feature_of_another_kind_is_refused():
    with pytest.raises(ExampleError, match="state: expected a list of 64-bit integers, got floats"):
        Example(message({"state": [0.5]})).integers("state")


def test_pictures_are_not_copied():
    record = message({"picture": [bytes(10_000)]})
    (blob,) = Example(record).blobs("picture")
    assert blob.obj is record
