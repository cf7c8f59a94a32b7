"""ActionCodec: query tokens in, an action chunk out, by regression.

One forward decodes the whole horizon.
"""

from __future__ import annotations

import torch

from canvas_robot.backbone.action_head import ActionHead
from canvas_robot.policy.codecs.codec import CodecSite, OutputCodec
from canvas_robot.signals import Normaliser


class ActionCodec(OutputCodec):
    """The h * w tokens of a step are averaged, then the head regresses.

    Args:
        normaliser, size, width: as every output codec; size is (horizon, h, w).
        hidden: size of the head's layer; None: the token width.
    """

    def __init__(
        self,
        normaliser: Normaliser,
        size: tuple[int, int, int],
        width: int,
        hidden: int | None = None,
    ) -> None:
        super().__init__(normaliser, size, width)
        self.head = ActionHead(width, len(normaliser.centre), hidden or width)

    @classmethod
    def build(cls, site: CodecSite) -> ActionCodec:
        return cls(site.normaliser, site.size, site.width, site.bound.hidden)

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Zeros: what a query asks is its position and modality vector."""
        return inputs.new_zeros(inputs.shape[0], self.token_count, self.width)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        steps = self.steps(tokens)
        return self.head(steps.flatten(0, 1)).unflatten(0, steps.shape[:2])

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean absolute error, as of OpenVLA-OFT (Kim et al. 2025, arXiv:2502.19645)."""
        return (self.decode(tokens) - targets).abs().mean(dim=2)
