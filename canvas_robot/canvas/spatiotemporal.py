"""SpatiotemporalCanvas: placing token vectors on the grid and extracting them.

Learned: empty token, modality vectors.
"""

from __future__ import annotations

import torch
from torch import nn

from canvas_robot.canvas.static import StaticModule
from canvas_robot.schema import CanvasLayout


class SpatiotemporalCanvas(StaticModule):
    """The grid as a tensor (B, N, d_model), N = T * H * W.

    Every cell starts as a learned empty token plus a 3D sinusoidal position; placed embeddings get
    the region's learned modality vector. Region names may hold any characters. Positions are
    float32, and so are an empty canvas and tokens where the parameters have half that precision.
    """

    def __init__(self, layout: CanvasLayout) -> None:
        super().__init__()
        self.layout = layout
        width = layout.d_model
        self.empty_token = nn.Parameter(torch.randn(width) * 0.02)
        self.modality = nn.ParameterList(
            nn.Parameter(torch.randn(width) * 0.02) for _ in range(len(layout.regions))
        )
        self._order = {name: i for i, name in enumerate(layout.regions)}
        for name, i in self._order.items():
            cells = torch.tensor(layout.region_indices(name), device="cpu")
            self.keep_static(**{f"cells_{i}": cells})
        self.keep_static(positions=sinusoidal_positions(layout))

    def create_empty(self, batch_size: int) -> torch.Tensor:
        """An empty canvas (B, N, d_model)."""
        return (self.empty_token + self.positions).expand(batch_size, -1, -1).clone()

    def place(self, canvas: torch.Tensor, embeddings: torch.Tensor, region: str) -> torch.Tensor:
        """A new canvas with embeddings (B, n, d_model) in the region's first n cells.

        The region's other cells are zero. Embeddings beyond the region's size are cut. The canvas
        keeps its precision, whichever that of embeddings and parameters is.
        """
        cells = self._cells(region)
        embeddings = embeddings[:, : len(cells)]
        padded = embeddings.new_zeros(embeddings.shape[0], len(cells), embeddings.shape[2])
        padded[:, : embeddings.shape[1]] = embeddings
        placed = canvas.clone()
        placed[:, cells] = (padded + self.modality[self._order[region]]).to(placed.dtype)
        return placed

    def extract(self, canvas: torch.Tensor, region: str) -> torch.Tensor:
        """The region's tokens (B, n, d_model) in (t, h, w) order.

        The inverse of `place` but for the modality vector.
        """
        return canvas[:, self._cells(region)]

    def tokens(self, embeddings: torch.Tensor, region: str) -> torch.Tensor:
        """Input tokens (B, n, d_model) of the region's first n cells, for embeddings of that shape.

        They are the embeddings on top of what the empty canvas holds.
        """
        return (
            self.empty_token
            + self.positions[self._cells(region)[: embeddings.shape[1]]]
            + embeddings
            + self.modality[self._order[region]]
        )

    def _cells(self, region: str) -> torch.Tensor:
        """(n,) flat indices of the region's cells."""
        self.layout.region_spec(region)  # an unknown name is refused with those that there are
        return getattr(self, f"cells_{self._order[region]}")


def sinusoidal_positions(layout: CanvasLayout) -> torch.Tensor:
    """(N, d_model) fixed positions: sine and cosine of t, h and w; on the CPU.

    The width is split in three, one part for each.
    """
    sizes = _split_width(layout.d_model)
    grid = torch.meshgrid(
        *(torch.arange(float(n), device="cpu") for n in (layout.T, layout.H, layout.W)),
        indexing="ij",
    )
    parts = [_sinusoid(axis.reshape(-1), size) for axis, size in zip(grid, sizes, strict=True)]
    return torch.cat(parts, dim=1)


def _split_width(width: int) -> tuple[int, int, int]:
    third = width // 3
    return width - 2 * third, third, third


def _sinusoid(position: torch.Tensor, size: int) -> torch.Tensor:
    channel = torch.arange(size, device="cpu")
    rate = 10000.0 ** (-2.0 * (channel // 2) / max(size, 1))
    angle = position[:, None] * rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())
