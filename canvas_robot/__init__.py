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
    "ActionHead": "canvas_robot.backbone.action_head",
    "Binding": "canvas_robot.signals",
    "CanvasAttention": "canvas_robot.canvas.attention",
    "CanvasLayout": "canvas_robot.schema",
    "CanvasPolicy": "canvas_robot.policy.policy",
    "CanvasSchema": "canvas_robot.schema",
    "CanvasTopology": "canvas_robot.schema",
    "CanvasWrapper": "canvas_robot.sim.canvas_wrapper",
    "Connection": "canvas_robot.schema",
    "CurriculumScheduler": "canvas_robot.backbone.schedules",
    "History": "canvas_robot.signals",
    "LoopedBlockWrapper": "canvas_robot.backbone.looped_wrapper",
    "Observation": "canvas_robot.signals",
    "PolicySettings": "canvas_robot.policy.settings",
    "RegionSpec": "canvas_robot.schema",
    "SharpeningSchedule": "canvas_robot.backbone.schedules",
    "SpatiotemporalCanvas": "canvas_robot.canvas",
    "assemble_policy": "canvas_robot.policy.assemble",
    "compile_plan": "canvas_robot.schema",
    "embed": "canvas_robot.semantic",
    "freeze_full": "canvas_robot.backbone.freeze",
    "freeze_half": "canvas_robot.backbone.freeze",
    "graft_looped_blocks": "canvas_robot.backbone.graft",
    "load_binding": "canvas_robot.signals",
    "load_checkpoint": "canvas_robot.policy.checkpoint",
    "load_loop_checkpoint": "canvas_robot.backbone.loop_checkpoint",
    "save_checkpoint": "canvas_robot.policy.checkpoint",
    "save_loop_checkpoint": "canvas_robot.backbone.loop_checkpoint",
    "transfer_distance": "canvas_robot.schema",
    "with_embeddings": "canvas_robot.semantic",
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
