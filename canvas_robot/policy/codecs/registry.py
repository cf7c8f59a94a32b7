"""The codecs there are, by the name that a binding gives.

A new one is a class in a file of its own and a line here; its options, and what signal it takes,
are declared under the same name in canvas_robot/signals/codecs.py, which bindings are read by.
"""

from __future__ import annotations

from canvas_robot.policy.codecs.action import ActionCodec
from canvas_robot.policy.codecs.action_diffusion import DiffusionActionCodec
from canvas_robot.policy.codecs.codec import Codec
from canvas_robot.policy.codecs.reward import RewardCodec
from canvas_robot.policy.codecs.text import TextCodec
from canvas_robot.policy.codecs.thought import ThoughtCodec
from canvas_robot.policy.codecs.vector import VectorCodec
from canvas_robot.policy.codecs.visual import VisualCodec

CODECS: dict[str, type[Codec]] = {
    "visual": VisualCodec,
    "text": TextCodec,
    "vector": VectorCodec,
    "action": ActionCodec,
    "action_diffusion": DiffusionActionCodec,
    "reward": RewardCodec,
    "thought": ThoughtCodec,
}
