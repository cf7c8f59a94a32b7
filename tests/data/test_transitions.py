"""Laws of the rules: what an action means, which steps have one, which episodes are kept."""

from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.transitions import (
    DataRules,
    RulesError,
    chosen,
    composed_change,
    count_of,
    naive_change,
    settled_gripper,
    transitions,
)
from canvas_robot.kinematics.rule import Limits, compose
from canvas_robot.signals.pose import angle_between, pose_from_bridge_state

RECORDED = DataRules(actions="recorded", gripper="raw", first_step="keep")
UNBOUNDED = Limits(np.full(6, 10.0), np.full(3, -100.0), np.full(3, 100.0))
PITCH = np.pi / 2 - 0.01

EVERY_RULES = [
    DataRules(actions=actions, gripper=gripper, first_step=first_step)
    for actions in ("composed", "naive", "recorded")
    for gripper in ("settled", "raw")
    for first_step in ("drop", "keep")
]
angles = st.floats(-np.pi, np.pi)
poses = st.tuples(*[st.floats(-1, 1)] * 3, angles, st.floats(-PITCH, PITCH), angles)
trajectories = st.lists(poses, min_size=2, max_size=5).map(
    lambda drawn: np.array([[*pose, 0.5] for pose in drawn], np.float32)
)


@pytest.fixture(scope="module")
def sample(bridge_sample):
    dataset = BridgeV2(bridge_sample)
    return [dataset.read(index) for index in range(len(dataset))]


# What an action is.


@given(trajectories)
def test_composing_the_relabelled_action_onto_a_state_gives_the_next_state(states):
    for state, change, after in zip(states, composed_change(states), states[1:], strict=False):
        pose, _ = pose_from_bridge_state(state)
        reached = compose(pose, np.append(change, 1.0), UNBOUNDED).target
        expected, _ = pose_from_bridge_state(after)
        np.testing.assert_allclose(reached.position, expected.position, atol=1e-6)
        assert angle_between(reached.rotation, expected.rotation) < 1e-5


def test_composing_a_real_episodes_actions_leads_through_all_of_its_states(sample):
    for episode in sample:
        rows = transitions(episode, DataRules(first_step="keep"))
        pose, _ = pose_from_bridge_state(episode.states[0])
        for action, state in zip(rows.actions, episode.states[1:], strict=True):
            pose = compose(pose, action, UNBOUNDED).target
            expected, _ = pose_from_bridge_state(state)
            np.testing.assert_allclose(pose.position, expected.position, atol=1e-6)
            assert angle_between(pose.rotation, expected.rotation) < 1e-5


@given(trajectories)
def test_a_turn_is_in_minus_pi_to_pi_pi_included(states):
    turns = composed_change(states)[:, 3:]
    assert (-np.float32(np.pi) < turns).all() and (turns <= np.float32(np.pi)).all()


def test_half_a_turn_is_plus_pi_and_never_minus_pi():
    yaws = np.linspace(-3, 3, 601, dtype=np.float32)
    states = np.zeros((2 * len(yaws), 7), np.float32)
    states[::2, 5], states[1::2, 5] = yaws, yaws - np.pi
    half_turns = composed_change(states)[::2, 5]
    np.testing.assert_allclose(np.abs(half_turns), np.pi, atol=1e-6)
    assert (half_turns == np.float32(np.pi)).any() and (half_turns > -np.float32(np.pi)).all()


def test_a_yaw_that_wraps_is_a_small_turn_by_composition_and_2_pi_off_by_subtraction():
    states = np.zeros((2, 7), np.float32)
    states[:, 5] = 3.1, -3.1
    assert composed_change(states)[0, 5] == pytest.approx(2 * np.pi - 6.2, abs=1e-5)
    assert naive_change(states)[0, 5] == pytest.approx(-6.2)


@given(trajectories)
def test_naive_is_the_difference_of_the_numbers(states):
    for before, change, after in zip(states, naive_change(states), states[1:], strict=False):
        assert change.tolist() == [after[i] - before[i] for i in range(6)]


def test_both_agree_on_positions_and_on_turns_about_one_axis():
    states = np.zeros((4, 7), np.float32)
    states[:, 1] = 0, 0.1, 0.3, 0.2
    states[:, 4] = 0, 0.2, 0.1, -0.1
    np.testing.assert_allclose(composed_change(states), naive_change(states), atol=1e-6)


