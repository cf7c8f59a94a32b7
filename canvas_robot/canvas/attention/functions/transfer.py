"""The function that moves rows as they are: copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from canvas_robot.canvas.attention.functions.cells import CellTable
from canvas_robot.canvas.attention.functions.interface import (
    EdgeFunction,
    EdgeGeometry,
    EdgeOptions,
    EdgeShapeError,
)


class Copy(EdgeFunction):
    """Each src row takes the dst row at the same place. No parameters, O(N).

    A place is counted from the corner of the box that the group's rows fill. Where the dst box is 1
    long on an axis, all src rows along that axis take the same dst row.

    Raises:
        EdgeShapeError: an axis of the dst box is neither 1 nor the src box's, or a place of the src
            box has no dst row.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__(width, heads, geometries, options)
        self.keep("source", [_same_places(geometry) for geometry in geometries])

    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        index = self.kept("source", bucket)[None, :, :, None]
        return torch.take_along_dim(dst, index, dim=2)


def _same_places(geometry: EdgeGeometry) -> torch.Tensor:
    """(G, n) the dst row at each src row's place."""
    src_corner, src_box = _box(geometry.src_cells)
    dst_corner, dst_box = _box(geometry.dst_cells)
    for mine, theirs in zip(src_box.tolist(), dst_box.tolist(), strict=True):
        if any(b not in (1, a) for a, b in zip(mine, theirs, strict=True)):
            raise EdgeShapeError(
                f"copy: src rows fill a box of {_shape(mine)} (t, h, w) and dst rows one of "
                f"{_shape(theirs)}; each axis of dst must be 1 or the same: change the regions' "
                "bounds or time offsets, or use pooling or cross_attention"
            )
    places = geometry.src_cells - src_corner[:, None]
    cells = dst_corner[:, None] + torch.where(dst_box[:, None] == 1, 0, places)
    index = CellTable(geometry.dst_cells).find(cells)
    if (index < 0).any():
        group, row = (index < 0).nonzero()[0].tolist()
        raise EdgeShapeError(
            f"copy: src rows fill a box of {_shape(src_box[group].tolist())} (t, h, w) and dst "
            f"rows one of {_shape(dst_box[group].tolist())}, but no dst row lies at "
            f"{tuple(places[group, row].tolist())} of it: both regions must cover the same cells"
        )
    return index


def _box(cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Corner and extents (G, 3) of the box that each group's cells fill."""
    low = cells.amin(1)
    return low, cells.amax(1) - low + 1


def _shape(extents: list[int]) -> str:
    return "x".join(map(str, extents))
