"""Laws of an episode that runs on: judged as the environment judges, from the first command on."""

import gymnasium
import pytest

from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.rule import compose
from canvas_robot.sim.experts import expert_for
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.registration import ENV_IDS, register
from canvas_robot.sim.running_episode import RunningEpisode
from canvas_robot.sim.scene import Scene
from canvas_robot.sim.task import LIMITS
from canvas_robot.sim.tasks import task_named

register()
SLICE = 2  # physics steps


def running(task: str, episode_id: int) -> tuple[RunningEpisode, WidowXSim]:
    declared = task_named(task)
    sim = WidowXSim(Arm.load("wx250s"), Scene(declared.props, declared.workplace))
    return RunningEpisode(declared, episode_id, sim), sim


def tape(task: str, episode_id: int, count: int) -> list:
    """Actions of the expert, and what the environment said after each."""
    env = gymnasium.make(ENV_IDS[task], obs="state")
    env.reset(options={"episode_id": episode_id})
    act, steps = expert_for(task), []
    for _ in range(count):
        action = act(env)
        *_, ended, _, info = env.step(action)
        steps.append((action, info))
        if ended:
            break
    env.close()
    return steps


@pytest.mark.parametrize("task", ["reach", "cube_on_plate"])
def test_it_is_judged_as_in_the_environment(task):
    episode, sim = running(task, 90_002)
    per_period = round(0.2 / sim.timestep)
    for number, (action, info) in enumerate(tape(task, 90_002, 25), start=1):
        sim.command(compose(sim.target, action, LIMITS))
        episode.begin()
        noted = [episode.step(SLICE) for _ in range(per_period // SLICE)]
        assert noted.count(True) == 1
        facts = episode.facts()
        assert facts["periods"] == number
        for name in ("success", "success_any", "success_held", "grasped"):
            assert facts.get(name) == info.get(name), (number, name)
    assert facts["success"] and episode.ended == (task == "reach")
    sim.close()


def test_nothing_is_judged_before_a_command():
    episode, sim = running("cube_on_plate", 0)
    assert not any(episode.step(SLICE) for _ in range(200))
    assert episode.facts()["periods"] == 0 and not episode.ended
    assert sim.time == pytest.approx(0.8)
    sim.close()


def test_one_follows_the_other_in_one_simulator():
    first, sim = running("cube_on_plate", 3)
    start = sim.end_effector.position.copy()
    for action, _ in tape("cube_on_plate", 3, 6):
        sim.command(compose(sim.target, action, LIMITS))
        first.begin()
        first.step(100)
    second = RunningEpisode(task_named("cube_on_plate"), 4, sim)
    assert sim.end_effector.position == pytest.approx(start, abs=1e-6)
    assert second.facts()["episode"] == 4 and second.facts()["periods"] == 0
    sim.close()
