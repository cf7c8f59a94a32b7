"""Laws of the statistics: exact, over what the rules keep, and what ties them to published ones."""

import json
from math import floor, fsum, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.statistics import signal_statistics, statistics_of
from canvas_robot.data.transitions import DataRules, RulesError, Selection, chosen, transitions
from canvas_robot.resources import config_path
from canvas_robot.signals import load_statistics, save_statistics

# The rules of the published statistics: Octo's transform of all of Bridge V2.
PUBLISHED_RULES = DataRules(actions="naive", first_step="keep", language="keep", black="keep")


def written_out(column):
    """(mean, std, q01, q99) by definition, in Python's own arithmetic."""
    values, n = sorted(map(float, column)), len(column)
    mean = fsum(values) / n
    std = sqrt(fsum((value - mean) ** 2 for value in values) / n)

    def quantile(q):
        at = q * (n - 1)
        low = floor(at)
        high = min(low + 1, n - 1)
        return values[low] + (at - low) * (values[high] - values[low])

    return mean, std, quantile(0.01), quantile(0.99)


def assert_exact(statistics, columns):
    measures = zip(statistics.mean, statistics.std, statistics.q01, statistics.q99, strict=True)
    for component, (found, column) in enumerate(zip(measures, columns, strict=True)):
        np.testing.assert_allclose(found, written_out(column), rtol=1e-12, atol=1e-15)
        assert statistics.low[component] == min(column)
        assert statistics.high[component] == max(column)
    assert statistics.count == len(columns[0])


@given(st.lists(st.tuples(*[st.floats(-4, 4, width=32)] * 2), min_size=1, max_size=40))
def test_they_are_those_of_the_definition(rows):
    columns = np.array(rows, np.float64).T
    assert_exact(statistics_of(columns, "here"), columns)
    assert statistics_of(columns, "here").source == "here"


@pytest.mark.parametrize("rules", [DataRules(), PUBLISHED_RULES, DataRules(actions="recorded")])
def test_those_of_the_sample_are_exact_under_any_rules(bridge_sample, rules):
    """Published statistics are of 2,195,527 transitions: no part of the data has them.

    What can be held to them on a part is the rules: the actions that they are of are written out
    here, and in test_transitions.py held to Octo's own.
    """
    dataset = BridgeV2(bridge_sample)
    rows = [transitions(dataset.read(index), rules) for index in range(len(dataset))]
    statistics = signal_statistics(dataset, rules)
    assert statistics.keys() == {"state", "action"}
    assert_exact(statistics["state"], np.concatenate([each.states for each in rows]).T)
    assert_exact(statistics["action"], np.concatenate([each.actions for each in rows]).T)


def test_naive_rules_give_what_octos_transform_gives_on_the_sample(bridge_sample):
    dataset = BridgeV2(bridge_sample)
    states, actions = [], []
    for index in range(len(dataset)):
        episode = dataset.read(index)
        for t in range(len(episode) - 1):
            states.append([float(value) for value in episode.states[t]])
            moved = [episode.states[t + 1][i] - episode.states[t][i] for i in range(6)]
            later = [g for g in episode.actions[t:, 6] if g > 0.95 or g < 0.05]
            gripper = float(later[0] > 0.95) if later else episode.actions[-1, 6]
            actions.append([float(value) for value in (*moved, gripper)])
    assert len(actions) == 225
    statistics = signal_statistics(dataset, PUBLISHED_RULES)
    assert_exact(statistics["state"], list(zip(*states, strict=True)))
    assert_exact(statistics["action"], list(zip(*actions, strict=True)))


def test_the_sample_lies_where_published_statistics_say_that_bridge_lies(bridge_sample):
    published = load_statistics(config_path("statistics", "bridge_v2.json"))
    computed = signal_statistics(BridgeV2(bridge_sample), PUBLISHED_RULES)
    for signal, statistics in computed.items():
        centre, spread = published[signal].mean, published[signal].std
        distance = np.abs(np.subtract(statistics.mean, centre)) / spread
        assert (distance < 2.5).all(), "of the same quantity, in the same unit"


def test_files_that_do_not_know_count_and_range_are_read_and_written_as_before(tmp_path):
    shipped = load_statistics(config_path("statistics", "bridge_v2.json"))
    assert {(each.count, each.low, each.high) for each in shipped.values()} == {(None, None, None)}
    save_statistics(shipped, tmp_path / "statistics.json")
    written = json.loads((tmp_path / "statistics.json").read_text())
    assert {*written["state"]} == {"mean", "std", "q01", "q99", "source"}


# Of made-up episodes.


class Recorded:
    """Episodes of `make_episode` as a dataset."""

    dataset, version, split, fingerprint, camera = "made_up", "2.0.0", "val", "ab" * 32, "image_0"
    cameras = ("image_0",)

    def __init__(self, episodes):
        self._episodes = episodes
        self.steps = np.array([len(episode) for episode in episodes])
        self.has_language = np.ones(len(episodes), bool)
        self.achieved = False
        self.pictures = np.ones((len(episodes), 1), bool)

    def read(self, index):
        return self._episodes[index]


@pytest.fixture
def recorded(make_episode):
    return Recorded([make_episode(steps=steps) for steps in (4, 1, 9, 6)])


def test_the_source_says_data_fingerprint_and_rules(recorded):
    rules = DataRules(actions="naive", language="keep")
    assert signal_statistics(recorded, rules)["action"].source == (
        f"made_up 2.0.0, val, fingerprint {'ab' * 32}, 3 episodes; rules: actions naive, "
        "gripper settled, first_step drop, language keep, black skip"
    )


def test_only_the_chosen_episodes_count(recorded):
    recorded.has_language[3] = False
    statistics = signal_statistics(recorded, DataRules())
    kept = [transitions(recorded.read(index), DataRules()) for index in (0, 2)]
    assert_exact(statistics["state"], np.concatenate([rows.states for rows in kept]).T)
    whole = chosen(recorded, DataRules(), [])
    first = Selection(whole.episodes[:1], whole.counts[:1], {})
    of_one = signal_statistics(recorded, DataRules(), selection=first)
    assert_exact(of_one["state"], kept[0].states.T)


def test_progress_is_told_by_episodes(recorded):
    told = []
    signal_statistics(recorded, DataRules(), lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_index_that_does_not_fit_its_episodes_is_refused(recorded):
    recorded.steps[2] = 8
    with pytest.raises(RulesError, match=r"episode number 2: expected 6 transitions, .* got 7"):
        signal_statistics(recorded, DataRules())
