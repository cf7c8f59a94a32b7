"""compile_plan: a schema as plain integers, which rows are computed and which rows they read.

No tensors and no heavy imports: applying a plan lives in `canvas_robot.policy`.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from itertools import chain, combinations
from operator import or_
from typing import NamedTuple

from canvas_robot.schema.layout import CanvasLayout
from canvas_robot.schema.plain import plain_int, shown
from canvas_robot.schema.schema import CanvasSchema
from canvas_robot.schema.topology import Connection

Run = tuple[int, int]  # rows start..stop-1 of the compact row buffer


class PlanError(ValueError):
    """A schema cannot be executed as declared."""


class OverlapError(PlanError):
    """Two regions claim the same cell."""


@dataclass(frozen=True)
class RegionRows:
    """Where a region's covered tokens lie in the compact row buffer, and when they are computed.

    `cells` are the flat canvas indices of the covered tokens, in row order; row start + i holds
    cell cells[i]. `reads` are the names of the regions that any of its rows reads, by whatever
    connection.
    """

    name: str
    start: int
    stop: int
    period: int
    stream: str
    cells: tuple[int, ...]
    loops: int = 1
    hold: bool = False
    reads: tuple[str, ...] = ()


class RowGroup(NamedTuple):
    """Contiguous rows that share stream, timestep, loops and readable set: one mask-free softmax.

    `weights` holds one attention weight per run of `reads`; the logits of a run's keys are shifted
    by its logarithm. The runs are sorted and do not overlap.
    """

    start: int
    stop: int
    stream: str
    timestep: int
    reads: tuple[Run, ...]
    weights: tuple[float, ...]
    loops: int = 1


class EdgeBlock(NamedTuple):
    """Contiguous src rows of a residual edge and the dst rows that each of them reads."""

    start: int
    stop: int
    reads: tuple[Run, ...]


@dataclass(frozen=True)
class ResidualEdge:
    """A connection of any other type than cross_attention: it adds to its src rows."""

    src: str
    dst: str
    fn: str
    weight: float
    blocks: tuple[EdgeBlock, ...]

    def __str__(self) -> str:
        return f"{self.src} -> {self.dst} ({self.fn})"


@dataclass(frozen=True)
class Plan:
    """The executable form of a schema.

    Rows are the covered tokens only, regions sorted slow to fast. Every group reads whole runs of
    rows. Residual edges come in the order of their connections.
    """

    n_rows: int
    loops: int
    regions: tuple[RegionRows, ...]
    groups: tuple[RowGroup, ...]
    edges: tuple[ResidualEdge, ...] = ()

    def region(self, name: str) -> RegionRows:
        """The rows of one region; raises KeyError for a region the plan lacks."""
        found = next((r for r in self.regions if r.name == name), None)
        if found is None:
            raise KeyError(f"region {name!r}: not in this plan: {[r.name for r in self.regions]}")
        return found

    def refreshed(self, tick: int) -> tuple[str, ...]:
        """Names of the regions that take new observations at control tick `tick` since reset."""
        return tuple(r.name for r in self.regions if tick % r.period == 0)

    def __str__(self) -> str:
        counts = ((self.n_rows, "row"), (len(self.groups), "group"), (self.loops, "loop"))
        lines = [f"plan: {', '.join(_counted(*count) for count in counts)}"]
        for r in self.regions:
            lines.append(
                f"  region {r.name}: rows {r.start}..{r.stop - 1}, period {r.period}, {r.stream}"
                + (", held" if r.hold else "")
                + (f", {_counted(r.loops, 'loop')}" if r.loops != self.loops else "")
            )
        for g in self.groups:
            lines.append(
                f"  rows {g.start}..{g.stop - 1} ({g.stream}, timestep {g.timestep}) "
                f"read {_described(g.reads, g.weights)}"
            )
        for e in self.edges:
            lines.append(f"  edge {e}, weight {e.weight:g}")
            lines += [
                f"    rows {b.start}..{b.stop - 1} read {_described(b.reads)}" for b in e.blocks
            ]
        return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _described(reads: tuple[Run, ...], weights: tuple[float, ...] | None = None) -> str:
    runs = [
        f"{a}..{b - 1}" + (f" x{weight:g}" if weight != 1.0 else "")
        for (a, b), weight in zip(reads, weights or (1.0,) * len(reads), strict=True)
    ]
    return ", ".join(runs) or "nothing"


def compile_plan(
    schema: CanvasSchema, loops: int = 1, tokens: dict[str, int] | None = None
) -> Plan:
    """Compiles a schema to row groups, residual edges and the runs of rows that each reads.

    Args:
        schema: the declaration.
        loops: times each backbone block runs.
        tokens: tokens that each region's codec makes, by region name; a region that is not named
            is covered whole. The first n cells in index order hold the tokens.

    Raises:
        OverlapError: two regions share a cell; both and the first shared cell are named.
        PlanError: no schema, loops < 1, a token count that does not fit or is no int, or the boxes
            of a copy do not match.
    """
    if not isinstance(schema, CanvasSchema):
        raise PlanError(
            f"schema: expected a CanvasSchema, got {type(schema).__name__}; "
            "CanvasSchema(layout, topology) makes one"
        )
    count = plain_int(loops)
    if count is None or count < 1:
        raise PlanError(f"loops: expected an int >= 1, got {shown(loops)}")
    layout = schema.layout
    _refuse_overlap(layout)
    regions = _place_rows(layout, count, _checked_tokens(layout, tokens))
    steps = _Steps(layout, regions)
    softmax, others = _sorted_by_kind(schema)
    edges = tuple(filter(None, (_edge(fn, connection, steps) for fn, connection in others)))
    groups: list[RowGroup] = []
    finished: list[RegionRows] = []
    for region in regions:
        made, seen = _groups(region, softmax[region.name], steps)
        groups += made
        read = steps.regions_in(seen) | {e.dst for e in edges if e.src == region.name}
        finished.append(replace(region, reads=tuple(sorted(read))))
    return Plan(steps.n_rows, count, tuple(finished), joined(groups), edges)


def _checked_tokens(layout: CanvasLayout, tokens: Mapping[str, int] | None) -> dict[str, int]:
    if tokens is None:
        return {}
    if not isinstance(tokens, Mapping):
        raise PlanError(f"tokens: expected a dict, region -> tokens, got {shown(tokens)}")
    unknown = [name for name in tokens if name not in layout.regions]
    if unknown:
        raise PlanError(
            f"tokens: names regions {shown(sorted(unknown, key=str))} that the layout lacks"
        )
    counts = {name: plain_int(count) for name, count in tokens.items()}
    for name, count in counts.items():
        if count is None:
            raise PlanError(
                f"region {name!r}: expected an int of tokens, got {shown(tokens[name])}"
            )
    return counts


def _refuse_overlap(layout: CanvasLayout) -> None:
    boxes = [(name, layout.region_spec(name).bounds) for name in layout.regions]
    for (first, a), (second, b) in combinations(boxes, 2):
        if (
            a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
            and a[4] < b[5] and b[4] < a[5]
        ):  # fmt: skip
            cell = tuple(max(a[axis], b[axis]) for axis in (0, 2, 4))
            raise OverlapError(
                f"regions {first!r} and {second!r} overlap, first at cell (t, h, w) = {cell}; "
                "move one of them"
            )


def _place_rows(layout: CanvasLayout, loops: int, tokens: dict[str, int]) -> list[RegionRows]:
    order = sorted(layout.regions, key=lambda name: -layout.region_spec(name).period)
    rows, start = [], 0
    for name in order:
        spec = layout.region_spec(name)
        count = tokens.get(name, spec.numel)
        if not 0 < count <= spec.numel:
            raise PlanError(
                f"region {name!r}: its codec makes {shown(count)} tokens, its box {spec.size} "
                f"holds 1..{spec.numel}; enlarge the box or choose another codec"
            )
        own_loops = min(spec.loops or loops, loops)
        rows.append(
            RegionRows(
                name,
                start,
                start + count,
                spec.period,
                spec.stream,
                tuple(layout.region_indices(name)[:count]),
                own_loops,
                spec.hold,
            )
        )
        start += count
    return rows


def _sorted_by_kind(
    schema: CanvasSchema,
) -> tuple[dict[str, list[Connection]], list[tuple[str, Connection]]]:
    """Connections that run: those of the softmax by src region, the others with their types.

    Weight 0 and type "none" are no edges. Of two equal residual edges the heavier one runs.
    """
    softmax: dict[str, list[Connection]] = defaultdict(list)
    others: dict[tuple, tuple[str, Connection]] = {}
    defaults = {
        name: schema.layout.region_spec(name).default_attn for name in schema.layout.regions
    }
    for c in schema.topology.connections if schema.topology is not None else ():
        fn = c.fn or defaults[c.src]
        if fn == "none" or c.weight == 0:
            continue
        if fn == "cross_attention":
            softmax[c.src].append(c)
            continue
        key = (c.src, c.dst, fn, c.t_src, c.t_dst)
        if key not in others or others[key][1].weight < c.weight:
            others[key] = (fn, c)
    return softmax, list(others.values())


class _Steps:
    """The covered rows of each region's canvas steps, numbered in row order; sets are bit masks.

    A step is the smallest unit that connections tell apart.
    """

    def __init__(self, layout: CanvasLayout, regions: list[RegionRows]) -> None:
        self.layout, self.T = layout, layout.T
        self.n_rows = regions[-1].stop if regions else 0
        self.starts, self.stops = [], []  # rows of each step
        self.of_region: dict[str, list[tuple[int, int]]] = {}  # (t, number of the step)
        self.region_mask: dict[str, int] = {}
        self.time_mask = [0] * layout.T
        for region in regions:
            t0, t1, h0, h1, w0, w1 = layout.region_spec(region.name).bounds
            size, mask, numbered = (h1 - h0) * (w1 - w0), 0, []
            rows = range(region.start, region.stop, size)
            for t, start in zip(range(t0, t1), rows, strict=False):
                bit = 1 << len(self.starts)
                numbered.append((t, len(self.starts)))
                self.starts.append(start)
                self.stops.append(min(start + size, region.stop))
                self.time_mask[t] |= bit
                mask |= bit
            self.of_region[region.name] = numbered
            self.region_mask[region.name] = mask
        self._runs: dict[int, tuple[Run, ...]] = {0: ()}
        self._allowed: dict[tuple, list[int]] = {}

    def regions_in(self, mask: int) -> set[str]:
        """Names of the regions that any step of the set belongs to."""
        return {name for name, steps in self.region_mask.items() if steps & mask}

    def allowed(self, connection: Connection) -> list[int]:
        """For each canvas step t of src rows, all steps that the connection's offsets allow."""
        offsets = (connection.t_src, connection.t_dst)
        if offsets not in self._allowed:
            columns = [connection.readable_steps(t, self.T) for t in range(self.T)]
            self._allowed[offsets] = [
                reduce(or_, self.time_mask[c.start : c.stop], 0) for c in columns
            ]
        return self._allowed[offsets]

    def runs(self, mask: int) -> tuple[Run, ...]:
        """The rows of a set of steps as runs that do not touch."""
        if mask & (mask - 1) == 0 < mask:  # one step
            number = mask.bit_length() - 1
            return ((self.starts[number], self.stops[number]),)
        known = self._runs.get(mask)
        if known is None:
            known = self._runs[mask] = tuple(self._split(mask))
        return known

    def _split(self, mask: int) -> Iterator[Run]:
        first = 0
        while mask:
            skip = (mask & -mask).bit_length() - 1
            mask >>= skip
            length = (~mask & (mask + 1)).bit_length() - 1
            mask >>= length
            first += skip
            yield self.starts[first], self.stops[first + length - 1]
            first += length


