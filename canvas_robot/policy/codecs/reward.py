"""RewardCodec: learned query tokens in, a number for each step out."""

from __future__ import annotations

import torch

from canvas_robot.backbone.action_head import ActionHead
from canvas_robot.policy.codecs.codec import CodecSite, OutputCodec, learned_queries
from canvas_robot.signals import Normaliser


class RewardCodec(OutputCodec):
    """The h * w tokens of a step are averaged, then the head regresses; (t, h, w) is the size."""

    def __init__(self, normaliser: Normaliser, size: tuple[int, int, int], width: int) -> None:
        super().__init__(normaliser, size, width)
        self.queries = learned_queries(self.token_count, width)
        self.head = ActionHead(width, len(normaliser.centre), width)

    @classmethod
    def build(cls, site: CodecSite) -> RewardCodec:
        return cls(site.normaliser, site.size, site.width)

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.queries.expand(inputs.shape[0], -1, -1)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        steps = self.steps(tokens)
        return self.head(steps.flatten(0, 1)).unflatten(0, steps.shape[:2])

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Squared error: its minimum is the expected reward."""
        return (self.decode(tokens) - targets).square().mean(dim=2)
