"""Laws of the synthetic copy: TFDS reads it, its sizes are Bridge's, writing it can be resumed."""

import json

import numpy as np
import pytest

from canvas_robot.data import synthetic
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.reference import tfds_episodes
from canvas_robot.data.synthetic import (
    SyntheticCopy,
    SyntheticError,
    link_part,
    quality_for,
    write_synthetic,
)

COPY = SyntheticCopy(episodes=8, size=64, picture_bytes=1500)


def make_frames(count=6):
    """Blurred noise, so that pictures have details as a camera's have."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 20, 24, 3))
    return np.kron(coarse, np.ones((1, 5, 5, 1))).astype(np.uint8)


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "EPISODES_PER_SHARD", 3)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_synthetic(tmp_path_factory.mktemp("copy"), COPY, make_frames(), threads=2)


@pytest.fixture(scope="module")
def dataset(folder):
    return BridgeV2(folder)


def test_tfds_and_we_read_the_same(folder, dataset):
    theirs = list(tfds_episodes(folder, "train", "image_1"))
    assert len(theirs) == len(dataset) == COPY.episodes
    for number, reference in enumerate(theirs):
        mine = dataset.read(number).episode("image_1")
        assert mine.instruction == reference.instruction
        for field in ("images", "states", "actions"):
            np.testing.assert_array_equal(getattr(mine, field), getattr(reference, field))


def test_pictures_have_the_asked_size_and_about_the_asked_bytes(dataset):
    stored = dataset.read(0)
    assert stored.image("image_0", 0).shape == (64, 64, 3)
    sizes = [
        len(dataset.read(number).encoded("image_0", step))
        for number in range(COPY.episodes)
        for step in range(0, int(dataset.steps[number]), 5)
    ]
    assert np.mean(sizes) == pytest.approx(COPY.picture_bytes, rel=0.25)


def test_the_last_camera_is_mostly_black_and_the_others_never(dataset):
    pictures = dataset.pictures
    assert pictures[:, :3].all() and not pictures[:, 3].all()


def test_many_episodes_are_as_long_and_as_blank_as_bridges(monkeypatch):
    frames = synthetic._Source(make_frames(), 8)
    copy = SyntheticCopy(episodes=400, size=8)
    monkeypatch.setattr(synthetic, "_jpeg", lambda picture, quality: b"")
    episodes = [synthetic._episode(copy, number, frames, 50) for number in range(copy.episodes)]
    lengths = [len(episode["steps/reward"]) for episode in episodes]
    assert np.mean(lengths) == pytest.approx(synthetic.MEAN_STEPS, abs=2)
    assert min(lengths) >= synthetic.FEWEST_STEPS and max(lengths) <= synthetic.MOST_STEPS
    has_language = [episode["episode_metadata/has_language"][0] for episode in episodes]
    assert np.mean(has_language) == pytest.approx(1 - synthetic.BLANK_SHARE, abs=0.08)


def test_what_is_missing_is_written_again_and_the_rest_stays(folder):
    first, second, third = sorted(folder.glob("*.tfrecord-*"))
    before = second.read_bytes()
    kept = first.stat().st_mtime_ns
    second.unlink()
    seen = []
    again = write_synthetic(
        folder.parents[1], COPY, make_frames(), progress=lambda *done: seen.append(done)
    )
    assert again == folder and second.read_bytes() == before
    assert first.stat().st_mtime_ns == kept and third.exists()
    assert seen == [(5, 8), (8, 8)]


def test_another_copy_in_the_same_folder_is_refused(folder):
    with pytest.raises(SyntheticError, match=r"holds another copy.*'seed': \(0, 1\)"):
        write_synthetic(folder.parents[1], SyntheticCopy(**_fields(seed=1)), make_frames())
    with pytest.raises(SyntheticError, match=r"holds another copy.*'frames'"):
        write_synthetic(folder.parents[1], COPY, make_frames(5))


def test_a_folder_with_other_files_is_refused(tmp_path):
    target = tmp_path / "bridge_dataset" / "1.0.0"
    target.mkdir(parents=True)
    (target / "features.json").write_text("{}")
    with pytest.raises(SyntheticError, match="expected an empty folder"):
        write_synthetic(tmp_path, COPY, make_frames())


def test_a_part_holds_the_first_episodes(folder, dataset, tmp_path):
    part = BridgeV2(link_part(folder, tmp_path / "part", 2))
    assert len(part) == 6
    for number in (0, 5):
        np.testing.assert_array_equal(part.read(number).states, dataset.read(number).states)
    info = json.loads((tmp_path / "part" / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["3", "3"]
    with pytest.raises(SyntheticError, match="shards: expected 1 to 3, got 4"):
        link_part(folder, tmp_path / "more", 4)


@pytest.mark.parametrize("asked", [400, 1500, 3000])
def test_the_quality_fits_the_bytes(asked):
    pictures = list(synthetic._Source(make_frames(), 64).sample())
    quality = quality_for(pictures, asked)
    mean = {
        near: np.mean([len(synthetic._jpeg(picture, near)) for picture in pictures])
        for near in range(max(1, quality - 2), min(100, quality + 2) + 1)
    }
    assert min(mean, key=lambda near: abs(mean[near] - asked)) == quality


def test_a_copy_of_nothing_is_refused():
    with pytest.raises(ValueError, match="episodes: expected at least 1, got 0"):
        SyntheticCopy(episodes=0)


def _fields(**changes):
    return {"episodes": COPY.episodes, "size": 64, "picture_bytes": 1500} | changes