def _readable(
    connections: list[Connection], region: str, steps: _Steps
) -> Iterator[tuple[int, list[tuple[float, int]]]]:
    """For each step of a region its number and what it reads, as disjoint (weight, set).

    A step that several connections allow counts once, with the largest weight.
    """
    kinds: dict[tuple, tuple[Connection, int]] = {}
    for c in connections:  # those of equal weight and offsets read as one
        offsets = (c.t_src or 0, c.t_dst or 0, c.t_src is None, c.t_dst is None)
        key = (-c.weight, c.temporal, *offsets)
        kinds[key] = (c, kinds.get(key, (c, 0))[1] | steps.region_mask[c.dst])
    heavy_first = [(c.weight, mask, steps.allowed(c)) for c, mask in map(kinds.get, sorted(kinds))]
    for t, number in steps.of_region[region]:
        seen, parts = 0, []
        for weight, mask, allowed in heavy_first:
            part = mask & allowed[t] & ~seen
            if part:
                seen |= part
                parts.append((weight, part))
        yield number, parts


def _groups(
    region: RegionRows, connections: list[Connection], steps: _Steps
) -> tuple[list[RowGroup], int]:
    """The rows of each canvas step of a region as a group, and the set of all that they read."""
    spec = steps.layout.region_spec(region.name)
    groups, seen = [], 0
    for number, parts in _readable(connections, region.name, steps):
        reads, weights = _weighted_runs(parts, steps)
        start, stop = steps.starts[number], steps.stops[number]
        groups.append(
            RowGroup(start, stop, spec.stream, spec.timestep, reads, weights, region.loops)
        )
        for _, mask in parts:
            seen |= mask
    return groups, seen


