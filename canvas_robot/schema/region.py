"""RegionSpec: one named box of the canvas and what is declared about it.

No geometry of the grid lives here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from canvas_robot.schema.attention_types import require_attention_type
from canvas_robot.schema.plain import MOST_INT, plain_int, plain_list, plain_number, shown

MOST_LOSS_WEIGHT = 1e30  # sums of float32 losses stay finite
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
            loss weight outside 0..1e30, an unknown stream, a negative timestep, or a value of
            another type. Numbers of numpy's types are taken and stored as plain ones.
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
        self._store("bounds", _checked_bounds(self.bounds))
        self._store("period", self._count("period", 1, ">= 1 (control ticks)"))
        self._store("timestep", self._count("timestep", 0, ">= 0 (0 is clean)"))
        if self.loops is not None:
            self._store("loops", self._count("loops", 1, ">= 1 or nothing"))
        weight = plain_number(self.loss_weight)
        if weight is None or not 0 <= weight <= MOST_LOSS_WEIGHT:
            raise RegionError(
                f"loss_weight: expected a number from 0 to {MOST_LOSS_WEIGHT:g}, "
                f"got {shown(self.loss_weight)}"
            )
        self._store("loss_weight", weight)
        if self.stream not in STREAMS:
            raise RegionError(f"stream: expected one of {STREAMS}, got {shown(self.stream)}")
        for name in ("is_output", "hold"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise RegionError(f"{name}: expected true or false, got {shown(value)}")
        if self.semantic_type is not None and not isinstance(self.semantic_type, str):
            raise RegionError(
                f"semantic_type: expected words or nothing, got {shown(self.semantic_type)}"
            )
        if not isinstance(self.embedding_model, str) or not self.embedding_model:
            raise RegionError(
                f"embedding_model: expected a model's name, got {shown(self.embedding_model)}"
            )
        if self.semantic_embedding is not None:
            self._store("semantic_embedding", _checked_embedding(self.semantic_embedding))
        require_attention_type(self.default_attn, where="default_attn")

    def _store(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _count(self, name: str, low: int, what: str) -> int:
        declared = getattr(self, name)
        value = plain_int(declared)
        if value is None or value < low:
            raise RegionError(f"{name}: expected an int {what}, got {shown(declared)}")
        if value > MOST_INT:
            raise RegionError(f"{name}: expected at most {MOST_INT}, got {shown(declared)}")
        return value

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


def _checked_embedding(declared: object) -> tuple[float, ...]:
    values = [plain_number(value) for value in plain_list(declared) or ()]
    limit = sys.float_info.max
    if plain_list(declared) is None or not all(v is not None and abs(v) <= limit for v in values):
        raise RegionError(
            f"semantic_embedding: expected a list of finite numbers, got {shown(declared)}"
        )
    return tuple(values)


def _checked_bounds(declared: object) -> tuple[int, int, int, int, int, int]:
    bounds = tuple(plain_int(bound) for bound in plain_list(declared) or ())
    if len(bounds) != 6 or None in bounds:
        raise RegionError(
            f"bounds: expected six ints (t0, t1, h0, h1, w0, w1), got {shown(declared)}"
        )
    for axis, low, high in zip("thw", bounds[::2], bounds[1::2], strict=True):
        if not 0 <= low < high:
            raise RegionError(
                f"bounds: expected 0 <= {axis}0 < {axis}1 (half open), "
                f"got {axis}0={shown(low)}, {axis}1={shown(high)}"
            )
    return bounds
