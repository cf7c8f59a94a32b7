"""Grafting: replacing each block of a CogVideoX transformer by a looped one, the rest frozen."""

from __future__ import annotations

from diffusers import CogVideoXTransformer3DModel
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock

from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock


class GraftError(ValueError):
    """A transformer cannot be grafted."""


def graft(transformer: CogVideoXTransformer3DModel, max_loops: int) -> list[LoopedCogVideoXBlock]:
    """Wraps every block in place and returns the looped blocks.

    Everything but the loop parameters is frozen. Raises GraftError when the transformer has no
    CogVideoX blocks or is grafted already.
    """
    blocks = getattr(transformer, "transformer_blocks", None)
    if blocks is None:
        raise GraftError(
            f"transformer: expected transformer_blocks in a {type(transformer).__name__}"
        )
    if not blocks or not all(isinstance(block, CogVideoXBlock) for block in blocks):
        kinds = sorted({type(block).__name__ for block in blocks}) or ["none"]
        raise GraftError(f"transformer: expected CogVideoXBlock blocks, got {', '.join(kinds)}")
    transformer.requires_grad_(False)
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    looped = [LoopedCogVideoXBlock(block, i, max_loops, width) for i, block in enumerate(blocks)]
    for i, block in enumerate(looped):
        block.set_loops(max_loops)
        blocks[i] = block
    return looped
