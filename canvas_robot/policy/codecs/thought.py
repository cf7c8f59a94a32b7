"""ThoughtCodec: learned tokens that other regions may read; nothing goes in or comes out."""

from __future__ import annotations

import torch

from canvas_robot.policy.codecs.codec import Codec, CodecSite, learned_queries


class ThoughtCodec(Codec):
    """As many tokens as its region has cells."""

    def __init__(self, token_count: int, width: int) -> None:
        super().__init__()
        self.token_count = token_count
        self.queries = learned_queries(token_count, width)

    @classmethod
    def build(cls, site: CodecSite) -> ThoughtCodec:
        t, h, w = site.size
        return cls(t * h * w, site.width)

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.queries.expand(inputs.shape[0], -1, -1)
