"""Laws of the records: lengths agree, a chunk is an array of its values."""

import numpy as np
import pytest

from canvas_robot.signals import ActionChunk, Frames, GoingOn


def test_frames_of_unequal_or_no_length_are_refused():
    stamps, missing = np.zeros(2, np.int64), np.zeros(2, bool)
    with pytest.raises(ValueError) as error:
        Frames(np.zeros((3, 7)), stamps, missing)
    assert str(error.value) == (
        "Frames: expected equal, positive lengths, got values 3, stamps 2, missing 2"
    )
    with pytest.raises(ValueError, match="got values 0, stamps 0, missing 0"):
        Frames(np.zeros((0, 7)), stamps[:0], missing[:0])


@pytest.mark.parametrize("shape, frozen", [((7,), 1), ((2, 7), -1)])
def test_what_goes_on_is_rows_and_a_count(shape, frozen):
    with pytest.raises(ValueError, match=r"GoingOn: expected rows \(n, size\) and 0 or more froz"):
        GoingOn(np.zeros(shape, np.float32), frozen)


def test_a_chunk_is_an_array_of_its_values_and_a_copy_of_them():
    values = np.arange(14, dtype=np.float32).reshape(2, 7)
    chunk = ActionChunk("action", 3, values)
    assert chunk.horizon == 2
    array = np.asarray(chunk)
    assert np.array_equal(array, values) and array.dtype == np.float32
    array[:] = 0
    assert chunk.values[1, 6] == 13
    assert np.asarray(chunk, dtype=np.float64).dtype == np.float64
