"""An index knows every whole episode of a split, and says what it could not reach."""

import os
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from canvas_robot.data.index import SplitFiles, build_index, open_index
from canvas_robot.data.layout import read_layout
from canvas_robot.data.records import open_shard

SAMPLE = "bridge_dataset-train.tfrecord-00000-of-00001"


@pytest.fixture
def records(bridge_sample):
    """The stored bytes of each of the sample's 25 records, framing included."""
    data = (bridge_sample / SAMPLE).read_bytes()
    found = open_shard(bridge_sample / SAMPLE, "tfrecord").records()
    return [data[record.offset : record.offset + 16 + record.length] for record in found]


@pytest.fixture
def split(records, tmp_path):
    """The sample's train split in shards of 10, 10 and 5 episodes."""
    names = tuple(f"bridge_dataset-train.tfrecord-0000{k}-of-00003" for k in range(3))
    for name, start in zip(names, (0, 10, 20), strict=True):
        (tmp_path / name).write_bytes(b"".join(records[start : start + 10]))
    return SplitFiles(tmp_path, "train", "tfrecord", names, (10, 10, 5))


@pytest.fixture(scope="module")
def layout(bridge_sample):
    return read_layout(bridge_sample)


def test_it_says_what_the_sample_holds(split, layout):
    index = build_index(split, layout)
    assert len(index) == 25 and not index.skipped and not index.verified
    assert index.shard.tolist() == [0] * 10 + [1] * 10 + [2] * 5
    assert index.number.tolist() == list(range(25))
    assert (index.steps == 10).all() and index.has_language.all()
    # Cameras 0 to 2 show pictures, although all has_image flags are false; camera 3 is black.
    assert index.pictures.all(axis=0).tolist() == [True, True, True, False]
    assert not index.pictures[:, 3].any()
    assert index.gigabytes == pytest.approx(3.4747e-3, rel=1e-3)


def test_its_places_are_those_of_the_records(split, layout, records):
    index = build_index(split, layout)
    for n in (0, 9, 10, 24):
        data = (split.folder / split.names[index.shard[n]]).read_bytes()
        assert data[index.offset[n] :][: 16 + index.length[n]] == records[n]


def test_progress_grows_to_all_bytes(split, layout):
    calls = []
    build_index(split, layout, progress=lambda done, total: calls.append((done, total)))
    done = [done for done, _ in calls]
    assert done == sorted(done) and len(calls) >= 25
    assert calls[-1] == (sum(os.path.getsize(split.folder / name) for name in split.names),) * 2


# Stored once, made again when the files change.


def opened(split, layout, **options):
    """The index, and whether it was made anew."""
    calls = []
    index = open_index(split, layout, progress=lambda *call: calls.append(call), **options)
    return index, bool(calls)


def test_it_is_stored_beside_the_data_and_equal_when_read_again(split, layout):
    made, anew = opened(split, layout)
    assert anew and (split.folder / "train.index.npz").is_file()
    stored, anew = opened(split, layout)
    assert not anew
    for name in ("shard", "offset", "length", "number", "steps", "has_language", "pictures"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(made, name))
        assert getattr(stored, name).dtype == getattr(made, name).dtype
    assert (stored.files, stored.cameras, stored.skipped) == (made.files, made.cameras, ())


def test_a_chosen_folder_is_used(split, layout, tmp_path):
    opened(split, layout, index_dir=tmp_path / "elsewhere")
    assert not (split.folder / "train.index.npz").exists()
    assert not opened(split, layout, index_dir=tmp_path / "elsewhere")[1]


def test_a_read_only_folder_gets_its_index_in_the_cache(split, layout, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    split.folder.chmod(0o555)
    opened(split, layout)
    split.folder.chmod(0o755)
    assert not (split.folder / "train.index.npz").exists()
    assert not opened(split, layout)[1]


def touch(path):
    os.utime(path, ns=(1, 1))


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [touch, cut, Path.unlink])
def test_a_changed_shard_makes_it_stale(split, layout, change):
    opened(split, layout)
    change(split.folder / split.names[1])
    index, anew = opened(split, layout)
    assert anew and len(index) == (25 if change is touch else 24 if change is cut else 15)


def test_another_count_in_dataset_info_makes_it_stale(split, layout):
    opened(split, layout)
    more = SplitFiles(split.folder, "train", "tfrecord", split.names, (10, 10, 6))
    assert opened(more, layout)[1]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("offset", lambda rows: rows + 10**12),
        ("shard", lambda rows: rows + 3),
        ("steps", lambda rows: rows[:-1]),
        ("steps", lambda rows: -rows),
        ("length", lambda rows: rows.astype(float)),
        ("pictures", lambda rows: rows[:, :2]),
        ("skipped", lambda rows: np.array("[1]")),
    ],
)
def test_a_stored_index_that_points_outside_the_data_is_not_believed(split, layout, name, change):
    made, _ = opened(split, layout)
    place = split.folder / "train.index.npz"
    arrays = dict(np.load(place))
    arrays[name] = change(arrays[name])
    np.savez(place, **arrays)
    again, anew = opened(split, layout)
    assert anew
    np.testing.assert_array_equal(again.offset, made.offset)


# Damage: the rest is indexed, under its own numbers.


