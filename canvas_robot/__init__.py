"""canvas_robot: a robot policy in one declaration, run by a frozen, looped CogVideoX.

Names are loaded on first use: importing the package loads no torch, diffusers, TensorFlow, MuJoCo
or rclpy. Importing it registers the Gymnasium environments, as
`gymnasium.make("canvas_robot/WidowXReach-v0")` expects.
"""

from __future__ import annotations

from importlib import import_module

from canvas_robot.sim.registration import register

_HOME = {
    "ATTENTION_TYPES": "canvas_robot.schema",
    "ActionChunk": "canvas_robot.signals",
    "ActionHead": "canvas_robot.policy.heads",
    "Binding": "canvas_robot.signals",
    "CanvasLayout": "canvas_robot.schema",
    "CanvasPolicy": "canvas_robot.policy.policy",
    "CanvasSchema": "canvas_robot.schema",
    "CanvasTopology": "canvas_robot.schema",
    "Connection": "canvas_robot.schema",
    "History": "canvas_robot.signals",
    "Observation": "canvas_robot.signals",
    "PolicySettings": "canvas_robot.policy.assemble",
    "RegionSpec": "canvas_robot.schema",
    "SpatiotemporalCanvas": "canvas_robot.canvas",
    "assemble_policy": "canvas_robot.policy.assemble",
    "compile_plan": "canvas_robot.schema",
    "load_binding": "canvas_robot.signals",
    "load_checkpoint": "canvas_robot.policy.checkpoint",
    "save_checkpoint": "canvas_robot.policy.checkpoint",
}
__all__ = sorted(_HOME)
__version__ = "0.1.0"

register()


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(
            f"module 'canvas_robot' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
