"""What a policy's name means, and what it is known by."""

import gymnasium
import numpy as np
import pytest

from canvas_robot.evaluation.eval_policy import (
    EvalPolicyError,
    checkpoint_card,
    checkpoint_of,
    expert_of,
    files_of,
)
from canvas_robot.evaluation.eval_settings import EvalSettings
from canvas_robot.resources import config_path
from canvas_robot.sim.registration import ENV_IDS


def settings(policy, **changes) -> EvalSettings:
    return EvalSettings(envs=("A-v0",), policy=str(policy), episodes=(0,), **changes)


@pytest.fixture
def folder(tmp_path):
    """Looks like a checkpoint from outside."""
    (tmp_path / "config.json").write_text('{"kind": "plain", "trained": true}')
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "one.safetensors").write_bytes(b"one")
    return tmp_path


@pytest.mark.parametrize("name", ["expert", "random", "zero"])
def test_a_baseline_has_no_files(name):
    assert checkpoint_of(name) is None and files_of(settings(name)) == {}
    assert checkpoint_card(name) == {}


def test_a_checkpoint_is_known_by_all_its_files(folder):
    assert checkpoint_of(str(folder)) == folder
    before = files_of(settings(folder))
    assert sorted(before) == ["config.json", "prompts/one.safetensors"]
    (folder / "prompts" / "one.safetensors").write_bytes(b"two")
    assert files_of(settings(folder)) != before
    assert checkpoint_card(str(folder)) == {"kind": "plain", "trained": True}


def test_a_binding_in_its_place_counts_too(folder, tmp_path):
    binding = tmp_path / "own.yaml"
    binding.write_bytes(config_path("bindings", "widowx.yaml").read_bytes())
    one = files_of(settings(folder, binding=str(binding)))["--binding"]
    assert one == files_of(settings(folder, binding="widowx.yaml"))["--binding"]
    binding.write_text(binding.read_text() + "\n")
    assert files_of(settings(folder, binding=str(binding)))["--binding"] != one


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_card_that_cannot_be_read_is_named(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(EvalPolicyError, match=r"config\.json: "):
        checkpoint_card(str(folder))


def test_a_folder_without_a_card_is_no_checkpoint(tmp_path):
    with pytest.raises(EvalPolicyError, match=r"with config.json; make one .* canvas-robot export"):
        files_of(settings(tmp_path))


@pytest.mark.parametrize("env_id", ENV_IDS.values())
def test_each_of_our_tasks_has_an_expert(env_id):
    env = gymnasium.make(env_id, obs="state")
    env.reset(options={"episode_id": 90_000})
    action = expert_of(env)(env)
    assert action.shape == (7,) and np.isfinite(action).all()
    env.close()
