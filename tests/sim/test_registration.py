"""Laws of registration: by name, repeatable, and without loading the simulator."""

import subprocess
import sys

import gymnasium

from canvas_robot.sim.registration import ENV_IDS, REACH_ID, register

STEPS = {
    "canvas_robot/WidowXReach-v0": 40,
    "canvas_robot/WidowXCubeOnPlate-v0": 60,
    "canvas_robot/WidowXSpoonOnTowel-v0": 60,
    "canvas_robot/WidowXCarrotOnPlate-v0": 60,
    "canvas_robot/WidowXStackCube-v0": 60,
    "canvas_robot/WidowXEggplantInBasket-v0": 120,
}


def test_registering_twice_changes_nothing():
    register()
    spec = gymnasium.spec(REACH_ID)
    register()
    assert gymnasium.spec(REACH_ID) is spec
    assert isinstance(spec.entry_point, str)


def test_each_task_has_an_id_and_its_published_step_limit():
    register()
    assert set(ENV_IDS.values()) == set(STEPS)
    for task, env_id in ENV_IDS.items():
        assert gymnasium.spec(env_id).max_episode_steps == STEPS[env_id]
        assert gymnasium.spec(env_id).kwargs == {"task": task}


def test_registering_loads_no_simulator():
    code = (
        "import sys, canvas_robot.sim.registration as r; r.register(); "
        "print([m for m in ('mujoco', 'mink', 'torch') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