def test_published_figures_of_the_two_are_reproduced_on_the_sample(sample):
    """25 episodes x 9 transitions. Source: ../shared/reference/bridge_widowx.md, 1.6.3."""
    naive = np.concatenate([naive_change(e.states) for e in sample])[:, 3:]
    composed = np.concatenate([composed_change(e.states) for e in sample])[:, 3:]
    recorded = np.concatenate([e.actions[:-1] for e in sample])[:, 3:6]
    assert len(naive) == 225
    off, size = 1e3 * np.abs(naive - composed).mean(0), 1e3 * np.abs(composed).mean(0)
    np.testing.assert_allclose(off, [4.7, 6.5, 5.1], atol=0.05)  # mrad
    np.testing.assert_allclose(size, [23, 20, 19], atol=0.5)
    for changes, published in ((naive, [0.929, 0.723, 0.877]), (composed, [0.954, 0.813, 0.903])):
        found = [np.corrcoef(changes[:, i], recorded[:, i])[0, 1] for i in range(3)]
        np.testing.assert_allclose(found, published, atol=5e-4)


def test_recorded_actions_are_as_stored(sample):
    for episode in sample:
        rows = transitions(episode, RECORDED)
        np.testing.assert_array_equal(rows.actions, episode.actions)
        np.testing.assert_array_equal(rows.states, episode.states)
        assert len(rows) == len(episode)


# The gripper.


def octos(actions):
    """As octo.data.utils.data_utils.binarize_gripper_actions writes down its own scan."""
    open_mask, closed_mask = actions > 0.95, actions < 0.05
    in_between_mask = ~(open_mask | closed_mask)
    new_actions = np.empty_like(actions)
    carry = actions[-1]
    for i in reversed(range(actions.shape[0])):
        if in_between_mask[i]:
            carry = carry
        else:
            carry = float(open_mask[i])
        new_actions[i] = carry
    return new_actions


edges = [0.0, 0.04, 0.05, np.nextafter(np.float32(0.05), np.float32(0)), 0.5, 0.95, 0.96, 1.0, 1.1]
targets = st.lists(st.sampled_from(edges), min_size=1, max_size=12).map(
    lambda drawn: np.array(drawn, np.float32)
)


@given(targets)
def test_the_gripper_is_what_octo_makes_of_it(drawn):
    before = drawn.copy()
    settled = settled_gripper(drawn)
    assert settled.dtype == np.float32
    np.testing.assert_array_equal(settled, octos(drawn))
    np.testing.assert_array_equal(drawn, before)


def test_a_target_in_between_is_what_it_settles_to_and_the_last_ones_stay_as_the_last_is():
    drawn = np.array([0.5, 1.0, 0.7, 0.3, 0.0, 0.2, 0.99, 0.6, 0.4], np.float32)
    expected = np.array([1, 1, 0, 0, 0, 1, 1, 0.4, 0.4], np.float32)
    np.testing.assert_array_equal(settled_gripper(drawn), expected)


def test_the_gripper_of_an_action_is_the_recorded_target_of_its_own_step(sample):
    for episode in sample:
        for actions in ("composed", "naive"):
            raw = transitions(episode, DataRules(actions=actions, gripper="raw"))
            np.testing.assert_array_equal(raw.actions[:, 6], episode.actions[1:-1, 6])
            settled = transitions(episode, DataRules(actions=actions))
            # The last step counts, although it has no action of its own.
            np.testing.assert_array_equal(
                settled.actions[:, 6], settled_gripper(episode.actions[:, 6])[1:-1]
            )


def test_raw_targets_in_between_occur_and_settled_ones_do_not(sample):
    raw = np.concatenate([e.actions[:, 6] for e in sample])
    assert ((0.05 < raw) & (raw < 0.95)).any()
    ends_open = [e for e in sample if e.actions[-1, 6] > 0.95]
    settled = [settled_gripper(e.actions[:, 6]) for e in ends_open]
    assert settled and set(np.concatenate(settled)) <= {0.0, 1.0}


