"""compile_plan: a schema as plain integers, which rows are computed and which rows they read.

No tensors and no heavy imports: applying a plan lives in `canvas_robot.policy`.
"""

from __future__ import annotations

from dataclasses import dataclass

from canvas_robot.schema.layout import CanvasLayout
from canvas_robot.schema.schema import CanvasSchema
from canvas_robot.schema.topology import Connection

Run = tuple[int, int]  # rows start..stop-1 of the compact row buffer


class PlanError(ValueError):
    """A schema cannot be executed as declared."""


class OverlapError(PlanError):
    """Two regions claim the same cell."""


@dataclass(frozen=True)
class RegionRows:
    """Where a region's covered tokens lie in the compact row buffer.

    `cells` are the flat canvas indices of the covered tokens, in row order; row start + i holds
    cell cells[i].
    """

    name: str
    start: int
    stop: int
    period: int
    stream: str
    cells: tuple[int, ...]


@dataclass(frozen=True)
class RowGroup:
    """Contiguous rows that share stream, timestep and readable set.

    One mask-free attention computes them.
    """

    start: int
    stop: int
    stream: str
    timestep: int
    reads: tuple[Run, ...]


@dataclass(frozen=True)
class Plan:
    """The executable form of a schema.

    Rows are the covered tokens only, regions sorted slow to fast. Every group reads whole runs of
    rows.
    """

    n_rows: int
    loops: int
    regions: tuple[RegionRows, ...]
    groups: tuple[RowGroup, ...]

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
        lines = [f"plan: {self.n_rows} rows, {len(self.groups)} groups, {self.loops} loops"]
        for r in self.regions:
            lines.append(
                f"  region {r.name}: rows {r.start}..{r.stop - 1}, period {r.period}, {r.stream}"
            )
        for g in self.groups:
            reads = ", ".join(f"{a}..{b - 1}" for a, b in g.reads) or "nothing"
            lines.append(
                f"  rows {g.start}..{g.stop - 1} ({g.stream}, timestep {g.timestep}) read {reads}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Step:
    """Covered rows of one canvas step of a region: the smallest unit connections tell apart."""

    region: str
    t: int
    start: int
    stop: int


def compile_plan(
    schema: CanvasSchema, loops: int = 1, tokens: dict[str, int] | None = None
) -> Plan:
    """Compiles a schema to row groups and the runs of rows that each reads.

    Args:
        schema: the declaration.
        loops: times each backbone block runs.
        tokens: tokens that each region's codec makes, by region name; a region that is not named
            is covered whole. The first n cells in index order hold the tokens.

    Raises:
        OverlapError: two regions share a cell; both and the first shared cell are named.
        PlanError: loops < 1, a token count does not fit, or a connection's type or weight is not
            executable yet.
    """
    if loops < 1:
        raise PlanError(f"loops: expected an int >= 1, got {loops}")
    layout = schema.layout
    _refuse_overlap(layout)
    regions = _place_rows(layout, tokens or {})
    steps = [step for r in regions for step in _steps(r, layout)]
    connections = schema.topology.connections if schema.topology is not None else []
    for connection in connections:
        _require_executable(schema, connection)
    groups: list[RowGroup] = []
    for step in steps:
        spec = layout.region_spec(step.region)
        group = RowGroup(
            step.start,
            step.stop,
            spec.stream,
            spec.timestep,
            _reads(step, steps, connections, layout),
        )
        if groups and _same_key(groups[-1], group):
            groups[-1] = RowGroup(
                groups[-1].start, group.stop, group.stream, group.timestep, group.reads
            )
        else:
            groups.append(group)
    return Plan(regions[-1].stop if regions else 0, loops, tuple(regions), tuple(groups))


def _refuse_overlap(layout: CanvasLayout) -> None:
    owner: dict[int, str] = {}
    for name in layout.regions:
        for cell in layout.region_indices(name):
            if cell in owner:
                t, rest = divmod(cell, layout.H * layout.W)
                raise OverlapError(
                    f"regions {owner[cell]!r} and {name!r} overlap, first at cell "
                    f"(t, h, w) = ({t}, {rest // layout.W}, {rest % layout.W}); move one of them"
                )
            owner[cell] = name


def _place_rows(layout: CanvasLayout, tokens: dict[str, int]) -> list[RegionRows]:
    unknown = sorted(set(tokens) - set(layout.regions))
    if unknown:
        raise PlanError(f"tokens: names regions {unknown} that the layout lacks")
    order = sorted(layout.regions, key=lambda name: -layout.region_spec(name).period)
    rows, start = [], 0
    for name in order:
        spec = layout.region_spec(name)
        count = tokens.get(name, spec.numel)
        if not 0 < count <= spec.numel:
            raise PlanError(
                f"region {name!r}: its codec makes {count} tokens, its box {spec.size} "
                f"holds 1..{spec.numel}; enlarge the box or choose another codec"
            )
        cells = tuple(layout.region_indices(name)[:count])
        rows.append(RegionRows(name, start, start + count, spec.period, spec.stream, cells))
        start += count
    return rows


def _steps(region: RegionRows, layout: CanvasLayout) -> list[_Step]:
    plane = layout.H * layout.W
    t0, t1, *_ = layout.region_spec(region.name).bounds
    steps, start = [], region.start
    for t in range(t0, t1):
        count = sum(cell // plane == t for cell in region.cells)
        if count:
            steps.append(_Step(region.name, t, start, start + count))
            start += count
    return steps


def _require_executable(schema: CanvasSchema, connection: Connection) -> None:
    fn = schema.topology.resolve_fn(connection, schema.layout)
    if fn not in ("cross_attention", "none") or connection.weight not in (0.0, 1.0):
        raise PlanError(
            f"connection {connection.src!r} -> {connection.dst!r}: this version executes "
            f"cross_attention with weight 0 or 1, got {fn} with weight {connection.weight}"
        )


def _reads(
    step: _Step, steps: list[_Step], connections: list[Connection], layout: CanvasLayout
) -> tuple[Run, ...]:
    """Runs of rows `step` reads: the union over its region's connections, adjacent runs merged."""
    runs: list[Run] = []
    readable = [other for other in steps if _reads_step(step, other, connections, layout)]
    for other in sorted(readable, key=lambda s: s.start):
        if runs and runs[-1][1] == other.start:
            runs[-1] = (runs[-1][0], other.stop)
        else:
            runs.append((other.start, other.stop))
    return tuple(runs)


def _reads_step(
    step: _Step, other: _Step, connections: list[Connection], layout: CanvasLayout
) -> bool:
    return any(
        c.src == step.region
        and c.dst == other.region
        and c.weight > 0
        and (c.fn or layout.region_spec(c.src).default_attn) != "none"
        and _allows_times(c, step.t, other.t, layout.T)
        for c in connections
    )


def _allows_times(connection: Connection, t_row: int, t_column: int, T: int) -> bool:
    """Whether some reference step in 0..T-1 pairs the row's canvas step with the column's."""
    row_ref = None if connection.t_src is None else t_row - connection.t_src
    column_ref = None if connection.t_dst is None else t_column - connection.t_dst
    if row_ref is not None and column_ref is not None and row_ref != column_ref:
        return False
    return all(ref is None or 0 <= ref < T for ref in (row_ref, column_ref))


def _same_key(first: RowGroup, second: RowGroup) -> bool:
    return (first.stream, first.timestep, first.reads) == (
        second.stream,
        second.timestep,
        second.reads,
    )
