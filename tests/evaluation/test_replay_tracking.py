"""Recorded actions lead our arm to the recorded states, and only when they are read rightly."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from typer.testing import CliRunner

from canvas_robot.cli import app
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.evaluation.replay_conventions import (
    CONVENTIONS,
    GRIPPER,
    POSITION,
    RIGHT,
    ROTATION,
)
from canvas_robot.evaluation.replay_figures import fit, tracking_figures
from canvas_robot.evaluation.replay_tracking import (
    RELABELLED,
    ROWS_PER_STEP,
    ArmReplay,
    Replayed,
    ReplayError,
    Track,
    numbers_of,
    replay_episodes,
)
from canvas_robot.sim.registration import ENV_IDS, register
from canvas_robot.sim.task import LIMITS

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "bridge_sample" / "bridge_dataset"


@pytest.fixture(scope="module")
def arm():
    return ArmReplay()


# ---------------------------------------------------------------- our own recordings


@pytest.fixture(scope="module")
def own():
    """States (13, 7) and actions (12, 7) of an environment whose arm wanders about in the air."""
    register()
    random = np.random.default_rng(0)
    low, high = [-0.02, -0.02, -0.005, *[-0.1] * 3, 0.0], [*[0.02] * 3, *[0.1] * 3, 1.0]
    actions = random.uniform(low, high, (12, 7)).astype(np.float32)
    env = gymnasium.make(ENV_IDS["reach"], obs="state")
    states = [env.reset(options={"episode_id": 0})[0]["state"]]
    states += [env.step(action)[0]["state"] for action in actions]
    env.close()
    return np.array(states), actions


def replayed(arm, states, actions, *readings):
    tracks = {name: arm.run(states[0], actions, CONVENTIONS[name].read) for name in readings}
    return Replayed(0, "own", "", Track.of_states(states), tracks)


def test_what_the_environment_did_is_repeated(arm, own):
    episode = replayed(arm, *own, RIGHT)
    assert np.abs(episode.offsets(RIGHT, 0)).max() < 3e-4
    assert episode.angles(RIGHT, 0).max() < 2e-3
    assert np.abs(episode.gripper_errors(RIGHT, 0)).max() < 1e-3


def test_a_replay_is_deterministic_whatever_was_replayed_before(arm, own):
    states, actions = own
    first = arm.run(states[0], actions)
    arm.run(states[5], actions[:3])
    again = arm.run(states[0], actions)
    np.testing.assert_array_equal(first.positions, again.positions)
    np.testing.assert_array_equal(first.rotations, again.rotations)
    np.testing.assert_array_equal(first.gripper, again.gripper)
    assert len(first) == 1 + ROWS_PER_STEP * len(actions)


def test_standing_still_stands_still(arm, own):
    track = arm.run(own[0][0], own[1], CONVENTIONS["no motion"].read)
    assert np.ptp(track.positions, axis=0).max() < 1e-3


def test_states_count_until_they_leave_the_workspace(arm, own):
    states = own[0].copy()
    assert arm.usable(states) == len(states)
    states[7, 2] = LIMITS.box_low[2] - 0.01
    assert arm.usable(states) == 7
    states[0, 0] = 0.6
    assert arm.usable(states) == 0


def test_a_start_out_of_reach_is_refused(arm):
    far = np.array([1.0, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0])
    assert arm.usable(far[None]) == 0
    with pytest.raises(ReplayError, match="first state: expected one in reach"):
        arm.run(far, np.zeros((1, 7)))


# ---------------------------------------------------------------- figures


def made_up(late, offset, steps=40):
    """A recorded track that is a simulated one, so many rows later and without the offset."""
    rows = np.arange(1 + ROWS_PER_STEP * (steps - 1))
    ways = np.stack([np.sin(rows / 17), np.cos(rows / 29), np.sin(rows / 11 + 1)], axis=1)
    simulated = Track(0.1 * ways, np.tile(np.eye(3), (len(rows), 1, 1)), np.ones(len(rows)))
    seen = simulated.at(np.maximum(ROWS_PER_STEP * np.arange(steps) - late, 0))
    recorded = Track(seen.positions - offset, seen.rotations, seen.gripper)
    return Replayed(0, "made up", "", recorded, {RIGHT: simulated})


@pytest.mark.parametrize("late", [0, 3, 10, 20])
def test_lag_and_offset_are_found(late):
    offset = np.array([0.001, -0.002, 0.009])
    found = fit([made_up(late, offset)], RIGHT)
    assert found.late == late and found.lag_s == pytest.approx(0.02 * late)
    np.testing.assert_allclose(found.offset, offset, atol=1e-9)


# ---------------------------------------------------------------- the real sample


@pytest.fixture(scope="module")
def sample():
    if not SAMPLE.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")
    return BridgeV2(SAMPLE)


@pytest.fixture(scope="module")
def episodes(sample):
    return replay_episodes(sample, range(0, 25, 3))


@pytest.fixture(scope="module")
def figures(sample, episodes):
    return json.loads(json.dumps(tracking_figures(sample, episodes)))


def medians(figures, name):
    of = figures["readings"][name]
    keys = {POSITION: "position_mm", ROTATION: "rotation_deg", GRIPPER: "gripper"}
    return {part: of[key]["median"] for part, key in keys.items()}


def test_our_arm_goes_where_the_recorded_one_went(figures):
    right, still = medians(figures, RIGHT), medians(figures, "no motion")
    assert right[POSITION] < 0.35 * still[POSITION] and right[POSITION] < 12.0
    assert right[ROTATION] < 0.5 * still[ROTATION] and right[ROTATION] < 3.0
    assert still[POSITION] == pytest.approx(figures["motion"]["position_mm"]["median"], rel=0.02)


@pytest.mark.parametrize("name", [name for name in CONVENTIONS if name != RIGHT])
def test_a_wrong_reading_leads_elsewhere_in_what_it_gets_wrong(figures, name):
    right, wrong = medians(figures, RIGHT), medians(figures, name)
    for part in CONVENTIONS[name].wrong:
        assert wrong[part] > 1.4 * right[part], part
    for part in {POSITION, ROTATION, GRIPPER} - CONVENTIONS[name].wrong:
        assert wrong[part] == pytest.approx(right[part], rel=0.15, abs=1e-3), part


def test_the_recorded_arm_is_later_and_hangs_lower(figures):
    """Half a control step of driver and servos; servos without weight compensation."""
    fitted = figures["readings"][RIGHT]["fitted"]
    assert 0.04 <= fitted["lag_s"] <= 0.2
    assert 4.0 < fitted["offset_mm"][2] < 15.0 > 3 * np.abs(fitted["offset_mm"][:2]).max()
    assert fitted["position_mm"]["median"] < 0.75 * medians(figures, RIGHT)[POSITION]


def test_actions_made_from_states_lead_back_to_them_if_rotations_are_composed(figures):
    composed, naive = medians(figures, "composed"), medians(figures, "naive")
    assert composed[POSITION] < 1.5 and composed[ROTATION] < 0.3
    assert naive[ROTATION] > 3 * composed[ROTATION]


def test_every_reading_and_every_episode_has_its_figures(figures, episodes):
    assert figures["readings"].keys() == {*CONVENTIONS, *RELABELLED}
    assert [of["episode"] for of in figures["episodes"]] == list(range(0, 25, 3))
    assert figures["steps"] == sum(of["steps"] for of in figures["episodes"]) == 9 * len(episodes)


def test_numbers_are_spread_over_the_split(sample):
    assert numbers_of(sample, 7, 200) == [7]
    assert numbers_of(sample, -1, 200) == list(range(25))
    assert numbers_of(sample, -1, 3) == [0, 12, 24]
    with pytest.raises(ReplayError, match="episode: expected one below 25"):
        numbers_of(sample, 25, 200)


def test_a_recording_outside_the_workspace_is_left_out_and_said(sample, monkeypatch):
    monkeypatch.setattr(ArmReplay, "usable", lambda self, states: 1)
    told = []
    with pytest.raises(ReplayError, match="expected an episode that begins between"):
        replay_episodes(sample, [3], told.append)
    assert len(told) == 1 and "left out, it begins outside the workspace" in told[0]


def test_the_command_prints_a_table_and_draws_a_picture(sample, tmp_path):
    words = ["replay-sim", str(SAMPLE), "--episode", "3", "-o", str(tmp_path / "out")]
    result = CliRunner(env={"COLUMNS": "120"}).invoke(app, words)
    assert result.exit_code == 0, result.output
    for text in (RIGHT, "no motion", "composed", "turn lever vertical to front", "tracking.png"):
        assert text in result.output
    written = json.loads((tmp_path / "out" / "tracking.json").read_text())
    assert [of["episode"] for of in written["episodes"]] == [3]
    assert (tmp_path / "out" / "tracking.png").read_bytes().startswith(b"\x89PNG")
