"""What is written in one process is read in another, and memory is used again, not made anew."""

import importlib
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from canvas_robot.data.shared_room import SharedRoom

DTYPES = st.sampled_from([np.uint8, np.float16, np.float32, np.int64, np.bool_])
ARRAYS = st.lists(
    DTYPES.flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
            elements={"allow_nan": False} if np.dtype(dtype).kind == "f" else None,
        )
    ),
    max_size=5,
)


@settings(max_examples=40)
@given(st.lists(ARRAYS, min_size=1, max_size=3))
def test_all_arrays_come_back(batches):
    room = SharedRoom(workers=1, slots=2)
    for arrays in batches:  # smaller and larger ones, over what was there
        places = room.write(0, 1, arrays)
        for place, array in zip(places, arrays, strict=True):
            read = room.read(place)
            assert read.dtype == array.dtype and read.shape == array.shape
            np.testing.assert_array_equal(read, array)


def test_slots_and_workers_do_not_share_a_byte():
    room, array = SharedRoom(workers=2, slots=2), np.arange(10_000)
    written = {
        (worker, slot): room.write(worker, slot, [array + 10 * worker + slot])[0]
        for worker in range(2)
        for slot in range(2)
    }
    for (worker, slot), place in written.items():
        np.testing.assert_array_equal(room.read(place), array + 10 * worker + slot)


def test_a_slot_is_written_over_in_the_same_memory():
    room = SharedRoom(workers=1, slots=1)
    (first,) = room.write(0, 0, [np.zeros(1_000_000, np.uint8)])
    seen = room.read(first)
    room.write(0, 0, [np.ones(1_000_000, np.uint8)])
    assert seen.all()


def test_what_a_spawned_process_writes_is_read_here(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    write_twice = importlib.import_module("shared_room_worker").write_twice
    context = multiprocessing.get_context("spawn")
    room, (mine, theirs) = SharedRoom(workers=2, slots=1), context.Pipe()
    worker = context.Process(target=write_twice, args=(room, theirs))
    worker.start()
    theirs.close()  # so that a worker that dies ends the reading here
    try:
        for size in (10, 3_000_000):
            values, count = mine.recv()
            assert room.read(count) == size
            assert (room.read(values) == size % 251).all() and room.read(values).shape == (size,)
            mine.send("go on")
    finally:
        worker.join()


def test_a_room_that_is_gone_has_closed_its_files():
    before = set(os.listdir("/proc/self/fd"))
    room = SharedRoom(workers=2, slots=3)
    room.write(0, 0, [np.zeros(10)])
    assert len(set(os.listdir("/proc/self/fd")) - before) >= 6
    del room
    assert set(os.listdir("/proc/self/fd")) <= before


def test_an_array_of_objects_has_no_place():
    with pytest.raises(TypeError, match="array 1: expected numbers, got Python objects"):
        SharedRoom(1, 1).write(0, 0, [np.zeros(3), np.array([{}])])
