"""RegionSpec: one named box of the canvas and what is declared about it.

No geometry of the grid lives here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from canvas_robot.schema.attention_types import require_attention_type

STREAMS = ("video", "text")


class RegionError(ValueError):
    """A region's own declaration is wrong, whatever canvas it would be placed on."""


@dataclass(frozen=True)
class RegionSpec:
    """A box of the canvas: bounds, clock, role in the loss, meaning and default attention.

    Args:
        bounds: (t0, t1, h0, h1, w0, w1), half open, in canvas cells.
        period: control ticks between two refreshes; canvas step t is real frame t * period.
        is_output: whether the model produces this region (otherwise it observes it).
        loss_weight: weight of the region's positions in the training loss.
        semantic_type: human-readable meaning, e.g. "RGB video 256x256 from a fixed camera".
        semantic_embedding: embedding of `semantic_type` by `embedding_model`.
        embedding_model: name of the model that made the embedding.
        default_attn: function type of this region's outgoing connections that name none.
        stream: stream of the backbone that carries the tokens, "text" (the goal) or "video".
        timestep: diffusion timestep of the region's tokens; 0 is clean.
        hold: keep keys and values as of the region's own last refresh, even where it reads regions
            that changed since: another function, to be trained as such.
        loops: times each backbone block runs for this region's tokens; None: as often as for all.

    Raises:
        RegionError: bounds that are empty or not six non-negative ints, period or loops < 1, a
            non-finite or negative loss weight, an unknown stream or a negative timestep.
        UnknownAttentionTypeError: `default_attn` is not one of ATTENTION_TYPES.
    """

    bounds: tuple[int, int, int, int, int, int]
    period: int = 1
    is_output: bool = True
    loss_weight: float = 1.0
    semantic_type: str | None = None
    semantic_embedding: tuple[float, ...] | None = None
    embedding_model: str = "openai/text-embedding-3-small"
    default_attn: str = "cross_attention"
    stream: str = "video"
    timestep: int = 0
    hold: bool = False
    loops: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", _checked_bounds(self.bounds))
        if not _is_int(self.period) or self.period < 1:
            raise RegionError(f"period: expected an int >= 1 (control ticks), got {self.period!r}")
        if not _is_number(self.loss_weight) or not 0.0 <= self.loss_weight < float("inf"):
            raise RegionError(
                f"loss_weight: expected a finite number >= 0, got {self.loss_weight!r}"
            )
        if self.stream not in STREAMS:
            raise RegionError(f"stream: expected one of {STREAMS}, got {self.stream!r}")
        if not _is_int(self.timestep) or self.timestep < 0:
            raise RegionError(f"timestep: expected an int >= 0 (0 is clean), got {self.timestep!r}")
        if not isinstance(self.hold, bool):
            raise RegionError(f"hold: expected true or false, got {self.hold!r}")
        if self.loops is not None and (not _is_int(self.loops) or self.loops < 1):
            raise RegionError(f"loops: expected an int >= 1 or nothing, got {self.loops!r}")
        if self.semantic_embedding is not None:
            if not _are_numbers(self.semantic_embedding):
                raise RegionError(
                    "semantic_embedding: expected a list of finite numbers, "
                    f"got {self.semantic_embedding!r}"
                )
            object.__setattr__(self, "semantic_embedding", tuple(self.semantic_embedding))
        require_attention_type(self.default_attn, where="default_attn")

    @property
    def size(self) -> tuple[int, int, int]:
        """Extent (t, h, w) in cells."""
        t0, t1, h0, h1, w0, w1 = self.bounds
        return t1 - t0, h1 - h0, w1 - w0

    @property
    def numel(self) -> int:
        """Number of cells."""
        t, h, w = self.size
        return t * h * w


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and all(
        _is_number(v) and abs(v) <= sys.float_info.max for v in values
    )


def _checked_bounds(bounds) -> tuple[int, int, int, int, int, int]:
    bounds = tuple(bounds) if isinstance(bounds, list | tuple) else (bounds,)
    if len(bounds) != 6 or not all(_is_int(b) for b in bounds):
        raise RegionError(f"bounds: expected six ints (t0, t1, h0, h1, w0, w1), got {bounds!r}")
    for axis, low, high in zip("thw", bounds[::2], bounds[1::2], strict=True):
        if not 0 <= low < high:
            raise RegionError(
                f"bounds: expected 0 <= {axis}0 < {axis}1 (half open), "
                f"got {axis}0={low}, {axis}1={high}"
            )
    return bounds
