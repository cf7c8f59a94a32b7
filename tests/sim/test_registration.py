"""Laws of registration: by name, repeatable, and without loading the simulator."""

import subprocess
import sys

import gymnasium

from canvas_robot.sim.registration import REACH_ID, register


def test_registering_twice_changes_nothing():
    register()
    spec = gymnasium.spec(REACH_ID)
    register()
    assert gymnasium.spec(REACH_ID) is spec
    assert isinstance(spec.entry_point, str)
    assert spec.max_episode_steps == 40


def test_registering_loads_no_simulator():
    code = (
        "import sys, canvas_robot.sim.registration as r; r.register(); "
        "print([m for m in ('mujoco', 'mink', 'torch') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
