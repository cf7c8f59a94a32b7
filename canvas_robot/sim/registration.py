"""Registers the environments with Gymnasium by name, without importing them or MuJoCo."""

import gymnasium

REACH_ID = "canvas_robot/WidowXReach-v0"


def register() -> None:
    """Make every environment known to `gymnasium.make`. Safe to repeat."""
    if REACH_ID not in gymnasium.registry:
        gymnasium.register(
            id=REACH_ID,
            entry_point="canvas_robot.sim.reach:WidowXReachEnv",
            max_episode_steps=40,
        )
