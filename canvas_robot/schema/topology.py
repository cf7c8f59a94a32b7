"""Connection and CanvasTopology: who reads whom, by region, and as a dense mask.

Declarations only: running them lives in `canvas_robot.canvas.attention`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from canvas_robot.schema.attention_types import require_attention_type
from canvas_robot.schema.layout import CanvasLayout
from canvas_robot.schema.plain import MOST_INT, plain_int, plain_number, shown

if TYPE_CHECKING:
    import torch

# Any weight but 0. Its logarithm, and what it multiplies, must stay finite and above 0 in float32.
WEIGHTS = (1e-30, 1e30)


class TopologyError(ValueError):
    """A connection's own declaration is wrong."""


@dataclass(frozen=True)
class Connection:
    """`src` tokens (queries) read `dst` tokens (keys and values).

    Args:
        src, dst: region names.
        weight: 0, which removes the edge, or 1e-30 to 1e30; shifts each key's logit by log(weight).
        t_src, t_dst: canvas-step offsets from a shared reference step; both None is dense in time;
            both ints pair rows at ref + t_src with columns at ref + t_dst for every ref; one None
            lets that side take all its steps.
        fn: function type; None means the src region's `default_attn`.

    Raises:
        TopologyError: a name, weight or offset that is none.
        UnknownAttentionTypeError: `fn` is not one of ATTENTION_TYPES.
    """

    src: str
    dst: str
    weight: float = 1.0
    t_src: int | None = None
    t_dst: int | None = None
    fn: str | None = None

    def __post_init__(self) -> None:
        for name in ("src", "dst"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TopologyError(
                    f"{self._label}: {name}: expected a region's name, got {shown(value)}"
                )
        weight = plain_number(self.weight)
        if weight is None or not (weight == 0 or WEIGHTS[0] <= weight <= WEIGHTS[1]):
            raise TopologyError(
                f"{self._label}: weight: expected 0 or a number from {WEIGHTS[0]:g} to "
                f"{WEIGHTS[1]:g}, got {shown(self.weight)}"
            )
        object.__setattr__(self, "weight", weight)
        for name in ("t_src", "t_dst"):
            offset = getattr(self, name)
            if offset is None:
                continue
            steps = plain_int(offset)
            if steps is None or abs(steps) > MOST_INT:
                raise TopologyError(
                    f"{self._label}: {name}: expected canvas steps, an int, got {shown(offset)}"
                )
            object.__setattr__(self, name, steps)
        if self.fn is not None:
            require_attention_type(self.fn, where=self._label)

    @property
    def _label(self) -> str:
        return f"connection {shown(self.src)} -> {shown(self.dst)}"

    @property
    def temporal(self) -> bool:
        """Whether an offset says which canvas steps pair up."""
        return self.t_src is not None or self.t_dst is not None

    def readable_steps(self, t: int, T: int) -> range:
        """Canvas steps of dst that a src row at canvas step `t` reads, on a canvas of T steps.

        Some reference step in 0..T-1 must put the row at reference + t_src and the column at
        reference + t_dst.
        """
        if self.t_src is not None and not 0 <= t - self.t_src < T:
            return range(0)
        if self.t_dst is None:
            return range(T)
        if self.t_src is None:
            return range(max(0, self.t_dst), min(T, T + self.t_dst))
        column = t - self.t_src + self.t_dst
        return range(column, column + 1) if 0 <= column < T else range(0)


@dataclass
class CanvasTopology:
    """A list of connections; the declared compute graph of a canvas.

    Raises TopologyError for what is no list of connections.
    """

    connections: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.connections, list | tuple):
            raise TopologyError(
                f"connections: expected a list of Connection, got {shown(self.connections)}"
            )
        for i, connection in enumerate(self.connections):
            if not isinstance(connection, Connection):
                raise TopologyError(
                    f"connections[{i}]: expected a Connection, got {shown(connection)}; "
                    "a file's JSON form is read by CanvasSchema.from_dict"
                )
        self.connections = list(self.connections)

    @classmethod
    def dense(cls, regions: list[str]) -> CanvasTopology:
        """Every region reads every region, itself included."""
        return cls([Connection(src, dst) for src in regions for dst in regions])

    @classmethod
    def isolated(cls, regions: list[str]) -> CanvasTopology:
        """Every region reads only itself."""
        return cls([Connection(name, name) for name in regions])

    @classmethod
    def hub_spoke(cls, hub: str, spokes: list[str], bidirectional: bool = True) -> CanvasTopology:
        """Everyone reads itself and the hub reads the spokes; `bidirectional`: they read it too."""
        connections = [Connection(name, name) for name in [hub, *spokes]]
        for spoke in spokes:
            connections.append(Connection(hub, spoke))
            if bidirectional:
                connections.append(Connection(spoke, hub))
        return cls(connections)

    @classmethod
    def causal_chain(cls, regions: list[str]) -> CanvasTopology:
        """Every region reads itself and the one before it in the list."""
        chain = zip(regions[1:], regions, strict=False)
        return cls([*cls.isolated(regions).connections, *(Connection(s, d) for s, d in chain)])

    @classmethod
    def causal_temporal(cls, regions: list[str]) -> CanvasTopology:
        """Every region reads itself at the same canvas step, and all regions one step before."""
        itself = [Connection(name, name, t_src=0, t_dst=t) for name in regions for t in (0, -1)]
        others = [Connection(s, d, t_src=0, t_dst=-1) for s in regions for d in regions if s != d]
        return cls(itself + others)

    @property
    def regions(self) -> set[str]:
        """Names of all regions that any connection names."""
        return {name for c in self.connections for name in (c.src, c.dst)}

    @property
    def has_temporal_constraints(self) -> bool:
        """Whether any connection has a time offset."""
        return any(c.temporal for c in self.connections)

    def resolve_fn(self, connection: Connection, layout: CanvasLayout | None = None) -> str:
        """The connection's own type, else the src region's default, else cross_attention."""
        if connection.fn is not None:
            return connection.fn
        if layout is not None and connection.src in layout.regions:
            return layout.region_spec(connection.src).default_attn
        return "cross_attention"

    def attention_ops(
        self, layout: CanvasLayout | None = None
    ) -> list[tuple[str, str, float, str]]:
        """(src, dst, weight, function type) of every connection, in order."""
        return [(c.src, c.dst, c.weight, self.resolve_fn(c, layout)) for c in self.connections]

    def neighbors_of(self, region: str) -> list[str]:
        """What `region` reads: dst of each of its connections, in order."""
        return [c.dst for c in self.connections if c.src == region]

    def attended_by(self, region: str) -> list[str]:
        """Who reads `region`: src of each connection to it, in order."""
        return [c.src for c in self.connections if c.dst == region]

    def to_block_adjacency(self) -> dict[tuple[str, str], float]:
        """(src, dst) -> largest weight of the connections between them."""
        adjacency: dict[tuple[str, str], float] = {}
        for c in self.connections:
            adjacency[c.src, c.dst] = max(adjacency.get((c.src, c.dst), 0.0), c.weight)
        return adjacency

    def to_attention_mask(
        self, layout: CanvasLayout, device: str | torch.device = "cpu"
    ) -> torch.Tensor:
        """The dense mask (N, N), float32: row i reads column j with that weight; 0 is no edge.

        An entry is the largest weight of the connections that allow it, whatever their type.
        Regions that the layout lacks are ignored. It is a reference and a picture: what runs is
        `compile_plan`'s block form.
        """
        import torch

        sources = defaultdict(list)
        for c in self.connections:
            if c.src in layout.regions and c.dst in layout.regions:
                sources[c.src].append(c)
        shape = (layout.T, layout.H, layout.W)
        covered = torch.zeros(shape, dtype=torch.bool)
        for name in sources:
            covered[layout.box(name)] = True
        apart = int(covered.sum()) == sum(layout.region_numel(name) for name in sources)
        n = layout.num_positions
        if apart:  # every row is written once
            mask = torch.empty(n, n, device=device)
            mask.index_fill_(0, (~covered).flatten().nonzero().flatten().to(device), 0.0)
        else:
            mask = torch.zeros(n, n, device=device)
        rows = mask.view(*shape, n)
        for name, connections in sources.items():
            for steps, readable in _rows_of_steps(layout, name, connections):
                row = torch.zeros(shape, device=device)
                for dst, columns, weight in readable:
                    row[columns, *layout.box(dst)[1:]].clamp_(min=weight)
                block = rows[steps, *layout.box(name)[1:]]
                if apart:
                    block.copy_(row.view(n).expand_as(block))
                else:
                    torch.maximum(block, row.view(n), out=block)
        return mask

    def summary(self) -> str:
        """A line with the numbers of ops and regions, then a line for each pair of regions."""
        adjacency = self.to_block_adjacency()
        lines = [f"CanvasTopology: {len(self.connections)} ops, {len(self.regions)} regions"]
        for (src, dst), weight in sorted(adjacency.items()):
            if src == dst:
                lines.append(f"  {src} ↺ self  (weight {weight:g})")
            else:
                arrow = "↔" if (dst, src) in adjacency else "→"
                lines.append(f"  {src} {arrow} {dst}  (weight {weight:g})")
        if self.has_temporal_constraints:
            count = sum(c.temporal for c in self.connections)
            lines.append(f"  {count} temporal constraints")
        return "\n".join(lines)

    def __repr__(self) -> str:
        names = sorted(self.regions)
        return f"CanvasTopology(connections={len(self.connections)}, regions={names})"


def _rows_of_steps(
    layout: CanvasLayout, name: str, connections: list[Connection]
) -> list[tuple[slice, list[tuple[str, slice, float]]]]:
    """Runs of canvas steps of a region whose rows read the same, with what they read.

    What they read: (dst region, its canvas steps, weight); of duplicates the largest weight.
    """
    runs: list[tuple[slice, dict]] = []
    for t in layout.region_timesteps(name):
        readable: dict[tuple[str, int, int], float] = {}
        for c in connections:
            steps = c.readable_steps(t, layout.T)
            t0, t1, *_ = layout.region_spec(c.dst).bounds
            key = (c.dst, max(t0, steps.start), min(t1, steps.stop))
            if key[1] < key[2]:
                readable[key] = max(readable.get(key, 0.0), c.weight)
        if runs and runs[-1][1] == readable:
            runs[-1] = (slice(runs[-1][0].start, t + 1), readable)
        else:
            runs.append((slice(t, t + 1), readable))
    return [
        (steps, [(dst, slice(a, b), weight) for (dst, a, b), weight in readable.items()])
        for steps, readable in runs
    ]
