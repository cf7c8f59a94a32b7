"""Connection and CanvasTopology: who reads whom.

Declarations only; executing them lives in the policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from canvas_robot.schema.attention_types import require_attention_type
from canvas_robot.schema.layout import CanvasLayout


class TopologyError(ValueError):
    """A connection's own declaration is wrong."""


@dataclass(frozen=True)
class Connection:
    """`src` tokens (queries) read `dst` tokens (keys and values).

    Args:
        src, dst: region names.
        weight: attention weight, >= 0; shifts each key's logit by log(weight), 0 removes the edge.
        t_src, t_dst: canvas-step offsets from a shared reference step; both None is dense in time;
            both ints pair rows at ref + t_src with columns at ref + t_dst for every ref; one None
            lets that side take all its steps.
        fn: function type; None means the src region's `default_attn`.
    """

    src: str
    dst: str
    weight: float = 1.0
    t_src: int | None = None
    t_dst: int | None = None
    fn: str | None = None

    def __post_init__(self) -> None:
        label = f"connection {self.src!r} -> {self.dst!r}"
        for name in ("src", "dst"):
            if not isinstance(getattr(self, name), str):
                raise TopologyError(f"{label}: expected a region's name as {name}")
        if (
            not isinstance(self.weight, int | float)
            or not math.isfinite(self.weight)
            or self.weight < 0
        ):
            raise TopologyError(f"{label}: expected a finite weight >= 0, got {self.weight!r}")
        for name in ("t_src", "t_dst"):
            offset = getattr(self, name)
            if offset is not None and (not isinstance(offset, int) or isinstance(offset, bool)):
                raise TopologyError(f"{label}: {name}: expected canvas steps, got {offset!r}")
        if self.fn is not None:
            require_attention_type(self.fn, where=label)


@dataclass
class CanvasTopology:
    """A list of connections; the declared compute graph of a canvas."""

    connections: list[Connection] = field(default_factory=list)

    @classmethod
    def dense(cls, regions: list[str]) -> CanvasTopology:
        """Every region reads every region, itself included."""
        return cls([Connection(src, dst) for src in regions for dst in regions])

    @classmethod
    def isolated(cls, regions: list[str]) -> CanvasTopology:
        """Every region reads only itself."""
        return cls([Connection(name, name) for name in regions])

    @property
    def regions(self) -> set[str]:
        """Names of all regions that any connection names."""
        return {name for c in self.connections for name in (c.src, c.dst)}

    def resolve_fn(self, connection: Connection, layout: CanvasLayout | None = None) -> str:
        """The connection's own type, else the src region's default, else cross_attention."""
        if connection.fn is not None:
            return connection.fn
        if layout is not None and connection.src in layout.regions:
            return layout.region_spec(connection.src).default_attn
        return "cross_attention"

    def __repr__(self) -> str:
        return f"CanvasTopology({len(self.connections)} connections)"
