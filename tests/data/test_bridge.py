"""Bridge V2 is read as published, whatever its flags and descriptions say."""

import json
import pickle
import struct
import sys

import numpy as np
import pytest

from canvas_robot.data.bridge import BridgeDataError, BridgeV2, find_version_folder


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


def test_an_index_outside_the_split_is_refused(bridge_sample):
    for index in (25, -26):
        with pytest.raises(IndexError, match=f"below 25 episodes, got {index}"):
            BridgeV2(bridge_sample)[index]


def test_stored_pictures_decode_to_the_same_pixels_every_time(bridge_sample):
    first, again = BridgeV2(bridge_sample)[3], BridgeV2(bridge_sample)[3]
    assert first.images.tobytes() == again.images.tobytes()


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
    assert not any(_stored_flags(bridge_sample, f"has_image_{k}") for k in range(4))
    for camera in ("image_0", "image_1", "image_2"):
        assert BridgeV2(bridge_sample, camera=camera)[0].images.std() > 10


def test_a_missing_camera_is_black(bridge_sample):
    assert BridgeV2(bridge_sample, camera="image_3")[0].images.max() == 0


def test_cut_episodes_are_read_although_no_step_is_marked_last(bridge_sample, sample):
    record = next(_payloads(bridge_sample / "bridge_dataset-train.tfrecord-00000-of-00001"))
    assert _int_feature(record, b"steps/is_last") == [0] * 10
    assert _int_feature(record, b"steps/is_terminal") == [0] * 10
    assert all(len(episode) == 10 for episode in sample)


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
        _write_metadata(tmp_path / version, {})
    with pytest.raises(BridgeDataError, match=r"expected one version, got \['1.0.0', '2.0.0'\]"):
        BridgeV2(tmp_path)


def test_another_layout_under_a_bridge_name_is_refused(tmp_path):
    # Open X-Embodiment's bridge 0.1.0 keeps the action in a dictionary.
    action = {"world_vector": _tensor(3), "rotation_delta": _tensor(3)}
    _write_metadata(tmp_path / "1.0.0", {"action": _features(action)})
    with pytest.raises(
        BridgeDataError, match=r"steps/action: expected float32 \(7,\), got .*vector"
    ):
        BridgeV2(tmp_path)


def test_an_action_of_another_size_is_refused(tmp_path):
    _write_metadata(tmp_path / "1.0.0", {"action": _tensor(8)})
    with pytest.raises(BridgeDataError, match=r"steps/action: .* got \('float32', \(8,\)\)"):
        BridgeV2(tmp_path)


def test_an_unknown_camera_or_split_is_refused_with_the_known_ones(bridge_sample):
    with pytest.raises(BridgeDataError, match=r"camera: expected one of \['image_0'.*'wrist'"):
        BridgeV2(bridge_sample, camera="wrist")
    with pytest.raises(BridgeDataError, match=r"split: expected one of \['train', 'val'\].*'test'"):
        BridgeV2(bridge_sample, split="test")


def test_reading_leaves_tensorflow_out_of_this_process(sample):
    # With it, MuJoCo's EGL renderer would crash; see canvas_robot.data.helper_process.
    assert sample and "tensorflow" not in sys.modules


def test_a_reader_can_be_sent_to_another_process(bridge_sample, sample):
    copy = pickle.loads(pickle.dumps(BridgeV2(bridge_sample)))
    np.testing.assert_array_equal(copy[2].states, sample[2].states)


# Stored files, read and written without TensorFlow.


def _features(features):
    return {"featuresDict": {"features": features}}


def _tensor(size):
    return {"tensor": {"shape": {"dimensions": [str(size)]}, "dtype": "float32"}}


def _write_metadata(folder, step_features):
    folder.mkdir()
    tree = _features({"steps": {"sequence": {"feature": _features(step_features)}}})
    (folder / "features.json").write_text(json.dumps(tree))
    splits = [{"name": "train", "shardLengths": ["1"]}]
    (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))


def _records(path):
    """Whole records of a TFRecord file: u64 length, u32 checksum, payload, u32 checksum."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at : at + 16 + length]
        at += 16 + length


def _payloads(path):
    return (record[12:-4] for record in _records(path))


def _split_into_shards(source, folder, lengths):
    records = list(_records(source / "bridge_dataset-train.tfrecord-00000-of-00001"))
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


def _int_feature(record, key):
    """Values of an int64 feature of a serialised tf.train.Example, each below 128."""
    # Feature entry: the key, then field 2 (the Feature), its field 3 (int64 list), its field 1.
    at = record.index(key) + len(key)
    assert record[at] == 0x12 and record[at + 2] == 0x1A and record[at + 4] == 0x0A
    return list(record[at + 6 : at + 6 + record[at + 5]])


def _stored_flags(folder, name):
    key = f"episode_metadata/{name}".encode()
    path = folder / "bridge_dataset-train.tfrecord-00000-of-00001"
    return any(value for payload in _payloads(path) for value in _int_feature(payload, key))
