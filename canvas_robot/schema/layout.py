"""CanvasLayout: the (T, H, W) grid and where each region lies in it, as plain integers.

The one tensor made here, the loss weights, is only filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from canvas_robot.schema.plain import MOST_INT, plain_int, shown, unsafe_characters
from canvas_robot.schema.region import RegionError, RegionSpec

if TYPE_CHECKING:
    import torch

MAX_POSITIONS = 2**20  # a slip of the pen must not fill the memory
MAX_NAME = 200  # characters
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
        regions: name -> RegionSpec or bounds; names are any text that can be printed safely.
        t_current: canvas step of the current control tick; observed regions end there, action
            regions start there.

    Raises:
        LayoutError: an extent or the width is not a positive int, a region leaves the grid, or a
            name is empty, longer than 200 characters or holds control characters.
    """

    T: int
    H: int
    W: int
    d_model: int
    regions: dict[str, RegionSpec | Bounds] = field(default_factory=dict)
    t_current: int = 0

    def __post_init__(self) -> None:
        for name in ("T", "H", "W", "d_model"):
            setattr(self, name, self._extent(name))
        if self.num_positions > MAX_POSITIONS:
            raise LayoutError(
                f"T, H, W: expected at most {MAX_POSITIONS} cells, got {self.num_positions}"
            )
        now = plain_int(self.t_current)
        if now is None or not 0 <= now < self.T:
            raise LayoutError(
                f"t_current: expected a canvas step in 0..{self.T - 1}, got {shown(self.t_current)}"
            )
        self.t_current = now
        if not isinstance(self.regions, Mapping):
            raise LayoutError(
                "regions: expected a dict, name -> RegionSpec or bounds, "
                f"got {type(self.regions).__name__}"
            )
        for name in self.regions:
            _check_name(name)
            self._check_inside(name)
        self.regions = {
            name: region if isinstance(region, RegionSpec) else self.region_spec(name).bounds
            for name, region in self.regions.items()
        }

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
            if isinstance(region, tuple) and all(type(bound) is int for bound in region):
                return _with_defaults(region)
            return RegionSpec(region)
        except RegionError as error:
            raise RegionError(f"region {name!r}: {error}") from error

    def region_size(self, name: str) -> tuple[int, int, int]:
        """Extent (t, h, w) in cells."""
        return self.region_spec(name).size

    def region_numel(self, name: str) -> int:
        """Number of cells."""
        return self.region_spec(name).numel

    def box(self, name: str) -> tuple[slice, slice, slice]:
        """The region as slices (t, h, w) of a (T, H, W) grid."""
        t0, t1, h0, h1, w0, w1 = self.region_spec(name).bounds
        return slice(t0, t1), slice(h0, h1), slice(w0, w1)

    def region_indices(self, name: str) -> list[int]:
        """Flat cell indices in (t, h, w) order."""
        t0, t1, h0, h1, w0, w1 = self.region_spec(name).bounds
        return self._indices(range(t0, t1), range(h0, h1), w0, w1)

    def region_indices_at_t(self, name: str, t_abs: int) -> list[int]:
        """Flat cell indices of one canvas step in (h, w) order; empty outside the region."""
        t0, t1, h0, h1, w0, w1 = self.region_spec(name).bounds
        return self._indices([t_abs], range(h0, h1), w0, w1) if t0 <= t_abs < t1 else []

    def region_timesteps(self, name: str) -> list[int]:
        """Canvas steps that the region spans."""
        t0, t1, *_ = self.region_spec(name).bounds
        return list(range(t0, t1))

    def output_mask(self) -> list[int]:
        """Flat indices of all cells at or after t_current."""
        return list(range(self.t_current * self.H * self.W, self.num_positions))

    def loss_weight_mask(self, device: str | torch.device = "cpu") -> torch.Tensor:
        """(N,) float32: the sum of `loss_weight` over the output regions that cover a cell."""
        import torch

        weights = torch.zeros(self.T, self.H, self.W, device=device)
        for name in self.regions:
            spec = self.region_spec(name)
            if spec.is_output:
                weights[self.box(name)] += spec.loss_weight
        return weights.flatten()

    def real_frame(self, name: str, canvas_t: int) -> int:
        """Control tick of the region's canvas step `canvas_t`, both counted from its first step."""
        return canvas_t * self.region_spec(name).period

    def canvas_frame(self, name: str, real_t: int) -> int | None:
        """The inverse of `real_frame`: the region's canvas step, counted from its first one.

        None where the tick is not aligned with the period or outside the region's extent.
        """
        canvas_t, remainder = divmod(real_t, self.region_spec(name).period)
        inside = 0 <= canvas_t < self.region_size(name)[0]
        return canvas_t if remainder == 0 and inside else None

    def _indices(self, steps, lines, w0: int, w1: int) -> list[int]:
        """Flat indices of the cells w0..w1-1 of each line h of each canvas step."""
        starts = ((t * self.H + h) * self.W for t in steps for h in lines)
        return list(chain.from_iterable(range(s + w0, s + w1) for s in starts))

    def _extent(self, name: str) -> int:
        declared = getattr(self, name)
        value = plain_int(declared)
        if value is None or value < 1:
            raise LayoutError(f"{name}: expected an int >= 1, got {shown(declared)}")
        if value > MOST_INT:
            raise LayoutError(f"{name}: expected at most {MOST_INT}, got {shown(declared)}")
        return value

    def _check_inside(self, name: str) -> None:
        _, t1, _, h1, _, w1 = self.region_spec(name).bounds
        for axis, high, extent in (("T", t1, self.T), ("H", h1, self.H), ("W", w1, self.W)):
            if high > extent:
                raise LayoutError(
                    f"region {name!r}: expected bounds within {axis}={extent}, "
                    f"got an end of {shown(high)}; enlarge the grid or move the region"
                )


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise LayoutError(f"regions: expected names of at least one character, got {shown(name)}")
    if len(name) > MAX_NAME:
        raise LayoutError(
            f"region {name[:20]!r}...: expected a name of at most {MAX_NAME} characters, "
            f"got {len(name)}"
        )
    unsafe = unsafe_characters(name)
    if unsafe:
        raise LayoutError(
            f"region {name!r}: expected a name that can be printed safely, got {unsafe!r} in it; "
            "leave that out"
        )


@lru_cache(maxsize=1024)
def _with_defaults(bounds: Bounds) -> RegionSpec:
    """What raw bounds mean; cached, because layouts are asked for it again and again."""
    return RegionSpec(bounds)