# Which steps.


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("rules", EVERY_RULES)
def test_count_of_foretells_the_transitions(make_episode, steps, rules):
    episode = make_episode(steps=steps)
    rows = transitions(episode, rules)
    assert count_of(steps, rules) == len(rows) == len(rows.states) == len(rows.actions)
    np.testing.assert_array_equal(rows.states, episode.states[rows.steps])
    first, last = int(rules.first_step == "drop"), steps - int(rules.actions != "recorded")
    assert rows.steps.tolist() == list(range(first, last))
    assert rows.states.dtype == rows.actions.dtype == np.float32 and rows.steps.dtype == np.int64


def test_count_of_counts_many_at_once():
    assert count_of(np.array([1, 2, 3, 50], np.int32), DataRules()).tolist() == [0, 0, 1, 48]


def test_dropping_the_first_step_changes_nothing_of_the_others(make_episode):
    episode = make_episode(steps=6)
    for actions in ("composed", "naive", "recorded"):
        kept = transitions(episode, DataRules(actions=actions, first_step="keep"))
        dropped = transitions(episode, DataRules(actions=actions))
        np.testing.assert_array_equal(kept.actions[1:], dropped.actions)


def test_the_episode_is_left_as_it_was(make_episode):
    episode = make_episode()
    states, actions = episode.states.copy(), episode.actions.copy()
    transitions(episode, DataRules())
    np.testing.assert_array_equal(episode.states, states)
    np.testing.assert_array_equal(episode.actions, actions)


def test_an_episode_without_actions_is_refused(make_episode):
    with pytest.raises(RulesError, match=r"episode 'made up, 4 steps': expected actions \(T, 7\)"):
        transitions(replace(make_episode(), actions=None), DataRules())


def test_unknown_rules_are_refused():
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'compose'"):
        msgspec.convert({"actions": "compose"}, DataRules)


# Which episodes.


@pytest.fixture
def indexed():
    """Seven episodes: too short, blank, black in the wrist, black and blank, and three to keep."""
    pictures = np.ones((7, 2), bool)
    pictures[[2, 3], 1] = False
    return SimpleNamespace(
        cameras=("image_0", "image_3"),
        steps=np.array([2, 9, 9, 9, 3, 9, 30], np.int32),
        has_language=np.array([True, False, True, False, True, True, True]),
        pictures=pictures,
        achieved=False,
    )


def test_episodes_are_left_out_for_their_first_reason(indexed):
    selection = chosen(indexed, DataRules(), ["image_0", "image_3"])
    assert selection.episodes.tolist() == [4, 5, 6]
    assert selection.counts.tolist() == [1, 7, 28]
    assert selection.left_out == {
        "no transition: too few steps": 1,
        "blank instruction": 2,
        "no picture from image_0": 0,
        "no picture from image_3": 1,
    }


def test_only_cameras_that_are_needed_count(indexed):
    assert chosen(indexed, DataRules(), ["image_0"]).episodes.tolist() == [2, 4, 5, 6]


def test_rules_may_keep_what_others_leave_out(indexed):
    rules = DataRules(language="keep", black="keep", first_step="keep")
    selection = chosen(indexed, rules, ["image_0", "image_3"])
    assert selection.episodes.tolist() == list(range(7))
    assert selection.left_out == {"no transition: too few steps": 0}
    assert selection.counts.tolist() == count_of(indexed.steps, rules).tolist()


def test_an_unknown_camera_is_refused_with_those_there_are(indexed):
    with pytest.raises(RulesError) as error:
        chosen(indexed, DataRules(), ["wrist", "image_0"])
    assert str(error.value) == ("cameras: expected some of ['image_0', 'image_3'], got ['wrist']")


def test_rules_that_keep_no_episode_are_refused_with_the_reasons(indexed):
    indexed.has_language[:] = False
    with pytest.raises(RulesError, match=r"got none of 7; left out: .*'blank instruction': 6"):
        chosen(indexed, DataRules(), ["image_0"])


def test_the_sample_has_no_picture_from_its_last_camera(bridge_sample):
    dataset = BridgeV2(bridge_sample)
    assert len(chosen(dataset, DataRules(), ["image_0", "image_1", "image_2"])) == 25
    with pytest.raises(RulesError, match="'no picture from image_3': 25"):
        chosen(dataset, DataRules(), ["image_3"])
