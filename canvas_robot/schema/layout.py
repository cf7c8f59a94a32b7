"""CanvasLayout: the (T, H, W) grid and where each region lies in it, as plain integers.

No tensors live here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from canvas_robot.schema.region import RegionError, RegionSpec

MAX_POSITIONS = 2**20  # a slip of the pen must not fill the memory
Bounds = tuple[int, int, int, int, int, int]


class LayoutError(ValueError):
    """A grid size is wrong or a region does not lie inside the grid."""


class UnknownRegionError(KeyError):
    """A region is named that the layout does not declare."""

    def __str__(self) -> str:
        return self.args[0]


@dataclass
class CanvasLayout:
    """A canvas of T x H x W cells of `d_model` channels and its named regions.

    A raw 6-tuple is accepted for a region and means `RegionSpec(bounds)`. Cells are numbered
    t * H * W + h * W + w. Regions may overlap; what executes a layout refuses overlap.

    Args:
        T, H, W: grid extents in cells.
        d_model: token width.
        regions: name -> RegionSpec or bounds.
        t_current: canvas step of the current control tick; observed regions end there, action
            regions start there.

    Raises:
        LayoutError: an extent or the width is not a positive int, or a region leaves the grid.
    """

    T: int
    H: int
    W: int
    d_model: int
    regions: dict[str, RegionSpec | Bounds] = field(default_factory=dict)
    t_current: int = 0

    def __post_init__(self) -> None:
        for name in ("T", "H", "W", "d_model"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise LayoutError(f"{name}: expected an int >= 1, got {value!r}")
        if self.num_positions > MAX_POSITIONS:
            raise LayoutError(
                f"T, H, W: expected at most {MAX_POSITIONS} cells, got {self.num_positions}"
            )
        if not isinstance(self.t_current, int) or not 0 <= self.t_current < self.T:
            raise LayoutError(
                f"t_current: expected a canvas step in 0..{self.T - 1}, got {self.t_current!r}"
            )
        for name in self.regions:
            self._check_inside(name)

    @property
    def num_positions(self) -> int:
        """Number of cells of the whole grid."""
        return self.T * self.H * self.W

    def region_spec(self, name: str) -> RegionSpec:
        """The region's declaration; raises UnknownRegionError with the names there are."""
        if name not in self.regions:
            known = ", ".join(sorted(self.regions)) or "none"
            raise UnknownRegionError(
                f"region {name!r}: not in this layout; declared regions: {known}"
            )
        region = self.regions[name]
        if isinstance(region, RegionSpec):
            return region
        try:
            return RegionSpec(bounds=region)
        except RegionError as error:
            raise RegionError(f"region {name!r}: {error}") from error

    def region_size(self, name: str) -> tuple[int, int, int]:
        """Extent (t, h, w) in cells."""
        return self.region_spec(name).size

    def region_numel(self, name: str) -> int:
        """Number of cells."""
        return self.region_spec(name).numel

    def region_indices(self, name: str) -> list[int]:
        """Flat cell indices in (t, h, w) order."""
        t0, t1, *_ = self.region_spec(name).bounds
        return [index for t in range(t0, t1) for index in self.region_indices_at_t(name, t)]

    def region_indices_at_t(self, name: str, t_abs: int) -> list[int]:
        """Flat cell indices of one canvas step in (h, w) order; empty outside the region."""
        t0, t1, h0, h1, w0, w1 = self.region_spec(name).bounds
        if not t0 <= t_abs < t1:
            return []
        base = t_abs * self.H * self.W
        return [
            index
            for h in range(h0, h1)
            for index in range(base + h * self.W + w0, base + h * self.W + w1)
        ]

    def region_timesteps(self, name: str) -> list[int]:
        """Canvas steps that the region spans."""
        t0, t1, *_ = self.region_spec(name).bounds
        return list(range(t0, t1))

    def output_mask(self) -> list[int]:
        """Flat indices of all cells at or after t_current."""
        return list(range(self.t_current * self.H * self.W, self.num_positions))

    def real_frame(self, name: str, canvas_t: int) -> int:
        """Control tick, relative to canvas step 0, of the region's canvas step `canvas_t`."""
        return canvas_t * self.region_spec(name).period

    def canvas_frame(self, name: str, real_t: int) -> int | None:
        """Canvas step of control tick `real_t`; None where not aligned or outside the region."""
        spec = self.region_spec(name)
        canvas_t, remainder = divmod(real_t, spec.period)
        t0, t1, *_ = spec.bounds
        return canvas_t if remainder == 0 and t0 <= canvas_t < t1 else None

    def _check_inside(self, name: str) -> None:
        _, t1, _, h1, _, w1 = self.region_spec(name).bounds
        for axis, high, extent in (("T", t1, self.T), ("H", h1, self.H), ("W", w1, self.W)):
            if high > extent:
                raise LayoutError(
                    f"region {name!r}: expected bounds within {axis}={extent}, "
                    f"got an end of {high}; enlarge the grid or move the region"
                )
