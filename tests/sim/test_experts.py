"""Laws of the scripted experts: they solve their task within the action space, from anywhere."""

import gymnasium
import numpy as np

from canvas_robot.sim.experts import ReachExpert
from canvas_robot.sim.registration import REACH_ID, register

register()


def outcome(env: gymnasium.Env, seed: int, noise_m: float = 0.0) -> bool:
    expert, random = ReachExpert(), np.random.default_rng(seed)
    _, info = env.reset(seed=seed)
    terminated = truncated = False
    while not (terminated or truncated):
        action = expert(env)
        assert action in env.action_space
        action[:3] += random.uniform(-noise_m, noise_m, 3).astype(np.float32)
        *_, terminated, truncated, info = env.step(action)
    return info["success"]


def test_the_reach_expert_solves_fifty_seeds():
    env = gymnasium.make(REACH_ID)
    assert np.mean([outcome(env, seed) for seed in range(50)]) >= 0.95
    env.close()


def test_the_reach_expert_recovers_from_noise_and_knows_every_colour():
    env = gymnasium.make(REACH_ID, colours=("red", "green", "blue", "yellow"))
    assert np.mean([outcome(env, seed, noise_m=0.01) for seed in range(20)]) >= 0.9
    env.close()
