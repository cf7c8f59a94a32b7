"""What every residual edge function is made from and promises. None is implemented here.

Shapes, here and in the whole folder: B batch, G groups, n src rows and m dst rows of a group,
D width, H heads, d = D / H, R = B * G independent problems.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from canvas_robot.canvas.static import StaticModule
from canvas_robot.schema.edge_options import EdgeOptions
from canvas_robot.schema.edge_options import EdgeOptionsError as EdgeOptionsError  # its home here


class EdgeShapeError(ValueError):
    """A function type cannot run between rows that lie like these."""


@dataclass(frozen=True, eq=False)
class EdgeGeometry:
    """Where the rows lie: G groups of n src rows, each group reading its own m dst rows.

    Args:
        src_cells: (G, n, 3) int64, (t, h, w) of each src row: t is the canvas step, h and w count
            from the region's own corner.
        dst_cells: (G, m, 3) int64, the same for dst rows, in the order in which they come.
        src_size, dst_size: extents (h, w) of the two regions.

    Raises:
        EdgeShapeError: the shapes do not fit together, or a cell lies outside its region.
    """

    src_cells: torch.Tensor
    dst_cells: torch.Tensor
    src_size: tuple[int, int]
    dst_size: tuple[int, int]

    def __post_init__(self) -> None:
        for name, size in (("src_cells", self.src_size), ("dst_cells", self.dst_size)):
            cells = getattr(self, name)
            if cells.dtype != torch.int64 or cells.dim() != 3 or cells.shape[2] != 3:
                raise EdgeShapeError(
                    f"{name}: expected int64 of shape (groups, rows, 3), "
                    f"got {cells.dtype} of shape {tuple(cells.shape)}"
                )
            if 0 in cells.shape:
                raise EdgeShapeError(
                    f"{name}: got {tuple(cells.shape)}: leave out groups that have no rows"
                )
            places = cells[..., 1:]
            if places.min() < 0 or (places >= places.new_tensor(size)).any():
                raise EdgeShapeError(
                    f"{name}: a cell lies outside its region of {size[0]}x{size[1]} cells; "
                    "h and w count from the region's own corner"
                )
        if self.src_cells.shape[0] != self.dst_cells.shape[0]:
            raise EdgeShapeError(
                "src_cells and dst_cells: expected the same number of groups, "
                f"got {self.src_cells.shape[0]} and {self.dst_cells.shape[0]}"
            )

    @property
    def groups(self) -> int:
        """G."""
        return self.src_cells.shape[0]

    @property
    def src_rows(self) -> int:
        """n."""
        return self.src_cells.shape[1]

    @property
    def dst_rows(self) -> int:
        """m."""
        return self.dst_cells.shape[1]


class EdgeFunction(StaticModule, ABC):
    """What a connection of one function type computes; the base class of all of them.

    It owns its projections, random at start. The zero gate and the connection's weight belong to
    whoever adds the result to the src rows. Src rows never see each other, nor does a group see
    another group's rows.

    Args:
        width: D, a multiple of heads.
        heads: H.
        geometries: one for each bucket of groups that have equally many rows.
        options: sizes.
    """

    def __init__(
        self, width: int, heads: int, geometries: Sequence[EdgeGeometry], options: EdgeOptions
    ) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise EdgeShapeError(
                f"width: expected a multiple of the heads, got width {width} and {heads} heads"
            )
        if not geometries:
            raise EdgeShapeError("geometries: expected at least one, got none")
        self.width = width
        self.heads = heads
        self.options = options

    @abstractmethod
    def forward(self, src: torch.Tensor, dst: torch.Tensor, bucket: int) -> torch.Tensor:
        """What the src rows read, (B, G, n, D).

        Args:
            src: (B, G, n, D) rows that ask, of the geometry `bucket`.
            dst: (B, G, m, D) rows that each group reads.
            bucket: index in the geometries.
        """

    def keep(self, name: str, tensors: Sequence[torch.Tensor]) -> None:
        """Keeps one static tensor for each bucket: it moves with the module, is never saved."""
        for bucket, tensor in enumerate(tensors):
            self.keep_static(**{f"{name}_{bucket}": tensor})

    def kept(self, name: str, bucket: int) -> torch.Tensor:
        """What `keep` kept for the bucket."""
        return self.get_buffer(f"{name}_{bucket}")
