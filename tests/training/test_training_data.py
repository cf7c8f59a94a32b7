"""Laws of what is learned from: nothing that is held out, the same windows to be judged by."""

import json
from collections import Counter

import pytest

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.data.latents import LatentCacheError
from canvas_robot.data.windows import Draw
from canvas_robot.policy.ticks import RefreshError
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding
from canvas_robot.training.config import ConfigError
from canvas_robot.training.training_data import open_data

BINDING = load_binding(config_path("bindings", "widowx.yaml"))


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("tiny", text_encoder=False)


@pytest.fixture(scope="module")
def opened(make_config, declarations, backbone):
    """A function that opens the data of a configuration; fields of regions on top."""

    def open_it(*overrides, **regions):
        data = json.loads((declarations / "small.json").read_text())
        for region, fields in regions.items():
            data["regions"][region].update(fields)
        schema = CanvasSchema.from_dict(data)
        return open_data(make_config(*overrides), schema, BINDING, backbone)

    return open_it


def test_a_fraction_holds_the_last_episodes_out(opened):
    data = opened("data.holdout=0.2")
    train, held_out = data.train.selection.episodes, data.held_out.selection.episodes
    assert train.tolist() == list(range(20)) and held_out.tolist() == list(range(20, 25))
    drawn = {draw.episode for draws in data.loader(4, 0, 0, 1, False).sampler for draw in draws}
    assert drawn == set(range(20))


def test_another_split_is_held_out_whole(opened):
    data = opened("data.holdout=val")
    assert len(data.train.selection) == len(data.held_out.selection) == 25
    assert data.held_out.dataset.split == "val"
    assert data.train.facts()["fingerprint"] != data.held_out.facts()["fingerprint"]


def test_nothing_is_held_out_where_it_is_off(opened):
    data = opened("data.holdout=off")
    assert data.held_out is None and data.held_out_batches(4, 0, 1) == []


def test_a_fraction_that_leaves_nothing_on_one_side_is_refused(opened):
    with pytest.raises(ConfigError, match=r"leaves episodes on both sides, got 0\.01 of 25"):
        opened("data.holdout=0.01")


def test_a_split_that_is_not_there_is_refused_with_those_that_are(opened):
    with pytest.raises(ConfigError, match=r"data\.holdout: .* \['train', 'val'\].*such as 0\.1"):
        opened("data.holdout=test")


def test_latents_that_are_not_there_are_refused(opened, tmp_path):
    with pytest.raises((FileNotFoundError, LatentCacheError), match="train-image_0-64x64"):
        opened(f"data.latents={tmp_path}")


def windows_of(batches):
    return [
        (name, step)
        for batch in batches
        for name, step in zip(batch.names, batch.steps.tolist(), strict=True)
    ]


def test_processes_share_the_held_out_windows_which_are_always_the_same(opened):
    data = opened("data.holdout_windows=10")
    whole = windows_of(data.held_out_batches(4, 0, 1))
    assert len(set(whole)) == 10
    assert windows_of(opened("data.holdout_windows=10").held_out_batches(3, 0, 1)) == whole
    shares = [windows_of(data.held_out_batches(4, rank, 3)) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert {w for share in shares for w in share} == set(whole[:9])


def test_processes_learn_from_different_windows(opened):
    data = opened()
    loaders = [data.loader(4, 0, rank, 2, False) for rank in range(2)]
    seen = [{(d.episode, d.step) for draws in loader.sampler for d in draws} for loader in loaders]
    assert not seen[0] & seen[1] and len(seen[0]) == len(seen[1]) == 80


def test_balance_brings_episodes_of_rarer_instructions_as_often_as_it_takes(opened):
    data = opened("data.holdout=off", "data.balance=3")
    dataset, kept = data.train.dataset, data.train.selection
    counts = dict(zip(kept.episodes.tolist(), kept.counts.tolist(), strict=True))
    goals = {episode: dataset.read(episode).instruction for episode in counts}
    windows = Counter()
    for episode, goal in goals.items():
        windows[goal] += counts[episode]
    assert len(windows) > 1, "the sample has several"
    most = max(windows.values())
    times = {goal: min(3, max(1, round(most / own))) for goal, own in windows.items()}
    assert set(times.values()) > {1}
    balanced = data.train.balanced(3)
    came = Counter(balanced.episodes.tolist())
    assert came == {episode: times[goal] for episode, goal in goals.items()}
    assert data.train.balanced(1) is kept
    sampler = data.loader(1, 0, 0, 1, False).sampler
    drawn = Counter(draw.episode for draws in sampler for draw in draws)
    assert drawn == {episode: times[goals[episode]] * counts[episode] for episode in counts}


def test_balance_changes_no_statistics(opened):
    plain, balanced = opened(), opened("data.balance=5")
    assert plain.statistics() == balanced.statistics()


def test_largest_windows_are_of_the_last_phase_and_as_many_as_asked(opened):
    data = opened(visual={"period": 3})
    batch = data.largest(200)  # there are 160
    assert len(batch) == 200 and set(batch.phases.tolist()) == {2}


def test_every_phase_of_slow_regions_is_drawn(opened):
    data = opened(visual={"period": 3})
    draws = [draw for draws in data.loader(4, 0, 0, 1, False).sampler for draw in draws]
    assert {draw.phase for draw in draws} == {0, 1, 2}
    assert all(draw.ages == () for draw in draws)


def test_with_slices_what_is_slow_is_one_to_two_periods_old(opened):
    slow = {"visual": {"period": 3}, "goal": {"period": 3}}
    data = opened("refresh=sliced", **slow)
    draws = [draw for draws in data.loader(4, 0, 0, 1, False).sampler for draw in draws]
    assert {draw.ages for draw in draws} == {(("visual", age),) for age in (3, 4, 5)}
    assert isinstance(draws[0], Draw)
    assert data.largest(1).frames["visual"].values.shape[0] == 1


def test_slices_without_a_slow_region_are_refused(opened):
    with pytest.raises(RefreshError, match="expected a region with a period above 1"):
        opened("refresh=sliced")


def test_statistics_are_of_what_is_trained_on_alone(opened):
    part, whole = opened("data.holdout=0.2").statistics(), opened("data.holdout=off").statistics()
    assert part["state"].count == 160 and whole["state"].count == 200
    assert part["action"].mean != whole["action"].mean
