"""Laws of the policy that ships: small, whole, frozen but for a little, and it does its tasks."""

import json

import pytest

from canvas_robot.evaluation.eval_session import Session
from canvas_robot.evaluation.eval_settings import EvalSettings, Start
from canvas_robot.policy.checkpoint import load_checkpoint
from canvas_robot.resources import DEMO, DEMO_FOLDER
from canvas_robot.sim.registration import ENV_IDS
from canvas_robot.training.export import read_record

MOST_BYTES = 12_000_000
EPISODES = tuple(range(90_000, 90_006))


@pytest.fixture(scope="module")
def policy():
    return load_checkpoint(DEMO)


def test_it_is_small_and_brings_its_backbone():
    files = [path for path in DEMO_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    weights = {".safetensors", ".json", ".yaml", ".md"}
    assert {path.suffix for path in files} == weights, "nothing that could be run"
    assert json.loads((DEMO_FOLDER / "config.json").read_text())["backbone"] == "./backbone"


def test_what_was_trained_after_freezing_is_a_tenth_of_the_transformer_at_most(policy):
    own = sum(p.numel() for p in policy.model.own_parameters().values())
    vae = sum(p.numel() for p in policy.model.codec("visual").vae.parameters())
    frozen = sum(p.numel() for p in policy.model.runner.transformer.parameters())
    assert policy.trained and policy.model.freeze == "full"
    assert own <= 0.1 * frozen and vae <= 2_000_000


def test_no_episode_of_an_evaluation_was_trained_on():
    record = read_record(DEMO_FOLDER)
    assert set(record.environments) == {ENV_IDS["reach"], ENV_IDS["cube_on_plate"]}
    assert all(not of["shadows"] for of in record.environments.values())
    assert record.episodes == 3000 and record.split == "train"


@pytest.mark.parametrize("task", ["reach", "cube_on_plate"])
def test_it_does_its_tasks(task):
    settings = EvalSettings(envs=(ENV_IDS[task],), policy=DEMO, episodes=EPISODES)
    session = Session(settings)
    rows = [session.run(Start(0, number))[0] for number in EPISODES]
    session.close()
    assert sum(row.success_any for row in rows) >= 5, [row.failure for row in rows]


def test_it_does_what_it_is_told():
    settings = EvalSettings(
        envs=(ENV_IDS["reach"],), policy=DEMO, episodes=EPISODES, compare_instructions=True
    )
    session = Session(settings)
    pairs = [
        [session.run(Start(0, number, variant))[0] for variant in (0, 1)] for number in EPISODES
    ]
    session.close()
    assert all(first.told != second.told for first, second in pairs)
    assert sum(first.success_any and second.success_any for first, second in pairs) >= 4
