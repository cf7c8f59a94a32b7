"""A rollout keeps what was seen before each action, and the dataset built from it is Bridge V2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.evaluation.rollouts import record_rollout, record_rollouts
from canvas_robot.sim.experts import ReachExpert
from canvas_robot.sim.registration import REACH_ID, register

DATASET = Path(__file__).parents[2] / "datasets" / "widowx_sim"


@pytest.fixture(scope="module")
def env():
    register()
    env = gymnasium.make(REACH_ID)
    yield env
    env.close()


def test_step_k_holds_the_observation_before_action_k(env):
    episode = record_rollout(env, ReachExpert(), episode_id=3).episode
    first, info = env.reset(options={"episode_id": 3})
    np.testing.assert_array_equal(episode.images[0], first["image"])
    np.testing.assert_array_equal(episode.states[0], first["state"])
    second = env.step(episode.actions[0])[0]
    np.testing.assert_array_equal(episode.states[1], second["state"])
    assert episode.instruction == info["instruction"]


def test_steps_are_a_control_period_apart(env):
    episode = record_rollout(env, ReachExpert(), episode_id=3).episode
    np.testing.assert_array_equal(np.diff(episode.stamps_ns), 200_000_000)


def test_failure_is_recorded_as_failure(env):
    still = record_rollout(env, lambda env: np.zeros(7, np.float32), episode_id=3)
    assert not still.success and len(still.episode) == env.spec.max_episode_steps


def test_an_id_repeats_its_episode(env):
    first = record_rollout(env, ReachExpert(), episode_id=5)
    (again,) = record_rollouts(REACH_ID, ReachExpert(), [5])
    np.testing.assert_array_equal(again.episode.images, first.episode.images)
    np.testing.assert_array_equal(again.episode.actions, first.episode.actions)


@pytest.mark.slow
def test_the_widowx_sim_dataset_builds_and_reads_as_bridge_v2(env, tmp_path):
    # `tfds build` itself; its console script would also ask for apache-beam and mlcroissant.
    build = (
        "import simple_parsing; from tensorflow_datasets.scripts.cli import build; "
        "simple_parsing.parse(build.Args).execute()"
    )
    config = {"name": "test", "train_episodes": 2, "val_episodes": 1, "first_episode_id": 7}
    subprocess.run(
        [sys.executable, "-c", build, "--data_dir", tmp_path, "--config", json.dumps(config)],
        cwd=DATASET,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=True,
        timeout=110,
    )
    folder = tmp_path / "widowx_sim" / "test"
    assert len(BridgeV2(folder)) == 2
    (stored,) = BridgeV2(folder, split="val")
    made = record_rollout(env, ReachExpert(), episode_id=9).episode
    assert stored.instruction == made.instruction
    np.testing.assert_array_equal(stored.states, made.states)
    np.testing.assert_array_equal(stored.actions, made.actions)
    assert np.abs(stored.images.astype(int) - made.images).mean() < 3
    sizes = json.loads((folder / "1.0.0" / "features.json").read_text())
    assert json.dumps(sizes).count('"256", "256", "3"') == 4
