"""Finding rows by where they lie, without comparing every row with every other."""

from __future__ import annotations

import torch

from canvas_robot.canvas.attention.functions.interface import EdgeShapeError


class CellTable:
    """Which row of each group lies at a cell.

    Args:
        cells: (G, m, 3) int64.

    Raises:
        EdgeShapeError: two rows of a group lie at one cell.
    """

    def __init__(self, cells: torch.Tensor) -> None:
        groups, m, _ = cells.shape
        self.low = cells.amin((0, 1))
        self.extent = cells.amax((0, 1)) - self.low + 1
        self.table = cells.new_full((groups, int(self.extent.prod())), -1)
        rows = torch.arange(m, device=cells.device).expand(groups, m)
        self.table.scatter_(1, self._flat(cells), rows)
        if int((self.table >= 0).sum()) != groups * m:
            raise EdgeShapeError("dst_cells: two dst rows of a group lie at the same cell")

    def find(self, cells: torch.Tensor) -> torch.Tensor:
        """(G, ..., 3) cells to (G, ...) rows, -1 where no row lies."""
        inside = ((cells >= self.low) & (cells < self.low + self.extent)).all(-1)
        flat = self._flat(cells).where(inside, 0).flatten(1)
        return self.table.gather(1, flat).view(inside.shape).where(inside, -1)

    def _flat(self, cells: torch.Tensor) -> torch.Tensor:
        t, h, w = (cells - self.low).unbind(-1)
        return (t * self.extent[1] + h) * self.extent[2] + w
