"""Bridge V2 is read as published, whatever its flags and descriptions say."""

import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from canvas_robot.data.bridge import BridgeV2, find_version_folder
from canvas_robot.data.episode import EpisodeError
from canvas_robot.data.example import Example
from canvas_robot.data.layout import BridgeDataError
from canvas_robot.data.records import CorruptRecordError, TFRecordShard, open_shard

TRAIN = "bridge_dataset-train.tfrecord-00000-of-00001"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The sample's folder is read-only, so that its index goes to the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def sample(bridge_sample):
    return list(BridgeV2(bridge_sample))


def test_every_episode_of_the_split_is_read(bridge_sample, sample):
    assert len(BridgeV2(bridge_sample)) == len(sample) == 25
    # Golden values: ../shared/data/README.md.
    assert {episode.images.shape for episode in sample} == {(10, 64, 64, 3)}
    assert len({episode.instruction for episode in sample}) == 4


def test_steps_are_200_ms_apart(sample):
    assert all((episode.stamps_ns == np.arange(10) * 200_000_000).all() for episode in sample)


def test_indexing_gives_what_iterating_gives(bridge_sample, sample):
    dataset = BridgeV2(bridge_sample)
    for index in (0, 7, 24, -1):
        assert dataset[index].name == sample[index].name
        np.testing.assert_array_equal(dataset[index].images, sample[index].images)
        np.testing.assert_array_equal(dataset[index].states, sample[index].states)
        np.testing.assert_array_equal(dataset[index].actions, sample[index].actions)


def test_pictures_of_an_episode_are_those_of_its_record(bridge_sample, sample):
    dataset = BridgeV2(bridge_sample)
    for _ in range(2):  # with the record, and then from their places in the file
        for index in (3, 0, 3, -1):
            images = dataset.images(index, "image_0", [7, 0, 7])
            np.testing.assert_array_equal(images, sample[index].images[[7, 0, 7]])
    wrist = dataset.images(3, "image_3", [1])
    assert wrist.shape == (1, 64, 64, 3) and not wrist.any()


def test_a_record_is_read_once_for_its_pictures(bridge_sample, sample, monkeypatch):
    dataset = BridgeV2(bridge_sample)
    dataset.images(5, "image_0", [0])
    monkeypatch.setattr(TFRecordShard, "read", None)  # whoever reads a record now fails
    np.testing.assert_array_equal(dataset.images(5, "image_0", [2]), sample[5].images[[2]])
    with pytest.raises(TypeError):
        dataset.images(6, "image_0", [2])


def test_the_places_of_only_so_many_pictures_are_remembered(bridge_sample, sample, monkeypatch):
    monkeypatch.setattr("canvas_robot.data.bridge._MOST_PLACES", 2)
    dataset = BridgeV2(bridge_sample)
    for index in (0, 1, 2, 0, 1):
        images = dataset.images(index, "image_0", [4])
        np.testing.assert_array_equal(images, sample[index].images[[4]])
        assert len(dataset._places) <= 2


def test_a_picture_that_is_none_is_named(bridge_sample, monkeypatch):
    dataset = BridgeV2(bridge_sample)
    dataset.images(5, "image_0", [0])
    monkeypatch.setattr(TFRecordShard, "part", lambda *_: memoryview(b"no JPEG"))
    with pytest.raises(EpisodeError, match=r"train/5': image_0: .* picture at step 8, got 7 bytes"):
        dataset.images(5, "image_0", [8])


def test_an_index_outside_the_split_is_refused(bridge_sample):
    for index in (25, -26):
        with pytest.raises(IndexError, match=f"below 25 episodes, got {index}"):
            BridgeV2(bridge_sample)[index]


def test_order_is_the_same_with_several_shards(bridge_sample, tmp_path):
    folder = _split_into_shards(bridge_sample, tmp_path, lengths=(2, 17, 6))
    whole, split = BridgeV2(bridge_sample), BridgeV2(folder)
    states = np.stack([episode.states for episode in split])
    np.testing.assert_array_equal(states, np.stack([episode.states for episode in whole]))
    np.testing.assert_array_equal(split[10].states, states[10])


# The quirks of the published data.


def test_the_first_action_is_tiny_but_not_zero(sample):
    first = np.stack([episode.actions[0] for episode in sample])
    assert 0 < np.abs(first[:, :6]).max() < 1e-6
    assert (first[:, 6] == 1).all()


