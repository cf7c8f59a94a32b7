"""Registers the environments with Gymnasium by name, without importing them or MuJoCo."""

import gymnasium

# Of each task by name: the environment's id, and the control steps after which it is truncated.
# Source of the steps, but for reach and cube_on_plate: SimplerEnv, octo_bridge.sh.
_ENVIRONMENTS = {
    "reach": ("canvas_robot/WidowXReach-v0", 40),
    "cube_on_plate": ("canvas_robot/WidowXCubeOnPlate-v0", 60),
    "spoon_on_towel": ("canvas_robot/WidowXSpoonOnTowel-v0", 60),
    "carrot_on_plate": ("canvas_robot/WidowXCarrotOnPlate-v0", 60),
    "stack_cube": ("canvas_robot/WidowXStackCube-v0", 60),
    "eggplant_in_basket": ("canvas_robot/WidowXEggplantInBasket-v0", 120),
}

ENV_IDS: dict[str, str] = {task: env_id for task, (env_id, _) in _ENVIRONMENTS.items()}
REACH_ID = ENV_IDS["reach"]


def register() -> None:
    """Make every environment known to `gymnasium.make`. Safe to repeat."""
    for task, (env_id, steps) in _ENVIRONMENTS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point="canvas_robot.sim.environment:WidowXEnv",
                kwargs={"task": task},
                max_episode_steps=steps,
            )
