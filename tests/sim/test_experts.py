"""Laws of the scripted experts: they solve their task within the action space, from anywhere."""

import gymnasium
import numpy as np
import pytest

from canvas_robot.sim.experts import PlaceExpert, ReachExpert, UnsteadyExpert, expert_for
from canvas_robot.sim.registration import ENV_IDS, REACH_ID, register
from canvas_robot.sim.tasks import TASK_NAMES

register()
PLACING = [name for name in TASK_NAMES if name != "reach"]


def make(task: str, **options) -> gymnasium.Env:
    return gymnasium.make(ENV_IDS[task], obs="state", physics_hz=250, **options)


def run(env: gymnasium.Env, act, episode_id: int) -> dict:
    """The last `info` of an episode, every action checked against the space."""
    _, info = env.reset(options={"episode_id": episode_id})
    terminated = truncated = False
    while not (terminated or truncated):
        action = act(env)
        assert action in env.action_space
        *_, terminated, truncated, info = env.step(action)
    return info


def protocols(info: dict) -> tuple[bool, ...]:
    return tuple(info[f"success{suffix}"] for suffix in ("", "_any", "_held"))


@pytest.mark.parametrize("task", PLACING)
def test_a_placing_expert_solves_published_and_drawn_episodes_by_every_protocol(task):
    env = make(task, stop="held")
    for episode_id in (0, 13, 23, 90_000, 90_001):
        assert protocols(run(env, expert_for(task), episode_id)) == (True, True, True)
    env.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", TASK_NAMES)
def test_an_expert_solves_every_published_episode_and_nearly_all_others(task):
    env = make(task)
    published = range(env.unwrapped.task.published)
    drawn = range(90_000, 90_200)
    infos = {k: run(env, expert_for(task), k) for k in (*published, *drawn)}
    reached = [name for name in ("success", "success_any", "success_held") if name in infos[90_000]]
    for name in reached:
        assert all(infos[k][name] for k in published)
        assert np.mean([infos[k][name] for k in drawn]) >= 0.98
    env.close()


def test_the_reach_expert_solves_thirty_episodes():
    env = make("reach")
    assert all(run(env, ReachExpert(), k)["success"] for k in range(30))
    env.close()


def test_the_reach_expert_recovers_from_noise_and_knows_every_colour():
    env = gymnasium.make(REACH_ID, obs="state", colours=("red", "green", "blue", "yellow"))
    random = np.random.default_rng(0)

    def noisy(env):
        action = ReachExpert()(env)
        action[:3] += random.uniform(-0.01, 0.01, 3).astype(np.float32)
        return action

    assert np.mean([run(env, noisy, k)["success"] for k in range(20)]) >= 0.9
    env.close()


def test_a_placing_expert_fetches_again_what_it_was_made_to_drop():
    env, expert = make("cube_on_plate", stop="held"), PlaceExpert()
    env.reset(options={"episode_id": 90_000})
    drops = 0
    terminated = truncated = False
    carried = 0
    while not (terminated or truncated):
        action = expert(env)
        if carried == 2 and drops < 2:
            action[6], drops = 1.0, drops + 1
        *_, terminated, truncated, info = env.step(action)
        carried = carried + 1 if info["grasped"] else 0
    assert drops == 2 and terminated and info["success_held"]
    env.close()


@pytest.mark.parametrize("task", ["stack_cube", "eggplant_in_basket"])
def test_a_placing_expert_copes_with_delay_slowness_and_clutter(task):
    env = make(task, stop="held", action_delay=(0.0, 0.2), distractors=4)
    for episode_id in (90_002, 90_003):
        assert run(env, expert_for(task, speed_m=0.025), episode_id)["success_held"]
    env.close()


def test_a_slower_expert_takes_more_steps():
    env = make("stack_cube", stop="held")
    steps = [
        run(env, expert_for("stack_cube", speed_m=speed), 90_000)["elapsed_steps"]
        for speed in (0.02, 0.05)
    ]
    assert steps[0] > steps[1]
    env.close()


def test_an_expert_is_found_by_the_tasks_name_and_made_unsteady_by_noise():
    assert expert_for("reach") == ReachExpert()
    assert expert_for("reach", speed_m=0.015) == ReachExpert(speed_m=0.015)
    assert expert_for("stack_cube") == PlaceExpert()
    assert isinstance(expert_for("stack_cube", wander_m=0.002), UnsteadyExpert)
    with pytest.raises(ValueError, match=r"task: expected one of \['carrot_on_plate'"):
        expert_for("sweep")