def test_image_flags_are_false_although_pictures_are_real(bridge_sample):
    # `BridgeV2` does not read the flags: it gives real pictures where all of them are false.
    for record in _stored(bridge_sample):
        assert all(record.integers(f"episode_metadata/has_image_{k}") == 0 for k in range(4))
    dataset = BridgeV2(bridge_sample)
    assert dataset.pictures.all(axis=0).tolist() == [True, True, True, False]
    for camera in ("image_0", "image_1", "image_2"):
        assert BridgeV2(bridge_sample, camera=camera)[0].images.std() > 10


def test_a_missing_camera_is_black(bridge_sample):
    assert BridgeV2(bridge_sample, camera="image_3")[0].images.max() == 0


def test_the_sample_has_language_in_every_episode_and_says_so(bridge_sample, sample):
    # About 30% of the whole data set is blank; none of it is in the sample.
    assert all(episode.instruction.strip() for episode in sample)
    assert BridgeV2(bridge_sample).has_language.all()
    assert all(int(r.integers("episode_metadata/has_language")[0]) for r in _stored(bridge_sample))


def test_cut_episodes_are_read_although_no_step_is_marked_last(bridge_sample, sample):
    for record in _stored(bridge_sample):
        for key in ("steps/is_last", "steps/is_terminal", "steps/reward"):
            read = record.floats if key == "steps/reward" else record.integers
            assert read(key).tolist() == [0] * 10
    assert all(len(episode) == 10 for episode in sample)


def test_gripper_targets_lie_between_open_and_closed_too(sample):
    grippers = np.concatenate([episode.actions[:, 6] for episode in sample])
    between = grippers[(grippers > 0) & (grippers < 1)]
    assert len(between) == 9 and between.min() < 0.2 and between.max() > 0.99
    assert set(grippers) >= {0.0, 1.0}


def test_the_published_descriptions_are_not_believed(bridge_sample, sample):
    # They say joint velocities and angles; the numbers are a pose in front of the arm, in metres.
    assert "joint" in (bridge_sample / "features.json").read_text()
    states = np.concatenate([episode.states for episode in sample])
    assert (0.1 < states[:, 0]).all() and (states[:, 0] < 0.55).all()


def test_the_gripper_state_may_exceed_one(sample):
    states = np.concatenate([episode.states for episode in sample])
    assert 1.0 < states[:, 6].max() < 1.12


def test_the_asked_split_is_read(bridge_sample, sample):
    # In the sample, train and val hold the same episodes in another order.
    validation = list(BridgeV2(bridge_sample, split="val"))
    assert validation[0].name == "bridge_dataset/val/0"
    assert {episode.states.tobytes() for episode in validation} == {
        episode.states.tobytes() for episode in sample
    }


# Finding and refusing.


def test_the_folder_above_the_version_is_enough(bridge_sample):
    assert find_version_folder(bridge_sample.parent) == bridge_sample


def test_no_dataset_is_reported_with_where_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"features\.json .* download bridge_dataset/1.0.0"):
        BridgeV2(tmp_path)


def test_several_versions_are_not_guessed_between(tmp_path):
    for version in ("1.0.0", "2.0.0"):
        _write_metadata(tmp_path / version)
    with pytest.raises(BridgeDataError, match=r"expected one version, got \['1.0.0', '2.0.0'\]"):
        BridgeV2(tmp_path)


def test_an_unknown_camera_or_split_is_refused_with_the_known_ones(bridge_sample):
    with pytest.raises(BridgeDataError, match=r"camera: expected one of \['image_0'.*'wrist'"):
        BridgeV2(bridge_sample, camera="wrist")
    with pytest.raises(BridgeDataError, match=r"split: expected one of \['train', 'val'\].*'test'"):
        BridgeV2(bridge_sample, split="test")


# In other processes.


def test_a_reader_can_be_sent_to_another_process(bridge_sample, sample):
    copy = pickle.loads(pickle.dumps(BridgeV2(bridge_sample)))
    np.testing.assert_array_equal(copy[2].states, sample[2].states)


