"""Laws of the loop: equal numbers give equal episodes, everyone is told and seen as declared."""

import json

import gymnasium
import msgspec
import numpy as np
import pytest
import torch

from canvas_robot.evaluation.eval_policy import EvalPolicyError
from canvas_robot.evaluation.eval_session import EpisodeError, Session, action_change
from canvas_robot.evaluation.eval_settings import EvalSettings, Start
from canvas_robot.policy.checkpoint import save_checkpoint
from canvas_robot.policy.checkpoint_files import CheckpointError
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding, load_statistics
from canvas_robot.sim.registration import ENV_IDS, REACH_ID


def settings(*envs, **changes) -> EvalSettings:
    return EvalSettings(
        **{"envs": envs, "policy": "random", "episodes": tuple(range(100, 140)), **changes}
    )


@pytest.fixture
def session():
    """A function that opens a session; all are closed."""
    opened = []

    def begin(wanted):
        opened.append(Session(wanted))
        return opened[-1]

    yield begin
    for each in opened:
        each.close()


@pytest.fixture(autouse=True)
def threads():
    """A session that loads a policy sets torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Untrained weights of a small schema."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    data["layout"].update(H=7, W=16)
    for region, bounds in {
        "visual": [1, 2, 0, 4, 0, 4],
        "proprio": [0, 2, 4, 5, 0, 1],
        "action": [1, 5, 4, 5, 1, 3],
        "goal": [0, 4, 5, 7, 0, 16],
    }.items():
        data["regions"][region]["bounds"] = bounds
    policy = CanvasPolicy.untrained(
        CanvasSchema.from_dict(data),
        load_binding(config_path("bindings", "widowx.yaml")),
        load_statistics(config_path("statistics", "bridge_v2.json")),
        loops=1,
    )
    return save_checkpoint(policy, tmp_path_factory.mktemp("checkpoints") / "untrained")


def same(row):
    """A row without what a clock says."""
    return msgspec.structs.replace(row, decision_ms=[], seconds=0.0)


# ---------------------------------------------------------------- numbers


def test_an_episode_depends_on_its_number_alone(session, line):
    first, other = session(settings(line)), session(settings(line, episodes=(105, 101)))
    rows = {number: first.run(Start(0, number))[0] for number in (101, 103, 105)}
    for number in (105, 101):
        assert same(other.run(Start(0, number))[0]) == same(rows[number])
    assert same(rows[101]).action_change != same(rows[103]).action_change


def test_other_seeds_draw_other_actions(session, line):
    rows = [session(settings(line, seed=seed)).run(Start(0, 100))[0] for seed in (0, 1)]
    assert rows[0].action_change != rows[1].action_change
    assert rows[0].instruction == rows[1].instruction


def test_the_number_is_the_id_where_there_are_ids_and_else_the_seed(session, line, seeded):
    both = session(settings(line, seeded, success_key="deep.done", env_kwargs={}))
    with pytest.raises(EpisodeError, match=r"expected info\['deep.done'\]"):
        both.run(Start(0, 100))
    row, film = both.run(Start(1, 100))
    assert (row.episode_id, row.seed, row.told, film) == (None, 100, "", None)
    assert session(settings(line)).run(Start(0, 100))[0].episode_id == 100


def test_a_seed_decides_where_there_are_no_ids(session, seeded):
    rows = [
        [begun.run(Start(0, number))[0].success_last for number in range(100, 120)]
        for begun in (session(settings(seeded, success_key="deep.done")) for _ in range(2))
    ]
    assert rows[0] == rows[1] and 0 < sum(rows[0]) < 20


def test_a_declared_option_takes_the_number(session, line):
    row, _ = session(settings(line, id_option="episode_id")).run(Start(0, 7))
    assert row.episode_id == 7


# ---------------------------------------------------------------- rows


def test_an_expert_succeeds_and_its_row_says_how(session):
    row, _ = session(settings(REACH_ID, policy="expert", env_kwargs={"obs": "state"})).run(
        Start(0, 90_000)
    )
    assert row.success_last and row.success_any and row.success_held is None
    assert row.steps == row.steps_to_success == len(row.decision_ms) and row.terminated
    assert row.told == row.instruction == "touch the blue cube"
    assert row.failure == "" and row.reward == 1.0 and 0 < row.action_change < 0.1


def test_a_placing_task_has_all_three_protocols(session):
    wanted = settings(
        ENV_IDS["cube_on_plate"], policy="expert", env_kwargs={"obs": "state", "stop": "held"}
    )
    row, _ = session(wanted).run(Start(0, 90_000))
    assert (row.success_last, row.success_any, row.success_held) == (True, True, True)
    assert row.stages["grasped"] and row.stages["moved_correct"]


def test_a_reward_that_is_no_number_is_none(session, seeded):
    row, _ = session(settings(seeded, success_key="deep.done")).run(Start(0, 100))
    assert row.reward is None and row.action_change is None


def test_films_are_taken_of_those_that_are_asked_for(session, line):
    begun = session(settings(line))
    assert begun.run(Start(0, 100))[1] is None
    row, film = begun.run(Start(0, 100), filmed=True)
    assert len(film.pictures) == row.steps + 1 and film.fps == 4
    blind = settings(line, env_kwargs={"render_mode": None})
    assert session(blind).run(Start(0, 100), filmed=True)[1] is None


SPACE = gymnasium.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))


@pytest.mark.parametrize(
    "actions, expected",
    [
        ([[0, 0], [0, 0], [0, 0]], 0.0),
        ([[-1, 0], [1, 10], [-1, 0]], 1.0),  # from bound to bound
        ([[0, 0], [1, 0]], np.sqrt(0.5**2 / 2)),
        ([[0, 0]], None),
    ],
)
def test_action_change_is_a_share_of_the_actions_range(actions, expected):
    found = action_change([np.array(action, np.float32) for action in actions], SPACE)
    assert found == (None if expected is None else pytest.approx(expected))


# ---------------------------------------------------------------- goals


def test_the_same_scene_is_run_for_another_goal(session, line):
    begun = session(settings(line, compare_instructions=True))
    own, other = (begun.run(Start(0, 100, variant))[0] for variant in (0, 1))
    assert {own.instruction, other.instruction} == {"go left", "go right"}
    assert own.instruction == session(settings(line)).run(Start(0, 100))[0].instruction
    assert (own.number, own.variant, other.variant) == (100, 0, 1)


def test_an_environment_with_one_goal_is_refused(session, seeded):
    begun = session(settings(seeded, compare_instructions=True))
    with pytest.raises(EpisodeError, match=r"episode 100: --compare-instructions: expected"):
        begun.run(Start(0, 100))


# ---------------------------------------------------------------- policies


def reach(checkpoint, **changes) -> EvalSettings:
    return settings(REACH_ID, **{"policy": str(checkpoint), "max_steps": 3, **changes})


def test_a_checkpoint_acts_and_is_told_the_episodes_goal(session, checkpoint):
    rows = [session(reach(checkpoint)).run(Start(0, 90_000))[0] for _ in range(2)]
    assert same(rows[0]) == same(rows[1])
    assert rows[0].told == rows[0].instruction == "touch the blue cube"
    assert rows[0].steps == len(rows[0].decision_ms) == 3 and min(rows[0].decision_ms) > 0.5


def test_decisions_are_as_many_as_chunks(session, checkpoint):
    row, _ = session(reach(checkpoint, steps_per_chunk=2)).run(Start(0, 90_000))
    assert row.steps == 3 and len(row.decision_ms) == 2


def test_another_instruction_changes_what_is_told_and_not_what_is_asked(session, checkpoint):
    row, _ = session(reach(checkpoint, instruction="wave")).run(Start(0, 90_000))
    assert (row.told, row.instruction) == ("wave", "touch the blue cube")


def test_shuffled_instructions_are_never_the_episodes_own(session, checkpoint):
    begun = session(reach(checkpoint, shuffle_instructions=True))
    for number in (100, 101, 102):
        row, _ = begun.run(Start(0, number))
        assert {row.told, row.instruction} == {"touch the blue cube", "touch the red cube"}


def test_instructions_that_are_all_the_same_cannot_be_shuffled(session, checkpoint):
    wanted = settings(
        ENV_IDS["cube_on_plate"],
        policy=str(checkpoint),
        episodes=(90_000, 90_001),
        shuffle_instructions=True,
    )
    with pytest.raises(EpisodeError, match="all say 'put the red cube on the plate'; evaluate"):
        session(wanted).run(Start(0, 90_000))


def test_a_black_image_changes_what_the_policy_does(session, checkpoint):
    rows = [
        session(reach(checkpoint, black_image=black)).run(Start(0, 90_000))[0]
        for black in (False, True)
    ]
    assert rows[0].action_change != rows[1].action_change


# ---------------------------------------------------------------- what cannot be run


@pytest.mark.parametrize(
    "changes, error, text",
    [
        ({"policy": "not/there"}, EvalPolicyError, "expected expert, random, zero, demo or the"),
        ({"dtype": "float128"}, ValueError, "--dtype: expected one of"),
        ({"binding": "not_there.yaml"}, FileNotFoundError, "not_there.yaml"),
    ],
)
def test_a_policy_that_cannot_be_had_is_refused_by_name(checkpoint, changes, error, text):
    with pytest.raises(error, match=text):
        Session(reach(checkpoint, **changes))


def test_a_folder_that_is_no_checkpoint_is_refused_in_its_loaders_words(tmp_path):
    with pytest.raises(CheckpointError, match=f"checkpoint {tmp_path}: expected a folder with"):
        Session(reach(tmp_path))


def test_an_episode_that_breaks_is_named(session, made_up_envs):
    with pytest.raises(EpisodeError, match=r"^made_up/Broken-v0, episode 100: KeyError: 'joint'$"):
        session(settings("made_up/Broken-v0")).run(Start(0, 100))


def test_an_episode_without_end_is_named(session, made_up_envs, monkeypatch):
    monkeypatch.setattr("canvas_robot.evaluation.eval_session.LONGEST", 50)
    with pytest.raises(EpisodeError, match=r"no end after 50 steps; limit them: --max-steps N"):
        session(settings("made_up/Endless-v0")).run(Start(0, 100))
    limited = session(settings("made_up/Endless-v0", max_steps=60))
    assert limited.run(Start(0, 100))[0].steps == 60


def test_an_expert_is_had_for_our_own_tasks_only(session, line):
    with pytest.raises(EpisodeError, match=r"expert: made_up/Line-v0 has none; expected one of"):
        session(settings(line, policy="expert")).run(Start(0, 100))


def test_more_steps_than_a_chunk_has_are_refused(session, checkpoint):
    with pytest.raises(EpisodeError, match=r"steps per chunk: expected 1 to 4, .* got 5"):
        session(reach(checkpoint, steps_per_chunk=5)).run(Start(0, 90_000))
