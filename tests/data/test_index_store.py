"""Stored arrays are whole, for the key they were made for, and made by one process at a time."""

import io
import multiprocessing
import os

import numpy as np
import pytest

from canvas_robot.data.index_store import load_arrays, places_of, store_made


@pytest.fixture
def place(tmp_path):
    return tmp_path / "x.npz"


def make(number):
    return lambda: number


def to_arrays(number):
    return {"number": np.array(number)}


def stored_at(place, key="key"):
    def stored():
        arrays = load_arrays(place, key)
        return None if arrays is None else int(arrays["number"])

    return stored


def test_what_was_stored_is_loaded_by_its_key_alone(place):
    assert store_made((place,), "key", stored_at(place), make(7), to_arrays) == 7
    assert load_arrays(place, "key") == {"number": 7}
    assert load_arrays(place, "another key") is None
    assert os.listdir(place.parent) == ["x.npz"]


def test_a_file_for_another_key_is_replaced(place):
    store_made((place,), "old", stored_at(place, "old"), make(1), to_arrays)
    store_made((place,), "new", stored_at(place, "new"), make(2), to_arrays)
    assert load_arrays(place, "new") == {"number": 2}


def npy():
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04noise", npy()])
def test_a_damaged_file_is_made_again_with_a_word(place, content, caplog):
    place.write_bytes(content)
    assert load_arrays(place, "key") is None
    assert "is made again" in caplog.text


def test_arrays_that_would_run_code_are_not_loaded(place):
    np.savez(place, key=np.array("key"), number=np.array([print], dtype=object))
    assert load_arrays(place, "key") is None


def test_a_failure_leaves_the_old_file_and_nothing_else(place):
    store_made((place,), "key", stored_at(place), make(1), to_arrays)

    def fail():
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk"):
        store_made((place,), "other", stored_at(place, "other"), fail, to_arrays)
    with pytest.raises(ZeroDivisionError):
        store_made((place,), "other", stored_at(place, "other"), make(2), lambda _: 1 / 0)
    assert load_arrays(place, "key") == {"number": 1}
    assert os.listdir(place.parent) == ["x.npz"]


def test_it_lies_beside_the_data_or_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    beside, cached = places_of(tmp_path / "data", "x.npz")
    assert beside == tmp_path / "data" / "x.npz"
    assert cached.parent == tmp_path / "cache" / "canvas_robot" / "index"
    assert cached != places_of(tmp_path / "other data", "x.npz")[1]
    assert places_of(tmp_path / "data", "x.npz", tmp_path / "here")[0].parent == tmp_path / "here"


def test_a_folder_marked_read_only_is_left_alone(tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    data.chmod(0o555)
    places = (data / "x.npz", cache / "x.npz")
    store_made(places, "key", stored_at(places[1]), make(3), to_arrays)
    assert not os.listdir(data) and os.listdir(cache) == ["x.npz"]


def test_without_a_place_it_is_made_each_time_with_a_word(tmp_path, caplog):
    tmp_path.chmod(0o555)
    place = tmp_path / "x.npz"
    assert store_made((place,), "key", stored_at(place), make(3), to_arrays) == 3
    assert f"not kept, for none of these can be written: {place}" in caplog.text
    tmp_path.chmod(0o755)


def make_slowly(place, started, go, answers):
    def slow():
        started.set()
        assert go.wait(30)
        return os.getpid()

    answers.put((os.getpid(), store_made((place,), "key", stored_at(place), slow, to_arrays)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # from Python 3.12 on
def test_several_processes_make_it_once(place):
    context = multiprocessing.get_context("fork")
    started, go, answers = context.Event(), context.Event(), context.Queue()
    processes = [
        context.Process(target=make_slowly, args=(place, started, go, answers)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    assert started.wait(30)
    go.set()
    results = dict(answers.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    (maker,) = set(results.values())
    assert maker in results and load_arrays(place, "key") == {"number": maker}
    assert os.listdir(place.parent) == ["x.npz"]