def _weighted_runs(
    parts: list[tuple[float, int]], steps: _Steps
) -> tuple[tuple[Run, ...], tuple[float, ...]]:
    """Sorted runs of rows and the weight of each; runs of one weight never touch."""
    if len({weight for weight, _ in parts}) == 1:
        runs = reduce(merged, [steps.runs(mask) for _, mask in parts])
        return runs, (parts[0][0],) * len(runs)
    by_weight: dict[float, tuple[Run, ...]] = {}
    for weight, mask in parts:
        runs = steps.runs(mask)
        by_weight[weight] = merged(by_weight[weight], runs) if weight in by_weight else runs
    pairs = sorted((run, weight) for weight, runs in by_weight.items() for run in runs)
    return tuple(run for run, _ in pairs), tuple(weight for _, weight in pairs)


def merged(first: tuple[Run, ...], second: tuple[Run, ...]) -> tuple[Run, ...]:
    """Two disjoint sets of runs as one; runs that touch become one."""
    short, runs = (first, second) if len(first) < len(second) else (second, first)
    for run in short:
        start, stop = run
        i = j = bisect(runs, run)
        if i and runs[i - 1][1] == start:
            i, start = i - 1, runs[i - 1][0]
        if j < len(runs) and runs[j][0] == stop:
            stop, j = runs[j][1], j + 1
        runs = (*runs[:i], (start, stop), *runs[j:])
    return runs


