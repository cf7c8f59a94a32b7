"""Rotary position embeddings of a plan's rows, for backbones of CogVideoX-5B's kind.

A row is turned by its place (t, h, w); a row of the text stream is not turned.
"""

from __future__ import annotations

import torch

from canvas_robot.schema import Plan

THETA = 10000.0  # diffusers' get_1d_rotary_pos_embed


def rotary_tables(
    plan: Plan, positions: torch.Tensor, head_width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos, sin), each (N, head_width) float32, of the plan's rows.

    As diffusers' get_3d_rotary_pos_embed does: a quarter of the head's channels turn with t, three
    eighths each with h and w; neighbouring channels form pairs.

    Args:
        plan: says which rows are text.
        positions: (N, 3), t, h, w of each row, in grid units of the backbone's training.
    """
    sizes = (head_width // 4, head_width // 8 * 3, head_width // 8 * 3)
    angles = torch.cat(
        [
            torch.outer(place.double(), _rates(size)).repeat_interleave(2, dim=1)
            for place, size in zip(positions.unbind(1), sizes, strict=True)
        ],
        dim=1,
    )
    for region in plan.regions:
        if region.stream == "text":
            angles[region.start : region.stop] = 0.0
    return angles.cos().float(), angles.sin().float()


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(B, n, heads, d) turned by (n, d) tables, computed in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, cos.dtype))
    first, second = wide.unflatten(-1, (-1, 2)).unbind(-1)
    across = torch.stack([-second, first], dim=-1).flatten(-2)
    return (wide * cos[:, None] + across * sin[:, None]).to(x.dtype)


def _rates(size: int) -> torch.Tensor:
    return THETA ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