def test_spawned_workers_read_without_tensorflow_or_tfds(bridge_sample, sample):
    dataset = BridgeV2(bridge_sample)
    dataset.read(0)  # an open file stays behind
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as workers:
        read = list(workers.map(dataset.__getitem__, range(6)))
        loaded = workers.submit(eval, "sorted(__import__('sys').modules)").result()
    for ours, theirs in zip(sample, read, strict=False):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(ours.images, theirs.images)
    assert "canvas_robot.data.bridge" in loaded
    assert not {"tensorflow", "tensorflow_datasets", "torch"} & set(loaded)


def test_reading_leaves_tensorflow_out_of_this_process(bridge_sample):
    # With it, MuJoCo's EGL renderer would crash; see canvas_robot.data.helper_process.
    code = (
        "import sys; from canvas_robot.data.bridge import BridgeV2; "
        f"print(len(list(BridgeV2({str(bridge_sample)!r}))), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "25 False\n", done.stderr


def test_reading_again_and_again_takes_no_more_memory(bridge_sample):
    dataset = BridgeV2(bridge_sample)

    def read_all():
        for number in range(len(dataset)):
            dataset.read(number).images("image_0", [3, 7])
        return _anonymous_memory()

    read_all()
    before = read_all()
    for _ in range(10):
        after = read_all()
    assert after - before < 1_000_000  # bytes; the pictures decoded meanwhile took 6 MB


def _anonymous_memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


# What it is, and copies of it.


def test_the_fingerprint_says_which_data_it_is(bridge_sample, tmp_path):
    whole = BridgeV2(bridge_sample)
    assert whole.fingerprint == BridgeV2(bridge_sample, camera="image_2").fingerprint
    assert len(whole.fingerprint) == 64
    others = {
        BridgeV2(bridge_sample, split="val").fingerprint,
        BridgeV2(_split_into_shards(bridge_sample, tmp_path, lengths=(5, 20))).fingerprint,
        whole.fingerprint,
    }
    assert len(others) == 3


def test_an_array_record_copy_gives_the_same_episodes(bridge_sample, tmp_path):
    for name in ("features.json", "dataset_info.json"):
        text = (bridge_sample / name).read_text()
        (tmp_path / name).write_text(text.replace('"tfrecord"', '"array_record"'))
    for split in ("train", "val"):
        name = f"bridge_dataset-{split}.{{}}-00000-of-00001"
        writer = ArrayRecordWriter(str(tmp_path / name.format("array_record")), "group_size:1")
        for record in open_shard(bridge_sample / name.format("tfrecord"), "tfrecord").records():
            writer.write(bytes(record.data))
        writer.close()
    for split in ("train", "val"):
        published, copy = BridgeV2(bridge_sample, split), BridgeV2(tmp_path, split)
        assert len(copy) == len(published) == 25
        for ours, theirs in zip(published, copy, strict=True):
            assert (ours.name, ours.instruction) == (theirs.name, theirs.instruction)
            for field in ("images", "states", "actions", "stamps_ns"):
                np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
        for _ in range(2):
            np.testing.assert_array_equal(
                copy.images(3, "image_0", [2, 9]), published.images(3, "image_0", [2, 9])
            )


def test_settings_of_a_simulator_are_read_where_its_builder_kept_them(bridge_sample, tmp_path):
    assert BridgeV2(bridge_sample).environments == {}, "recordings have none"
    folder = _split_into_shards(bridge_sample, tmp_path, lengths=(25,))
    made = {"canvas_robot/WidowXReach-v0": {"shadows": False, "image_size": [256, 256]}}
    (folder / "metadata.json").write_text(json.dumps({"environments": made, "other": 1}))
    assert BridgeV2(folder).environments == made
    for wrong in ("[]", '{"environments": ["reach"]}', "{"):
        (folder / "metadata.json").write_text(wrong)
        with pytest.raises(BridgeDataError, match=r"metadata\.json: environments: "):
            _ = BridgeV2(folder).environments


def test_another_file_format_is_refused(bridge_sample, tmp_path):
    folder = _split_into_shards(bridge_sample, tmp_path, lengths=(25,))
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "parquet"}))
    with pytest.raises(
        BridgeDataError, match=r"files of \('tfrecord', 'array_record'\), got 'parq"
    ):
        BridgeV2(folder)


def test_a_split_that_names_another_folder_is_refused(bridge_sample, tmp_path):
    folder = _split_into_shards(bridge_sample, tmp_path, lengths=(25,))
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace('"train"', '"../train"'))
    with pytest.raises(BridgeDataError, match=r"expected a plain name, got '\.\./train'"):
        BridgeV2(folder, "../train")


