"""describe and timeline: a schema and its plan as the values that tables and drawings show.

Nothing is printed or drawn here, and nothing is judged: likely mistakes live in `advice`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice, takewhile
from operator import attrgetter

from canvas_robot.schema.metadata import declared_rate_hz
from canvas_robot.schema.plain import plain_number, shown
from canvas_robot.schema.plan import EdgeBlock, Plan, RowGroup, Run, compile_plan
from canvas_robot.schema.schedule import cycle, dirty_regions
from canvas_robot.schema.schema import CanvasSchema
from canvas_robot.schema.topology import Connection

OBSERVES, RECOMPUTED, UNCHANGED = "observes", "recomputed", "unchanged"


@dataclass(frozen=True)
class Source:
    """One connection as its src region sees it, with its function type resolved."""

    region: str
    fn: str
    weight: float
    t_src: int | None
    t_dst: int | None

    @property
    def active(self) -> bool:
        """Whether anything is read: weight 0 and type "none" switch a connection off."""
        return self.weight > 0 and self.fn != "none"

    @property
    def offset(self) -> str:
        """Which canvas steps pair up, in short; empty where the connection is dense in time."""
        if self.t_src is None and self.t_dst is None:
            return ""
        if self.t_src is None or self.t_dst is None:
            side = "t_src" if self.t_dst is None else "t_dst"
            return f"{side}={self.t_src if self.t_dst is None else self.t_dst}"
        steps = self.t_dst - self.t_src
        return f"t{steps:+d}" if steps else "same t"

    def __str__(self) -> str:
        notes = [] if self.fn == "cross_attention" else [self.fn]
        notes += [f"x{self.weight:g}"] if self.weight != 1.0 else []
        notes += [self.offset] if self.offset else []
        return f"{self.region} ({', '.join(notes)})" if notes else self.region


@dataclass(frozen=True)
class RegionRow:
    """What there is to say about one region.

    size: (t, h, w) in cells; share: its tokens as a part of all covered tokens; rate_hz: refreshes
    per second at the control rate; readers: names of the regions that read it; sources: the
    connections by which it reads.
    """

    name: str
    bounds: tuple[int, int, int, int, int, int]
    size: tuple[int, int, int]
    tokens: int
    share: float
    period: int
    rate_hz: float
    stream: str
    timestep: int
    is_output: bool
    loss_weight: float
    default_attn: str
    semantic_type: str | None
    readers: tuple[str, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Span:
    """Canvas steps t0..t1-1 of a region; `whole` where these are all it has."""

    region: str
    t0: int
    t1: int
    whole: bool

    def __str__(self) -> str:
        if self.whole:
            return self.region
        last = self.t1 - 1
        return f"{self.region} t={self.t0}" + (f"..{last}" if last > self.t0 else "")


@dataclass(frozen=True)
class Read:
    """A span that rows read, and the weight of its keys."""

    span: Span
    weight: float

    def __str__(self) -> str:
        return f"{self.span}" + (f" x{self.weight:g}" if self.weight != 1.0 else "")


@dataclass(frozen=True)
class GroupRow:
    """An execution group of the plan in the names of regions: rows start..stop-1."""

    start: int
    stop: int
    spans: tuple[Span, ...]
    stream: str
    timestep: int
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class BlockRow:
    """Rows of a residual edge that read the same, in the names of regions."""

    start: int
    stop: int
    spans: tuple[Span, ...]
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class EdgeRow:
    """A residual edge of the plan in the names of regions."""

    src: str
    dst: str
    fn: str
    weight: float
    blocks: tuple[BlockRow, ...]


@dataclass(frozen=True)
class Description:
    """A schema and its plan, ready to be shown.

    grid: (T, H, W); cells: of the grid; tokens: cells that a region covers.
    """

    grid: tuple[int, int, int]
    d_model: int
    t_current: int
    control_rate_hz: float
    cells: int
    tokens: int
    regions: tuple[RegionRow, ...]
    groups: tuple[GroupRow, ...]
    edges: tuple[EdgeRow, ...]


@dataclass(frozen=True)
class Timeline:
    """What each region does at ticks 0..ticks-1 after a reset.

    cycle: ticks after which it repeats, the least common multiple of the periods. states: by
    region, slow to fast, one per tick: `observes` takes new samples; `recomputed` does not, but
    reads a region that is computed anew; `unchanged` computes what it did before.
    """

    ticks: int
    cycle: int
    states: dict[str, tuple[str, ...]]


def control_rate_hz(schema: CanvasSchema) -> float:
    """Control ticks per second the periods are meant for: metadata.control_rate_hz, else 5.

    Raises SchemaError where the metadata's value is no finite number above 0.
    """
    return declared_rate_hz(schema.metadata)


def describe(
    schema: CanvasSchema, plan: Plan | None = None, rate_hz: float | None = None
) -> Description:
    """Everything that `canvas-robot schema show` prints.

    Args:
        schema: the declaration.
        plan: its plan; None compiles one in which every region is covered whole.
        rate_hz: control ticks per second; None asks `control_rate_hz`.
    Raises:
        PlanError: the schema does not compile.
        ValueError: a rate that is no finite number above 0.
    """
    layout = schema.layout
    plan = plan or compile_plan(schema)
    rate = control_rate_hz(schema) if rate_hz is None else plain_number(rate_hz)
    if rate is None or not 0 < rate < math.inf:
        raise ValueError(f"rate_hz: expected a finite number above 0, got {shown(rate_hz)}")
    sources = {name: connections_from(schema, name) for name in layout.regions}
    rows = []
    for region in plan.regions:
        spec, tokens = layout.region_spec(region.name), region.stop - region.start
        readers = [
            name
            for name in sources
            if any(s.region == region.name and s.active for s in sources[name])
        ]
        rows.append(
            RegionRow(
                name=region.name,
                bounds=spec.bounds,
                size=spec.size,
                tokens=tokens,
                share=tokens / plan.n_rows,
                period=spec.period,
                rate_hz=rate / spec.period,
                stream=spec.stream,
                timestep=spec.timestep,
                is_output=spec.is_output,
                loss_weight=spec.loss_weight,
                default_attn=spec.default_attn,
                semantic_type=spec.semantic_type,
                readers=tuple(readers),
                sources=sources[region.name],
            )
        )
    return Description(
        grid=(layout.T, layout.H, layout.W),
        d_model=layout.d_model,
        t_current=layout.t_current,
        control_rate_hz=rate,
        cells=layout.num_positions,
        tokens=plan.n_rows,
        regions=tuple(rows),
        groups=tuple(_group_row(schema, plan, group) for group in plan.groups),
        edges=tuple(
            EdgeRow(
                edge.src,
                edge.dst,
                edge.fn,
                edge.weight,
                tuple(_block_row(schema, plan, block) for block in edge.blocks),
            )
            for edge in plan.edges
        ),
    )


def connections_from(schema: CanvasSchema, region: str) -> tuple[Source, ...]:
    """The connections by which a region reads, in order; those that are switched off included."""
    topology = schema.topology
    return tuple(
        _source(schema, c)
        for c in (topology.connections if topology is not None else [])
        if c.src == region
    )


def spans_of(schema: CanvasSchema, plan: Plan, run: Run) -> tuple[Span, ...]:
    """The canvas steps of regions that rows run[0]..run[1]-1 of a plan belong to, in row order."""
    spans = []
    first = bisect_right(plan.regions, run[0], key=attrgetter("stop"))
    for region in takewhile(lambda r: r.start < run[1], islice(plan.regions, first, None)):
        low, high = max(run[0], region.start), min(run[1], region.stop)
        t0, _, h0, h1, w0, w1 = schema.layout.region_spec(region.name).bounds
        plane = (h1 - h0) * (w1 - w0)  # rows of one canvas step; the last may be part covered
        start, last = (low - region.start) // plane, (high - 1 - region.start) // plane
        whole = (low, high) == (region.start, region.stop)
        spans.append(Span(region.name, t0 + start, t0 + last + 1, whole))
    return tuple(spans)


def timeline(schema: CanvasSchema, plan: Plan | None = None, most_ticks: int = 32) -> Timeline:
    """Who takes new samples at which tick, and who must be computed anew because of it.

    One cycle, at least 8 and at most `most_ticks` ticks.
    """
    plan = plan or compile_plan(schema)
    length = cycle(plan)
    ticks = min(most_ticks, length * -(-8 // length))
    states: dict[str, list[str]] = {region.name: [] for region in plan.regions}
    for tick in range(ticks):
        observing, computed = set(plan.refreshed(tick)), dirty_regions(plan, tick)
        for name, row in states.items():
            row.append(
                OBSERVES if name in observing else RECOMPUTED if name in computed else UNCHANGED
            )
    return Timeline(ticks, length, {name: tuple(row) for name, row in states.items()})


def _source(schema: CanvasSchema, c: Connection) -> Source:
    return Source(c.dst, schema.topology.resolve_fn(c, schema.layout), c.weight, c.t_src, c.t_dst)


def _group_row(schema: CanvasSchema, plan: Plan, group: RowGroup) -> GroupRow:
    reads = tuple(
        Read(span, weight)
        for run, weight in zip(group.reads, group.weights, strict=True)
        for span in spans_of(schema, plan, run)
    )
    spans = spans_of(schema, plan, (group.start, group.stop))
    return GroupRow(group.start, group.stop, spans, group.stream, group.timestep, reads)


def _block_row(schema: CanvasSchema, plan: Plan, block: EdgeBlock) -> BlockRow:
    reads = tuple(Read(span, 1.0) for run in block.reads for span in spans_of(schema, plan, run))
    return BlockRow(
        block.start, block.stop, spans_of(schema, plan, (block.start, block.stop)), reads
    )