def damage(split, shard, change):
    path = split.folder / split.names[shard]
    path.write_bytes(change(bytearray(path.read_bytes())))


def test_a_missing_shard_is_named_with_its_episodes(split, layout):
    (split.folder / split.names[1]).unlink()
    index = build_index(split, layout)
    assert index.number.tolist() == [*range(10), *range(20, 25)]
    assert index.skipped == ((split.names[1], -1, 10, "the file is missing"),)
    assert index.episodes_skipped == 10 and index.sizes[1] == -1


def test_what_lies_behind_a_broken_length_is_lost_in_that_shard_alone(split, layout, records):
    place = sum(map(len, records[:4]))

    def broken(data):
        data[place] ^= 1
        return data

    damage(split, 0, broken)
    index = build_index(split, layout)
    assert index.number.tolist() == [0, 1, 2, 3, *range(10, 25)]
    (skipped,) = index.skipped
    assert skipped[:3] == (split.names[0], place, 6) and "checksum of the record's l" in skipped[3]


def test_a_cut_shard_keeps_its_whole_records(split, layout, records):
    place = sum(map(len, records[20:22]))
    damage(split, 2, lambda data: data[: place + 500])
    index = build_index(split, layout)
    assert index.number.tolist() == list(range(22))
    (skipped,) = index.skipped
    assert skipped[:3] == (split.names[2], place, 3) and "the file is cut" in skipped[3]


def test_a_shard_cut_between_two_records_is_noticed_by_its_count(split, layout, records):
    place = sum(map(len, records[20:22]))
    damage(split, 2, lambda data: data[:place])
    (skipped,) = build_index(split, layout).skipped
    assert skipped[:3] == (split.names[2], place, 3)
    assert "expected 5 records as dataset_info.json says, got 2" in skipped[3]


def test_more_records_than_dataset_info_says_are_left_out(split, layout, records):
    damage(split, 0, lambda data: data + records[0] + records[1])
    index = build_index(split, layout)
    assert index.number.tolist() == list(range(25))
    assert index.skipped == (
        (split.names[0], -1, 2, "expected 10 records as dataset_info.json says, got 12"),
    )


def test_damaged_data_is_found_when_it_is_verified(split, layout, records):
    place = sum(map(len, records[:2]))

    def broken(data):
        data[place + 12 + 3000] ^= 1
        return data

    damage(split, 0, broken)
    unverified, _ = opened(split, layout)
    assert len(unverified) == 25
    index, anew = opened(split, layout, verify=True)
    assert anew and index.verified and index.number.tolist() == [0, 1, *range(3, 25)]
    assert index.skipped[0][:3] == (split.names[0], place, 1)
    # From then on, who opens the data knows.
    again, anew = opened(split, layout)
    assert not anew and again.skipped == index.skipped


def test_a_record_that_is_no_episode_is_left_out_and_its_neighbours_stay(split, layout, records):
    foreign = b"".join(_framed(b"\xff" * 50) if k == 11 else records[k] for k in range(10, 20))
    damage(split, 1, lambda _: foreign)
    index = build_index(split, layout)
    assert index.number.tolist() == [k for k in range(25) if k != 11]
    assert "expected a tf.train.Example" in index.skipped[0].problem


def _framed(data):
    def masked(part):
        crc = google_crc32c.value(part)
        return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")

    length = len(data).to_bytes(8, "little")
    return length + masked(length) + data + masked(data)


def test_blank_instructions_and_lengths_are_known(split, layout, records):
    def changed(record, text, steps):
        example = tf_example_pb2.Example.FromString(record[12:-4])
        for key, feature in example.features.feature.items():
            if key.startswith("steps/"):
                values = getattr(feature, feature.WhichOneof("kind")).value
                del values[len(values) // 10 * steps :]
        values = example.features.feature["steps/language_instruction"].bytes_list.value
        values[:] = [text] * steps
        return _framed(example.SerializeToString())

    texts = (b"go", b"", b" \n ", "取る".encode(), b"stop")
    data = [changed(records[k], text, steps=k + 1) for k, text in enumerate(texts)]
    damage(split, 2, lambda _: b"".join(data))
    index = build_index(split, layout)
    assert index.has_language[20:].tolist() == [True, False, False, True, True]
    assert index.steps[20:].tolist() == [1, 2, 3, 4, 5]


def test_array_record_copies_have_the_same_index(bridge_sample, split, layout, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    names = tuple(name.replace("tfrecord", "array_record") for name in split.names)
    for source, name in zip(split.names, names, strict=True):
        writer = ArrayRecordWriter(str(folder / name), "group_size:1")
        for record in open_shard(split.folder / source, "tfrecord").records():
            writer.write(bytes(record.data))
        writer.close()
    files = SplitFiles(folder, "train", "array_record", names, split.episodes)
    ours, theirs = build_index(files, layout), build_index(split, layout)
    for name in ("shard", "length", "number", "steps", "has_language", "pictures"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.offset.tolist() == [*range(10), *range(10), *range(5)]
    os.truncate(folder / names[1], 1000)
    damaged = build_index(files, layout)
    assert len(damaged) == 15 and damaged.skipped[0][:3] == (names[1], -1, 10)
