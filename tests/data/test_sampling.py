"""Laws of the sampler: every window once, any place to resume at, each rank its own."""

import json
import tracemalloc
from itertools import groupby, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.data.sampling import SamplerError, WindowSampler

SHUFFLES = ("none", "block", "global")
COUNTS, EPISODES = [7, 1, 12, 5, 0, 9, 3, 11], [3, 4, 8, 10, 11, 15, 16, 40]
WINDOWS = [(e, step) for e, n in zip(EPISODES, COUNTS, strict=True) for step in range(n)]


def sampler(shuffle="block", batch_size=4, **changes):
    arguments = {"seed": 7, "shuffle": shuffle, "clips_per_visit": 3, "block_episodes": 3}
    return WindowSampler(COUNTS, EPISODES, batch_size, **{**arguments, **changes})


def windows(batches):
    return [draw[:2] for draws in batches for draw in draws]


def moved(shuffle="block", batches=0, **changes):
    """A sampler that has handed out so many batches."""
    one = sampler(shuffle, **changes)
    while batches:
        taken = len(list(islice(iter(one), batches)))
        batches -= taken
    return one


# An epoch.


@pytest.mark.parametrize("shuffle", SHUFFLES)
@given(batch_size=st.integers(1, 9), world_size=st.integers(1, 4), seed=st.integers(0, 2**64 - 1))
def test_every_window_comes_once_an_epoch_over_all_ranks(shuffle, batch_size, world_size, seed):
    ranks = [
        sampler(shuffle, batch_size, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for _ in range(2):
        batches = [list(one) for one in ranks]
        assert {len(of_rank) for of_rank in batches} == {len(ranks[0])}, "as many for each rank"
        assert {len(draws) for of_rank in batches for draws in of_rank} == {batch_size}
        seen = [window for of_rank in batches for window in windows(of_rank)]
        assert len(set(seen)) == len(seen) and set(seen) <= set(WINDOWS)
        assert len(WINDOWS) - len(seen) == ranks[0].dropped < batch_size * world_size


def test_unshuffled_windows_come_in_the_order_of_the_data():
    assert windows(sampler("none")) == WINDOWS


def test_ranks_take_batches_in_turn():
    alone = list(sampler("block"))
    ranks = [list(sampler("block", 2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("shuffle", ["block", "global"])
def test_epochs_and_seeds_differ_and_equal_ones_do_not(shuffle):
    one, same, other = (sampler(shuffle, seed=seed) for seed in (1, 1, 2))
    first, second = list(one), list(one)
    assert one.epoch == 2
    assert windows(first) != windows(second)
    assert windows(first) != windows(other)
    assert [first, second] == [list(same), list(same)]


def test_all_windows_are_equally_likely_to_come_first():
    firsts = [next(sampler("global", 1, seed=seed).ahead())[0][:2] for seed in range(2000)]
    counts = [firsts.count(window) for window in WINDOWS]
    assert min(counts) > 0 and max(counts) < 90  # 41.7 each, within 7.5 standard deviations


# Blocks.


def visits(order):
    """Runs of windows of one episode."""
    return [(episode, list(run)) for episode, run in groupby(order, key=lambda window: window[0])]


@pytest.mark.parametrize("clips", [1, 3, 5])
def test_a_block_visits_its_episodes_a_few_windows_at_a_time(clips):
    order = windows(sampler("block", 1, clips_per_visit=clips))
    assert sorted(order) == WINDOWS
    places = {window: place for place, window in enumerate(order)}
    for episode, count in zip(EPISODES, COUNTS, strict=True):
        mine = sorted(places[episode, step] for step in range(count))
        for visit in range(0, count, clips):
            size = min(clips, count - visit)
            assert any(
                mine[at : at + size] == list(range(mine[at], mine[at] + size))
                for at in range(count - size + 1)
            )
        assert sum(len(run) for e, run in visits(order) if e == episode) == count


def test_blocks_are_of_so_many_episodes_and_follow_each_other():
    order = windows(sampler("block", 1))
    episodes = [window[0] for window in order]
    last = {episode: place for place, episode in enumerate(episodes)}
    first = {episode: episodes.index(episode) for episode in last}
    blocks, open_block, end = [], set(), -1
    for episode in sorted(first, key=first.get):
        if first[episode] > end and open_block:
            blocks.append(open_block)
            open_block = set()
        open_block.add(episode)
        end = max(end, last[episode])
    blocks.append(open_block)
    assert max(map(len, blocks)) <= 3, "at most three episodes are in turn at a time"
    assert max(map(len, blocks)) > 1, "and their windows lie among each other"


def test_windows_within_an_episode_are_shuffled():
    order = windows(sampler("block", 1))
    of_one = [step for episode, step in order if episode == 8]
    assert sorted(of_one) == list(range(12)) and of_one != list(range(12))


# Resuming.


@pytest.mark.parametrize("shuffle", SHUFFLES)
@given(batches=st.integers(0, 30), workers_ahead=st.integers(0, 5))
def test_resuming_anywhere_goes_on_as_the_unbroken_run(shuffle, batches, workers_ahead):
    changes = {"phases": 3, "crops": 2, "ages": {"a": (0, 4)}}
    unbroken = moved(shuffle, batches, **changes)
    state = json.loads(json.dumps(unbroken.state_dict()))
    list(islice(unbroken.ahead(), workers_ahead))  # looking ahead moves nothing
    assert unbroken.state_dict() == state
    resumed = sampler(shuffle, **changes)
    resumed.load_state_dict(state)
    assert (resumed.epoch, resumed.batch) == divmod(batches, len(resumed))
    for _ in range(2):
        assert list(resumed) == list(unbroken)
    assert resumed.state_dict() == unbroken.state_dict()


def test_a_batch_that_was_handed_out_counts_as_done():
    one = sampler()
    ahead = list(one.ahead())
    for number, draws in enumerate(one, start=1):
        assert draws == ahead[number - 1]
        assert one.state_dict()["batch"] == number % len(one)
    assert (one.epoch, one.batch) == (1, 0)


def test_a_state_is_the_same_on_every_rank():
    states = []
    for rank in range(2):
        one = sampler("block", 4, rank=rank, world_size=2)
        next(iter(one))
        states.append(one.state_dict())
    assert states[0] == states[1]


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"seed": 8}, r"seed \(7, here 8\)"),
        ({"batch_size": 5}, r"batch_size \(4, here 5\)"),
        ({"world_size": 2}, r"world_size \(1, here 2\)"),
        ({"shuffle": "global"}, r"shuffle \(block, here global\)"),
        ({"ages": {"a": (1, 2)}}, r"ages \(\[\], here \[\[\['a'\], 1, 2\]\]\)"),
    ],
)
def test_a_state_of_other_batches_is_refused_with_what_differs(changes, text):
    state = sampler().state_dict()
    with pytest.raises(SamplerError, match=f"got other values of {text}; resume with the data"):
        sampler(**changes).load_state_dict(state)


def test_a_state_of_other_episodes_is_refused():
    state = sampler().state_dict()
    other = WindowSampler(COUNTS[::-1], EPISODES, 4, seed=7, clips_per_visit=3, block_episodes=3)
    with pytest.raises(SamplerError, match=r"got other values of episodes \("):
        other.load_state_dict(state)


@pytest.mark.parametrize("change", [{"batch": 12}, {"batch": -1}, {"epoch": -1}])
def test_a_place_outside_an_epoch_is_refused(change):
    one = sampler()
    with pytest.raises(SamplerError, match="expected an epoch from 0 and a batch below 12"):
        one.load_state_dict(one.state_dict() | change)
    with pytest.raises(SamplerError, match=r"expected epoch, batch and of, got \['epoch'\]"):
        one.load_state_dict({"epoch": 0})


# What else is drawn.


def test_phases_and_crops_are_uniform_and_independent():
    one = WindowSampler([30_000], [0], 30_000, seed=3, phases=5, crops=3)
    (draws,) = one
    pairs = np.bincount([draw.phase * 3 + draw.crop for draw in draws], minlength=15)
    assert len(pairs) == 15 and np.abs(pairs - 2000).max() < 5 * np.sqrt(2000)


def test_one_phase_is_the_robots_own_clock_and_no_ages_are_none():
    assert {draw[2:] for draws in sampler() for draw in draws} == {(0, (), 0)}


def test_ages_are_uniform_in_their_range_and_shared_by_the_regions_of_a_tuple():
    ages = {("map", "task"): (3, 5), "camera": (0, 3)}
    one = WindowSampler([30_000], [0], 30_000, seed=3, phases=2, ages=ages)
    (draws,) = one
    drawn = [dict(draw.ages) for draw in draws]
    assert all(age["map"] == age["task"] for age in drawn)
    assert {len(age) for age in drawn} == {3}
    pairs = np.bincount([(age["map"] - 3) * 4 + age["camera"] for age in drawn], minlength=12)
    assert len(pairs) == 12 and np.abs(pairs - 2500).max() < 5 * np.sqrt(2500)


def test_what_is_drawn_follows_from_the_place_in_the_epoch_alone():
    changes = {"phases": 7, "crops": 5, "ages": {"a": (0, 9)}}
    large, small = (
        [draw[2:] for draws in sampler("none", size, **changes) for draw in draws]
        for size in (6, 1)
    )
    assert large == small
    ranks = [list(sampler("none", 3, rank=r, world_size=2, **changes)) for r in (0, 1)]
    dealt = [draw[2:] for pair in zip(*ranks, strict=True) for draws in pair for draw in draws]
    assert dealt == small
    epochs = sampler("none", 1, **changes)
    assert [list(epochs), list(epochs)][0] != list(epochs)


# Size.


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_an_epoch_takes_at_most_12_bytes_a_window(shuffle):
    counts = np.random.default_rng(0).integers(20, 56, 8000)
    one = WindowSampler(counts, np.arange(8000), 32, seed=0, shuffle=shuffle)
    tracemalloc.start()
    try:
        next(one.ahead())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * one.windows


# Refusing.


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"batch_size": 49}, "at least one batch of 49 for each of 1 ranks.*, got 48 windows of 8"),
        ({"batch_size": 25, "world_size": 2}, "at least one batch of 25 for each of 2 ranks"),
        ({"shuffle": "all"}, r"shuffle: expected one of .*'block'.*, got 'all'"),
        ({"clips_per_visit": 0}, "clips_per_visit: expected at least 1"),
        ({"phases": 0}, "phases: expected at least 1"),
        ({"rank": 1}, "rank: expected below 1, got 1"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"ages": {"a": (3, 2)}}, r"ages of \['a'\]: expected 0 <= low <= high, got 3 and 2"),
        ({"ages": {"a": (0, 2), ("a", "b"): (0, 1)}}, "ages: expected each region once"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, text):
    with pytest.raises(SamplerError, match=text):
        sampler(**changes)


def test_counts_that_are_not_one_for_each_episode_are_refused():
    with pytest.raises(SamplerError, match=r"expected as many counts .*, got \(2,\) and \(1,\)"):
        WindowSampler([1, 2], [0], 1, seed=0)
