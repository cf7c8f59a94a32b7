"""Rotary position embeddings of a plan's rows, for backbones of CogVideoX-5B's kind.

A row is turned by its place (t, h, w); a row of the text stream is not turned.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

from canvas_robot.schema import CanvasLayout, Plan

THETA = 10000.0  # diffusers' get_1d_rotary_pos_embed


def rotary_places(
    transformer: CogVideoXTransformer3DModel,
    layout: CanvasLayout,
    plan: Plan,
    videos: Collection[str],
) -> torch.Tensor:
    """(N, 3) places (t, h, w) of the plan's rows in the backbone's grid units.

    A video region lies where CogVideoX's pipeline puts a video of that size: its first frame at 0,
    h and w stretched to the grid of its training. Other rows lie at their canvas cells, steps
    counted from the first one of any video.

    Args:
        transformer: its configuration says how large its grid was.
        layout, plan: where the regions and rows are.
        videos: names of the regions that hold video patches.
    """
    config = transformer.config
    base = (config.sample_width // config.patch_size, config.sample_height // config.patch_size)
    first = min((layout.region_spec(name).bounds[0] for name in videos), default=0)
    places = torch.empty(plan.n_rows, 3, dtype=torch.float64)
    for region in plan.regions:
        cells = torch.tensor(region.cells)
        t, rest = cells // (layout.H * layout.W), cells % (layout.H * layout.W)
        h, w = rest // layout.W, rest % layout.W
        if region.name in videos:
            t0, _, h0, h1, w0, w1 = layout.region_spec(region.name).bounds
            top_left, bottom_right = get_resize_crop_region_for_grid((h1 - h0, w1 - w0), *base)
            h = _stretched(h1 - h0, top_left[0], bottom_right[0])[h - h0]
            w = _stretched(w1 - w0, top_left[1], bottom_right[1])[w - w0]
            t = t - t0
        else:
            t = t - first
        places[region.start : region.stop] = torch.stack([t.double(), h.double(), w.double()], 1)
    return places


def _stretched(count: int, start: int, stop: int) -> torch.Tensor:
    return torch.linspace(start, stop * (count - 1) / count, count, dtype=torch.float32)


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
