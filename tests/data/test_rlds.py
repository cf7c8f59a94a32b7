"""Episodes written as RLDS are Bridge V2 to every reader."""

import json
import weakref

import numpy as np
import pytest

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.rlds import example_from_episode, write_rlds
from canvas_robot.data.transitions import DataRules, RulesError, chosen


@pytest.fixture
def episodes(make_episode):
    return [make_episode(steps=steps) for steps in (3, 1, 5)]


def test_writing_and_reading_gives_the_episodes_back_up_to_jpeg_loss(episodes, tmp_path):
    folder = write_rlds(episodes, tmp_path)
    assert folder == tmp_path / "recorded" / "1.0.0"
    read = list(BridgeV2(folder))
    assert len(read) == len(episodes)
    for before, after in zip(episodes, read, strict=True):
        assert after.instruction == before.instruction
        np.testing.assert_array_equal(after.states, before.states)
        np.testing.assert_array_equal(after.actions, before.actions)
        np.testing.assert_array_equal(after.stamps_ns, before.stamps_ns)
        loss = np.abs(after.images.astype(int) - before.images)
        assert loss.mean() < 3


def test_real_episodes_come_back(bridge_sample, tmp_path):
    before = BridgeV2(bridge_sample)[0]
    after = BridgeV2(write_rlds([before], tmp_path, split="val"), split="val")[0]
    np.testing.assert_array_equal(after.states, before.states)
    np.testing.assert_array_equal(after.actions, before.actions)
    assert np.abs(after.images.astype(int) - before.images).mean() < 3


def test_the_written_features_are_those_of_bridge_v2(bridge_sample, make_episode, tmp_path):
    folder = write_rlds([make_episode(size=(64, 64))], tmp_path)
    assert _without_texts(folder) == _without_texts(bridge_sample)


def test_only_the_camera_that_was_recorded_is_flagged(make_episode):
    example = example_from_episode(make_episode(), episode_id=7)
    metadata = example["episode_metadata"]
    assert [metadata[f"has_image_{k}"] for k in range(4)] == [True, False, False, False]
    assert metadata["episode_id"] == 7


def test_a_written_episode_is_a_complete_demonstration(make_episode):
    steps = example_from_episode(make_episode(steps=3), episode_id=0)["steps"]
    assert [step["is_first"] for step in steps] == [True, False, False]
    for key in ("is_last", "is_terminal", "reward"):
        assert [step[key] for step in steps] == [False, False, True]


def test_an_episode_without_actions_cannot_be_written(make_episode, tmp_path):
    with pytest.raises(ValueError, match=r"expected actions \(T, 7\), got None"):
        write_rlds([make_episode(actions=None)], tmp_path)


def test_pictures_of_two_sizes_cannot_be_written(make_episode, tmp_path):
    two = [make_episode(size=(32, 32)), make_episode(size=(32, 48))]
    with pytest.raises(ValueError, match=r"pictures of one size, got 2 episodes with sizes"):
        write_rlds(two, tmp_path)
    with pytest.raises(ValueError, match="got 0 episodes"):
        write_rlds([], tmp_path)


def test_an_existing_dataset_is_not_overwritten(make_episode, tmp_path):
    write_rlds([make_episode()], tmp_path)
    with pytest.raises(FileExistsError, match="store into another folder"):
        write_rlds([make_episode()], tmp_path)


def test_one_episode_at_a_time_is_held_and_nothing_is_left_of_a_failure(make_episode, tmp_path):
    alive = []

    def episodes(fails):
        for number in range(3):
            episode = make_episode(steps=2)
            assert not any(held() is not None for held in alive)  # those before have been let go
            alive.append(weakref.ref(episode.images))
            if fails and number == 2:
                raise OSError("the bag ends")
            yield episode
            del episode

    with pytest.raises(OSError, match="the bag ends"):
        write_rlds(episodes(fails=True), tmp_path)
    assert list(tmp_path.iterdir()) == []
    alive.clear()
    folder = write_rlds(episodes(fails=False), tmp_path)
    assert len(BridgeV2(folder)) == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "recorded"]


def test_motions_that_were_reached_are_not_taken_for_commands(make_episode, tmp_path):
    said = BridgeV2(write_rlds([make_episode()], tmp_path / "said", achieved=True))
    silent = BridgeV2(write_rlds([make_episode()], tmp_path / "silent"))
    assert said.achieved and not silent.achieved and said.environments == {}
    recorded = DataRules(actions="recorded")
    with pytest.raises(RulesError, match=r"expected composed.*measured pose.*rules.actions="):
        chosen(said, recorded, ["image_0"])
    assert len(chosen(said, DataRules(), ["image_0"]).episodes) == 1
    assert len(chosen(silent, recorded, ["image_0"]).episodes) == 1


def _without_texts(folder):
    """features.json without its descriptions."""

    def cleaned(node):
        if not isinstance(node, dict):
            return node
        return {key: cleaned(value) for key, value in node.items() if key != "description"}

    return cleaned(json.loads((folder / "features.json").read_text()))