def rows_in(runs: Iterable[Run]) -> list[int]:
    """The rows of some runs, one by one."""
    return list(chain.from_iterable(range(start, stop) for start, stop in runs))


def joined(groups: list[RowGroup]) -> tuple[RowGroup, ...]:
    """The groups, with neighbours that share everything made one."""
    result: list[RowGroup] = []
    for group in groups:
        if result and result[-1][2:] == group[2:]:
            result[-1] = result[-1]._replace(stop=group.stop)
        else:
            result.append(group)
    return tuple(result)


def _edge(fn: str, connection: Connection, steps: _Steps) -> ResidualEdge | None:
    """A residual edge, src rows of equal readable sets as one block; None if no rows meet."""
    blocks: list[EdgeBlock] = []
    for number, parts in _readable([connection], connection.src, steps):
        reads, _ = _weighted_runs(parts, steps)
        if blocks and blocks[-1].reads == reads and blocks[-1].stop == steps.starts[number]:
            blocks[-1] = blocks[-1]._replace(stop=steps.stops[number])
        elif reads:
            blocks.append(EdgeBlock(steps.starts[number], steps.stops[number], reads))
    if not blocks:
        return None
    edge = ResidualEdge(connection.src, connection.dst, fn, connection.weight, tuple(blocks))
    if fn == "copy":
        _require_matching_boxes(edge, steps.layout)
    return edge


def _require_matching_boxes(edge: ResidualEdge, layout: CanvasLayout) -> None:
    """Raises PlanError unless dst rows can be handed to src rows place by place."""
    (_, *src), (_, *dst) = layout.region_size(edge.src), layout.region_size(edge.dst)
    for block in edge.blocks:
        here, there = block.stop - block.start, sum(stop - start for start, stop in block.reads)
        src_box = (Fraction(here, src[0] * src[1]), *src)
        dst_box = (Fraction(there, dst[0] * dst[1]), *dst)
        if all(theirs in (1, mine) for mine, theirs in zip(src_box, dst_box, strict=True)):
            continue
        if here % (src[0] * src[1]) or there % (dst[0] * dst[1]):
            raise PlanError(
                f"connection {edge.src!r} -> {edge.dst!r}: copy hands tokens over place by place, "
                f"and a region is filled in part: {here} tokens of {edge.src!r} "
                f"({src[0] * src[1]} to a canvas step) would take {there} tokens of {edge.dst!r} "
                f"({dst[0] * dst[1]} to a canvas step); give both as many tokens as their boxes "
                "hold, or change the type (pooling, perceiver)"
            )
        raise PlanError(
            f"connection {edge.src!r} -> {edge.dst!r}: copy hands tokens over place by place: "
            f"expected a dst box equal to the src box (t, h, w) = {_size(src_box)}, or 1 along "
            f"an axis, got {_size(dst_box)}; change a box, or the type (pooling, perceiver)"
        )


def _size(box: tuple) -> str:
    return "(" + ", ".join(str(extent) for extent in box) + ")"