# Damaged data.


def test_an_incomplete_data_set_is_refused_with_the_remedy(bridge_sample, tmp_path):
    folder = _split_into_shards(bridge_sample, tmp_path, lengths=(10, 15))
    lost = folder / "bridge_dataset-train.tfrecord-00000-of-00002"
    lost.unlink()
    with pytest.raises(CorruptRecordError) as caught:
        BridgeV2(folder)
    assert caught.value.file == str(lost)
    for part in ("is missing", "10 of 25 episodes", "download this file again", "--skip-corrupt"):
        assert part in str(caught.value)


def test_the_rest_of_an_incomplete_data_set_is_usable_and_what_is_not_is_logged(
    bridge_sample, sample, tmp_path, caplog
):
    folder = _split_into_shards(bridge_sample, tmp_path, lengths=(10, 15))
    (folder / "bridge_dataset-train.tfrecord-00000-of-00002").unlink()
    with caplog.at_level(logging.WARNING):
        dataset = BridgeV2(folder, skip_corrupt=True)
    assert len(dataset) == 15 and dataset.index.episodes_skipped == 10
    # Episodes keep their published number, whatever is lost before them.
    assert dataset[0].name == dataset.name(0) == "bridge_dataset/train/10"
    np.testing.assert_array_equal(dataset[0].images, sample[10].images)
    assert "10 of 25 episodes cannot be read" in caplog.text
    assert "tfrecord-00000-of-00002: the file is missing (10 lost)" in caplog.text


def test_damaged_data_is_refused_when_it_is_read_and_left_out_once_it_was_verified(
    bridge_sample, tmp_path
):
    folder = _split_into_shards(bridge_sample, tmp_path, lengths=(25,))
    path = folder / TRAIN
    dataset = BridgeV2(folder)
    data = bytearray(path.read_bytes())
    data[dataset.index.offset[3] + 5000] ^= 1
    path.write_bytes(data)
    dataset = BridgeV2(folder)
    with pytest.raises(CorruptRecordError, match=r"record at \d+: wrong checksum of \d+ bytes of"):
        dataset.read(3)
    assert dataset.read(4).name == "bridge_dataset/train/4"
    assert len(BridgeV2(folder, skip_corrupt=True)) == 24, "it compares checksums itself"
    with pytest.raises(CorruptRecordError, match=r"wrong checksum .* in all, 1 of 25 episodes"):
        BridgeV2(folder)


@pytest.mark.parametrize("index", [1.5, "a", None, slice(0, 2)])
def test_what_is_no_number_of_an_episode_is_refused(bridge_sample, index):
    with pytest.raises(TypeError):
        BridgeV2(bridge_sample)[index]


@pytest.mark.parametrize("length", ["-5", "99999999999999"])
def test_a_shard_of_an_impossible_number_of_episodes_is_refused(bridge_sample, tmp_path, length):
    folder = _split_into_shards(bridge_sample, tmp_path, lengths=(25,))
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        split["shardLengths"] = [length]
    path.write_text(json.dumps(info))
    with pytest.raises(BridgeDataError, match=f"in a shard, got {length}"):
        BridgeV2(folder)


# Stored files, read and written without TensorFlow.


def _write_metadata(folder):
    folder.mkdir()
    for name in ("features.json", "dataset_info.json"):
        (folder / name).write_text("{}")


def _stored(folder):
    """The sample's records as stored."""
    return [Example(record.data) for record in open_shard(folder / TRAIN, "tfrecord").records()]


def _split_into_shards(source, folder, lengths):
    data = (source / TRAIN).read_bytes()
    found = list(open_shard(source / TRAIN, "tfrecord").records())
    records = [data[record.offset : record.offset + 16 + record.length] for record in found]
    assert sum(lengths) == len(records)
    for shard, length in enumerate(lengths):
        taken, records = records[:length], records[length:]
        name = f"bridge_dataset-train.tfrecord-{shard:05}-of-{len(lengths):05}"
        (folder / name).write_bytes(b"".join(taken))
    info = json.loads((source / "dataset_info.json").read_text())
    info["splits"] = info["splits"][:1]
    info["splits"][0]["shardLengths"] = [str(length) for length in lengths]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text((source / "features.json").read_text())
    return folder
