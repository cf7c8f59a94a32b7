"""draw_schema: one figure of a schema: its grid, who reads which tokens, the graph, the clock.

What the panels show is computed in `canvas_robot.schema.description`; here it is only drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Polygon, Rectangle

from canvas_robot.evaluation.lettering import Lettering, lettering, quiet_fonts, width_of
from canvas_robot.schema import CanvasSchema, Plan, compile_plan
from canvas_robot.schema.description import (
    OBSERVES,
    RECOMPUTED,
    Source,
    connections_from,
    control_rate_hz,
    spans_of,
    timeline,
)

INK, QUIET, LINE, PAPER = "#1f2937", "#5b6472", "#cbd2db", "#f8fafc"
# Apart from each other also for the colour blind: hues alternate with lightness.
PALETTE = (
    "#2563eb", "#f59e0b", "#059669", "#db2777", "#7c3aed", "#84cc16",
    "#0891b2", "#dc2626", "#a16207", "#94a3b8", "#f9a8d4", "#1e3a8a",
    "#5eead4", "#fdba74", "#6b21a8", "#365314",
)  # fmt: skip
# Numbers of which no two have a divisor in common: every type has a pair of its own.
OTHER_STYLES = (
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (9, 2)),
    (0, (3, 1.5, 1.2, 1.5, 1.2, 1.5)),
)
OTHER_COLOURS = ("#c2410c", "#0f766e", "#7e22ce", "#be123c", "#4d7c0f", "#0369a1")
HATCHES = ("////", "....", "\\\\\\\\", "xxxx", "++++", "oooo", "----")


MANY_ARROWS = 60  # beyond, arrows are thin and their time offsets are left to `schema show`
MOST_ARROWS = 600  # beyond, they are lines without heads
NEAR_READER = 0.38  # of its way: where an arrow is labelled, for the middles of many coincide
MOST_NAMES = 24  # below a block of the grid
LEAST_BLOCK = 0.7  # inches of its longer side; where that is too much, the last are left out
MOST_WEIGHTS, MOST_IN_KEY = 8, 20  # in the key of the attention, with its types
MOST_OFFSETS = 3  # on one arrow
MOST_LETTERS = 22  # of a name beside a panel; longer ones lose their middle
MOST_OF_TITLE = 44
MOST_ON_A_LINE = 15  # of a name in the graph
GRAPH = (1.75, 1.28)  # half of what its panel shows; its regions lie at 1.15 and 1
MOST_ON_TWO = 12  # regions of a graph in which a longer name takes two lines


class Cell(NamedTuple):
    """One canvas step of a region: the smallest unit that connections tell apart."""

    region: str
    t: int


class Mark(NamedTuple):
    """Rows of one canvas step of a region read those of another: by `fn`, with `weight`."""

    row: Cell
    column: Cell
    fn: str
    weight: float


class Sheet(NamedTuple):
    """What all panels are drawn of. fns: the types beside cross_attention, in a fixed order."""

    schema: CanvasSchema
    plan: Plan
    colours: Mapping[str, str]
    fns: tuple[str, ...]
    letters: Lettering


class Arrow(NamedTuple):
    """All connections of one function type from a region to another, or to itself.

    weights: by time offset, "" where all steps are read; both: the other way is the same.
    """

    fn: str
    weights: Mapping[str, float]
    both: bool

    @property
    def weight(self) -> float:
        """The largest."""
        return max(self.weights.values())

    @property
    def label(self) -> str:
        """The time offsets, and their weights where these differ; empty where there are none."""
        if set(self.weights) == {""}:
            return ""
        differ = len(set(self.weights.values())) > 1
        texts = [
            (offset or "all t") + (f" x{weight:g}" if differ else "")
            for offset, weight in self.weights.items()
        ]
        more = len(texts) - MOST_OFFSETS
        return ", ".join([*texts[:MOST_OFFSETS], f"... and {more} more"] if more > 0 else texts)


def draw_schema(schema: CanvasSchema, path: str | Path, title: str) -> None:
    """Writes the picture; the ending of `path` (.png or .svg) says the format.

    No (N, N) mask is made: the plan's groups are drawn as blocks, so a large canvas costs no more.

    Raises:
        ValueError: another ending.
        PlanError: the schema does not compile.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"{path}: expected a file that ends with .png or .svg")
    with quiet_fonts():
        schema_figure(schema, title).savefig(path, dpi=100)


def schema_figure(schema: CanvasSchema, title: str) -> Figure:
    """The four panels; a region has the same colour in all of them."""
    letters, heading = lettering(schema.layout.regions), lettering([title], weight="bold")
    families = list(dict.fromkeys([*letters.families, *heading.families]))
    # A name may hold dollar signs.
    with rc_context({"text.parse_math": False, "font.family": families}):
        figure = _figure(schema, heading.shown(title, MOST_OF_TITLE), letters)
        if letters.lacking or heading.lacking:
            style = {"size": 11, "color": QUIET, "va": "center", "ha": "right"}
            place = (0.985, 1 - 0.75 / figure.get_size_inches()[1])
            figure.text(*place, "letters that no installed font has are escaped", **style)
    return figure


def sheet_of(schema: CanvasSchema, letters: Lettering) -> Sheet:
    """The sheet of a schema; raises PlanError where it does not compile."""
    plan = compile_plan(schema)
    return Sheet(schema, plan, region_colours(schema), _other_types(schema), letters)


def _figure(schema: CanvasSchema, title: str, letters: Lettering) -> Figure:
    sheet = sheet_of(schema, letters)
    plan = sheet.plan
    top, gap, bottom = 1.5, 1.35, 0.8  # inches, for titles and keys
    panel = 4.8 + 0.1 * min(60, max(0, len(plan.regions) - 6))
    height = top + 2 * panel + gap + bottom
    figure = Figure(figsize=(17, height), facecolor="white")
    grid = figure.add_gridspec(
        2,
        2,
        left=0.03,
        right=0.985,
        top=1 - top / height,
        bottom=bottom / height,
        hspace=gap / panel,
        wspace=0.1,
    )
    layout = schema.layout
    figure.text(0.03, 1 - 0.45 / height, title, size=20, weight="bold", color=INK, va="center")
    facts = (
        f"{layout.T}×{layout.H}×{layout.W} cells, {plan.n_rows} covered by {len(plan.regions)} "
        f"regions, d_model {layout.d_model}"
    )
    figure.text(0.985, 1 - 0.45 / height, facts, size=13, color=QUIET, va="center", ha="right")
    draw_grid(figure.add_subplot(grid[0, 0]), sheet)
    draw_mask(figure.add_subplot(grid[0, 1]), sheet)
    draw_graph(figure.add_subplot(grid[1, 0]), sheet)
    draw_timeline(figure.add_subplot(grid[1, 1]), sheet)
    return figure


def region_colours(schema: CanvasSchema) -> dict[str, str]:
    """Region -> colour, in the order of declaration; after 16 they repeat."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(schema.layout.regions)}


def mask_marks(schema: CanvasSchema, plan: Plan) -> list[Mark]:
    """The whole attention structure of a plan by canvas steps of regions.

    Softmax reads come first; the residual edges lie on top of them.
    """
    marks = []
    for group in plan.groups:
        for run, weight in zip(group.reads, group.weights, strict=True):
            marks += _marks(schema, plan, group, run, "cross_attention", weight)
    for edge in plan.edges:
        for block in edge.blocks:
            for run in block.reads:
                marks += _marks(schema, plan, block, run, edge.fn, edge.weight)
    return marks


def _marks(schema, plan, rows, run, fn: str, weight: float) -> list[Mark]:
    return [
        Mark(row, column, fn, weight)
        for row in _cells(schema, plan, (rows.start, rows.stop))
        for column in _cells(schema, plan, run)
    ]


def _cells(schema: CanvasSchema, plan: Plan, run: tuple[int, int]) -> list[Cell]:
    return [
        Cell(span.region, t)
        for span in spans_of(schema, plan, run)
        for t in range(span.t0, span.t1)
    ]


def _heading(axes: Axes, title: str, text: str) -> None:
    """Above the panel's own place in the figure, which an equal aspect does not move."""
    place, figure = axes.get_position(original=True), axes.figure
    inch = 1 / figure.get_size_inches()[1]
    figure.text(place.x0, place.y1 + 0.42 * inch, title, size=15, weight="bold", color=INK)
    figure.text(place.x0, place.y1 + 0.18 * inch, text, size=11, color=QUIET)


# The grid: runs of canvas steps with the same regions, drawn apart, so that nothing hides.


def draw_grid(axes: Axes, sheet: Sheet) -> None:
    """Boxes of the (T, H, W) grid in parallel projection; coordinates are inches, y down."""
    schema, _, colours, _, letters = sheet
    layout = schema.layout
    _heading(
        axes, "Grid", "t goes right (one block for steps with the same regions), h down, w forward"
    )
    place, (wide, high) = axes.get_position(original=True), axes.figure.get_size_inches()
    wide, high = place.width * wide, place.height * high
    segments = _segments(schema)
    line = 0.185 if len(layout.regions) <= 9 else 0.165
    shape = _BlockShape(layout.H, layout.W)
    most = min(MOST_NAMES + 1, max(len(names) for *_, names in segments))
    labels = _grid_labels(segments, letters, wide, line)
    scale = (high - (most + 2.2) * line) / shape.height

    def taken(count: int) -> float:
        return sum(_advance(shape, scale, s, labels, line) for s in segments[:count])

    count = len(segments)
    while taken(count) > wide and scale > LEAST_BLOCK:
        scale *= 0.97
    if taken(count) > wide:
        scale = max(scale, LEAST_BLOCK)
        more = _inches(len("... and 999 more"), 9)
        while count > 1 and taken(count) > wide - more:
            count -= 1
    left = 0.02
    for segment in segments[:count]:
        t0, t1, names = segment
        point = shape.projection(left, scale, t1 - t0)
        _draw_box(axes, point, (0, 1, 0, 1, 0, 1), PAPER, LINE, shades=(1.0, 0.97, 1.0))
        for name in sorted(names, key=lambda n: _depth_key(layout.region_spec(n).bounds)):
            _, _, h0, h1, w0, w1 = layout.region_spec(name).bounds
            box = (0, 1, h0 / layout.H, h1 / layout.H, w0 / layout.W, w1 / layout.W)
            _draw_box(axes, point, box, colours[name], "white", shades=(1.25, 0.8, 1.0))
        top = scale * shape.height + 0.8 * line
        _label_segment(axes, schema, segment, colours, labels, (left, top, line))
        left += _advance(shape, scale, segment, labels, line)
    if count < len(segments):
        at = (left, scale * shape.height / 2)
        axes.text(*at, f"... and {len(segments) - count} more", size=9, color=QUIET, va="center")
    axes.set(xlim=(0, wide), ylim=(high, 0))
    axes.axis("off")


class _BlockShape:
    """How a block of canvas steps looks: its longer side is 1 before scaling."""

    STEP, MOST_STEPS = 0.06, 6  # depth of a step; deeper blocks would only take room

    def __init__(self, H: int, W: int) -> None:
        wide, self.high = max(0.3, W / max(H, W)), max(0.3, H / max(H, W))
        self.across, self.down = 0.62 * wide, 0.26 * wide
        self.height = self.high + self.down + 0.35 * self.STEP * self.MOST_STEPS

    def depth(self, steps: int) -> float:
        return self.STEP * min(self.MOST_STEPS, steps)

    def projection(self, left: float, scale: float, steps: int):
        """(t, h, w) in 0..1 of a block to (x, y); far steps lie to the right and higher."""
        deep, most = self.depth(steps), self.STEP * self.MOST_STEPS

        def point(t: float, h: float, w: float) -> tuple[float, float]:
            x = self.across * w + deep * t
            y = h * self.high + self.down * w + 0.35 * (most - deep * t)
            return left + scale * x, scale * y

        return point


def _advance(shape: _BlockShape, scale: float, segment: tuple, labels, line: float) -> float:
    """Inches from one block to the next: its own width or that of its labels."""
    t0, t1, names = segment
    block = scale * (shape.across + shape.depth(t1 - t0))
    return max(block + 0.22, _labels_width([labels[name] for name in names], line))


def _labels_width(labels: Sequence[str], line: float) -> float:
    longest = max(map(width_of, labels), default=0)
    return 0.44 * line * max(longest + 3, 9) + 0.22


def _grid_labels(
    segments: list[tuple], letters: Lettering, wide: float, line: float
) -> dict[str, str]:
    """Region -> what it is called below the blocks: as much of its name as there is room for."""
    names = {name for *_, names in segments for name in names}
    for most in range(MOST_LETTERS, 5, -1):
        labels = letters.shown_apart(names, most)
        if sum(_labels_width([labels[n] for n in ns], line) for *_, ns in segments) <= wide:
            break
    return labels


def _segments(schema: CanvasSchema) -> list[tuple[int, int, tuple[str, ...]]]:
    """(t0, t1, regions) of the runs of canvas steps in which the same regions lie, "now" alone."""
    layout, result = schema.layout, []
    for t in range(layout.T):
        names = tuple(
            n
            for n in layout.regions
            if layout.region_spec(n).bounds[0] <= t < layout.region_spec(n).bounds[1]
        )
        apart = layout.t_current in (t, t - 1)
        if result and result[-1][2] == names and not apart:
            result[-1] = (result[-1][0], t + 1, names)
        else:
            result.append((t, t + 1, names))
    return result


def _draw_box(axes, point, box, colour: str, edge: str, shades: tuple) -> None:
    """The faces of a box that are seen: its top, the side of the last w, and the front of t."""
    t0, t1, h0, h1, w0, w1 = box
    faces = (
        [(t0, h0, w0), (t1, h0, w0), (t1, h0, w1), (t0, h0, w1)],
        [(t0, h0, w1), (t1, h0, w1), (t1, h1, w1), (t0, h1, w1)],
        [(t0, h0, w0), (t0, h0, w1), (t0, h1, w1), (t0, h1, w0)],
    )
    for corners, shade in zip(faces, shades, strict=True):
        face = tuple(min(1.0, c * shade) for c in to_rgb(colour))
        places = [point(*corner) for corner in corners]
        axes.add_patch(Polygon(places, fc=face, ec=edge, lw=0.8, joinstyle="round"))


def _depth_key(bounds) -> tuple[int, int]:
    """Far first: small w, then low places (large h)."""
    return bounds[4], -bounds[2]


def _label_segment(axes, schema, segment, colours, labels, place: tuple) -> None:
    t0, t1, names = segment
    x, y, line = place
    steps = f"t={t0}" + (f"..{t1 - 1}" if t1 - t0 > 1 else "")
    now = " now" if t0 == schema.layout.t_current else ""
    size = 54 * line
    axes.text(x, y, steps + now, size=size + 0.5, weight="bold", color=INK, va="center")
    left_out = len(names) - MOST_NAMES
    if left_out > 0:
        names = names[:MOST_NAMES]
        at = y + line * (MOST_NAMES + 1.15)
        axes.text(x, at, f"... and {left_out} more", size=size, color=QUIET, va="center")
    for i, name in enumerate(names):
        at = y + line * (i + 1.15)
        axes.add_patch(Rectangle((x, at - 0.3 * line), 0.55 * line, 0.6 * line, fc=colours[name]))
        axes.text(x + 0.85 * line, at, labels[name], size=size, color=INK, va="center")
    if not names:
        axes.text(x, y + 1.15 * line, "no region", size=size, color=QUIET, va="center")


# The mask: rows and columns by region; bands grow slower than their tokens, so that all are seen.


def draw_mask(axes: Axes, sheet: Sheet) -> None:
    """Who reads which tokens, in the plan's row order."""
    schema, plan, colours, fns, letters = sheet
    _heading(
        axes,
        "Attention",
        "a row reads the marked columns; bands grow more slowly than their tokens",
    )
    bands = _bands(schema, plan)
    marks = mask_marks(schema, plan)
    strip, size = 0.025, 9 if len(bands) > 9 else 11
    most = _beside_mask(axes, size)
    labels = letters.shown_apart(bands, most)
    named = _apart(axes, {name: (start + stop) / 2 for name, (start, stop, _) in bands.items()})
    for name, (start, stop, steps) in bands.items():
        label = labels[name] if name in named else ""
        _band(axes, label, colours[name], start, stop, strip, size)
        for at in [at for at in steps.values() if at[1] - at[0] > 0.012][1:]:
            for xs, ys in (((at[0],) * 2, (0, 1)), ((0, 1), (at[0],) * 2)):
                axes.plot(xs, ys, color=LINE, lw=0.3, zorder=1)
        for xs, ys in (((start, start), (0, 1)), ((0, 1), (start, start))):
            axes.plot(xs, ys, color=QUIET, lw=0.6, zorder=4)
    weights = {mark.weight for mark in marks if mark.fn == "cross_attention"}
    for fn in ("cross_attention", *fns):
        _draw_marks(axes, [mark for mark in marks if mark.fn == fn], bands, fns, colours)
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, ec=INK, lw=1.0, zorder=5))
    most = min(MOST_WEIGHTS, MOST_IN_KEY - 1 - len(fns))
    keyed = sorted(weights)[:most]
    handles = [Patch(fc=_tint(INK, w), label=f"softmax, weight {w:g}") for w in keyed]
    if len(weights) > most:
        more = f"... and {len(weights) - most} more"
        handles.append(Patch(fc=_tint(INK, max(weights)), label=more))
    handles += [
        Patch(fc="white", ec=colour, hatch=hatch, label=fn)
        for fn, (colour, hatch) in _hatches(fns).items()
    ]
    _legend(axes, handles, columns=4)
    axes.set(xlim=(-strip, 1.0), ylim=(1.0, -strip))
    axes.set_aspect("equal", anchor="N")
    axes.axis("off")


def _bands(schema: CanvasSchema, plan: Plan) -> dict[str, tuple[float, float, dict[int, tuple]]]:
    """Region -> (start, stop, step -> (start, stop)) in 0..1, in the plan's row order."""
    sizes = {r.name: (r.stop - r.start) ** 0.35 for r in plan.regions}
    total, at, bands = sum(sizes.values()), 0.0, {}
    for name, size in sizes.items():
        times = schema.layout.region_timesteps(name)
        width = size / total / len(times)
        steps = {t: (at + i * width, at + (i + 1) * width) for i, t in enumerate(times)}
        bands[name] = (at, at + size / total, steps)
        at += size / total
    return bands


def _beside_mask(axes: Axes, size: float) -> int:
    """Letters for which there is room on the left of the square."""
    place, (wide, high) = axes.get_position(original=True), axes.figure.get_size_inches()
    room = max(0.0, place.width * wide - place.height * high) / 2 + 0.7
    return max(8, min(MOST_LETTERS, int(room / _inches(1, size))))


def _inches(letters: int, size: float) -> float:
    """What so many letters take, for most texts a little less."""
    return 0.6 * size / 72 * letters


def _band(axes, name, colour, start, stop, strip: float, size: float) -> None:
    middle, gap = (start + stop) / 2, 0.006
    axes.add_patch(Rectangle((start, -strip), stop - start, strip - gap, fc=colour, lw=0))
    axes.add_patch(Rectangle((-strip, start), strip - gap, stop - start, fc=colour, lw=0))
    axes.text(-strip - 0.012, middle, name, size=size, color=INK, ha="right", va="center")


def _apart(axes, middles: Mapping[str, float], size: float = 13.0) -> set[str]:
    """Names at those heights (0 to 1) of a panel that do not run into the one before.

    size: what a line of text takes, in points.
    """
    height = axes.get_position(original=True).height * axes.figure.get_size_inches()[1] * 72
    named, free = set(), -math.inf
    for name, middle in middles.items():
        if middle * height >= free:
            named.add(name)
            free = middle * height + size
    return named


def _draw_marks(axes, marks: list[Mark], bands, fns: tuple[str, ...], colours) -> None:
    """Marks of one function type as one collection: a causal schema has thousands."""
    boxes = []
    for mark in marks:
        (x0, x1), (y0, y1) = (bands[c.region][2][c.t] for c in (mark.column, mark.row))
        boxes.append([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    if marks and marks[0].fn == "cross_attention":
        faces = [_tint(colours[mark.row.region], mark.weight) for mark in marks]
        axes.add_collection(PolyCollection(boxes, facecolors=faces, linewidths=0, zorder=2))
    elif marks:
        colour, hatch = _hatches(fns)[marks[0].fn]
        style = {"facecolors": "none", "edgecolors": colour, "hatch": hatch}
        axes.add_collection(PolyCollection(boxes, linewidths=0, zorder=3, **style))


def _tint(colour: str, weight: float) -> tuple[float, float, float]:
    """The colour at weight 1, paler below, darker above."""
    if weight <= 1:
        strength = 0.25 + 0.55 * weight
        return tuple(1 - strength * (1 - c) for c in to_rgb(colour))
    return tuple(c * max(0.45, 1 / weight**0.5) for c in to_rgb(colour))


def _other_types(schema: CanvasSchema) -> tuple[str, ...]:
    """Function types of residual edges; their order decides colours, hatches and line styles."""
    sources = [s for name in schema.layout.regions for s in connections_from(schema, name)]
    return tuple(sorted({s.fn for s in sources if s.active} - {"cross_attention"}))


def _hatches(fns: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    return {
        fn: (OTHER_COLOURS[i % len(OTHER_COLOURS)], HATCHES[i % len(HATCHES)])
        for i, fn in enumerate(fns)
    }


def _legend(axes: Axes, handles: list, columns: int) -> None:
    small = len(handles) > 2 * columns
    if handles:
        axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.012),
            ncols=5 if small else columns,
            frameon=False,
            fontsize=7.5 if small else 10,
            labelcolor=INK,
            handlelength=3.2,
            columnspacing=1.0 if small else 1.6,
        )


# The graph: regions on an ellipse; a ring is a region that reads itself.


def draw_graph(axes: Axes, sheet: Sheet) -> None:
    """Connections between regions."""
    schema, plan, colours, fns, letters = sheet
    places = _places([r.name for r in plan.regions])
    edges = {name: connections_from(schema, name) for name in places}
    radius = 17 if len(places) <= 9 else 14 if len(places) <= 40 else 8
    arrows = _between(edges)
    count = sum(len(kinds) for kinds in arrows.values())
    many = count > MANY_ARROWS
    drawn = {arrow.fn for kinds in arrows.values() for arrow in kinds}
    used = [fn for fn in ("cross_attention", *fns) if fn in drawn]
    meaning = (
        "arrow: from reader to what it reads; two heads: both ways; ring: itself; width: weight"
    )
    if not count:
        meaning = "no region reads any"
    if count > MOST_ARROWS:
        meaning = f"{count} connections as lines: `schema show` says which way and how much"
        _draw_lines(axes, places, arrows, fns)
        arrows = {}
    _heading(axes, "Topology", meaning)
    rings: dict[str, list[tuple[str, str]]] = {}
    for (src, dst), kinds in arrows.items():
        for i, arrow in enumerate(kinds):
            colour, style = _line_style(arrow.fn, fns)
            if src != dst:
                _draw_arrow(axes, (places[src], places[dst]), i, arrow, fns, radius, many)
                continue
            thick = _line_width(arrow.weight) * (0.5 if many else 1.0)
            _ring(axes, places[src], radius + 5 + 5 * i, colour, style, thick)
            if arrow.label and not many:
                rings.setdefault(src, []).append((f"itself: {arrow.label}", colour))
    labels = _graph_labels(places, letters)
    named = _named_places(axes, places, labels)
    for name, (x, y) in places.items():
        axes.plot(x, y, "o", ms=radius, mfc=colours[name], mec="white", mew=1.5, zorder=4)
        if name in named:
            _node_label(axes, labels[name], x, y, rings.get(name, []))
    handles = [
        Line2D(
            [], [], color=_line_style(fn, fns)[0], linestyle=_line_style(fn, fns)[1], lw=2, label=fn
        )
        for fn in used
    ]
    _legend(axes, handles, columns=4)
    high = GRAPH[1] + 0.1 * max(0, max(map(len, rings.values()), default=0) - 1)
    axes.set(xlim=(-GRAPH[0], GRAPH[0]), ylim=(-high, high))
    axes.axis("off")


def _graph_labels(places: Mapping, letters: Lettering) -> dict[str, str]:
    """Region -> what it is called beside its dot, on one line or two."""
    most = MOST_LETTERS if len(places) <= MOST_ON_TWO else MOST_ON_A_LINE
    return {
        name: letters.on_lines(
            name if label == letters.shown(name, most) else label, most, MOST_ON_A_LINE
        )
        for name, label in letters.shown_apart(places, most).items()
    }


def _draw_arrow(axes, ends, i: int, arrow: Arrow, fns, radius: float, many: bool) -> None:
    """The i-th from one region to another, whose dots have a radius. many: it is one of many."""
    (a, b), (colour, style) = ends, _line_style(arrow.fn, fns)
    bend = 0.0 if arrow.both and not i else 0.1 + 0.09 * i
    axes.add_patch(
        FancyArrowPatch(
            a,
            b,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="<|-|>" if arrow.both else "-|>",
            mutation_scale=8 if many else 11,
            shrinkA=radius / 2 + 6,
            shrinkB=radius / 2 + 6,
            color=colour,
            lw=_line_width(arrow.weight) * (0.5 if many else 1.0),
            linestyle=style,
            alpha=0.5 if many else 0.85,
            zorder=2,
        )
    )
    if arrow.label and not many:
        at = (0.5 if arrow.both else NEAR_READER) + 0.12 * (i % 3)
        _offset_label(axes, a, b, (bend, at), arrow.label, colour)


def _places(names: list[str]) -> dict[str, tuple[float, float]]:
    count = len(names)
    if count == 1:
        return {names[0]: (0.0, 0.0)}
    angles = [math.pi / 2 - 2 * math.pi * i / count for i in range(count)]
    return {n: (1.15 * math.cos(a), math.sin(a)) for n, a in zip(names, angles, strict=True)}


def _beside_node(x: float, y: float) -> tuple[float, float, str, str]:
    """Where a label lies that leads away from the middle, and how it is aligned there."""
    length = math.hypot(x / 1.15, y)
    dx, dy = (x / 1.15 / length, y / length) if length else (0.0, 1.0)
    side = "left" if dx > 0.25 else "right" if dx < -0.25 else "center"
    height = "bottom" if dy > 0.75 else "top" if dy < -0.75 else "center"
    return x + 0.13 * dx, y + 0.13 * dy, side, height


def _named_places(axes: Axes, places: Mapping, labels: Mapping[str, str]) -> list[str]:
    """Those whose labels stay off the ones before: many crowd near the top and the bottom."""
    place, (wide, high) = axes.get_position(original=True), axes.figure.get_size_inches()
    inch = (2 * GRAPH[0] / (place.width * wide), 2 * GRAPH[1] / (place.height * high))
    before = {"left": 0.0, "center": 0.5, "right": 1.0, "bottom": 0.0, "top": 1.0}
    kept: dict[str, tuple[float, float, float, float]] = {}
    for name, (x, y) in places.items():
        x, y, *align = _beside_node(x, y)
        lines = labels[name].split("\n")
        size = (_inches(max(map(width_of, lines)), 11) * inch[0], 0.17 * len(lines) * inch[1])
        x, y = (at - before[a] * part for at, a, part in zip((x, y), align, size, strict=True))
        box = (x, x + size[0], y, y + size[1])
        if not any(
            box[0] < b[1] and b[0] < box[1] and box[2] < b[3] and b[2] < box[3]
            for b in kept.values()
        ):
            kept[name] = box
    return list(kept)


def _draw_lines(axes, places, arrows, fns: tuple[str, ...]) -> None:
    """Thousands of connections as one collection; which way they go, `schema show` says."""
    pairs = [(src, dst, arrow.fn) for (src, dst), kinds in arrows.items() for arrow in kinds]
    axes.add_collection(
        LineCollection(
            [(places[src], places[dst]) for src, dst, _ in pairs],
            colors=[_line_style(fn, fns)[0] for *_, fn in pairs],
            linewidths=0.4,
            alpha=max(0.06, min(0.5, 300 / len(pairs))),
            zorder=2,
        )
    )


def _between(edges: Mapping[str, tuple[Source, ...]]) -> dict[tuple[str, str], list[Arrow]]:
    """(src, dst) -> one arrow for each function type; two equal directions become one arrow."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for src, sources in edges.items():
        for s in sources:
            if s.active:
                weights = found.setdefault((src, s.region), {}).setdefault(s.fn, {})
                weights[s.offset] = max(s.weight, weights.get(s.offset, 0.0))
    result: dict[tuple[str, str], list[Arrow]] = {}
    for (src, dst), kinds in found.items():
        for fn, weights in kinds.items():
            both = src != dst and found.get((dst, src), {}).get(fn) == weights
            if both and any(arrow.fn == fn for arrow in result.get((dst, src), [])):
                continue
            result.setdefault((src, dst), []).append(Arrow(fn, weights, both))
    return result


def _line_style(fn: str, fns: tuple[str, ...]) -> tuple[str, object]:
    if fn == "cross_attention":
        return "#475569", "-"
    i = fns.index(fn)
    return OTHER_COLOURS[i % len(OTHER_COLOURS)], OTHER_STYLES[i % len(OTHER_STYLES)]


def _line_width(weight: float) -> float:
    return min(5.0, max(0.7, 1.7 * weight**0.7))


def _ring(axes, place, size: float, colour, style, width: float) -> None:
    axes.scatter(
        *place, s=size**2, facecolors="none", edgecolors=colour, linewidths=width, linestyle=style,
        zorder=3,
    )  # fmt: skip


def _offset_label(axes, a, b, place: tuple[float, float], text: str, colour: str) -> None:
    """On the arrow that `arc3` bends: place is (bend, part of the way from a to b)."""
    (ax, ay), (bx, by), (bend, at) = a, b, place
    side = 2 * at * (1 - at) * bend
    x, y = ax + at * (bx - ax) + side * (by - ay), ay + at * (by - ay) - side * (bx - ax)
    box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85}
    axes.text(x, y, text, size=8, color=colour, ha="center", va="center", bbox=box, zorder=3)


def _node_label(axes, name: str, x: float, y: float, rings: list[tuple[str, str]]) -> None:
    """The name beside its dot, away from the middle; beyond it what its rings say, in colours."""
    x, y, side, height = _beside_node(x, y)
    style = {"textcoords": "offset points", "ha": side, "va": height, "zorder": 5}
    axes.annotate(name, (x, y), xytext=(0, 0), size=11, color=INK, **style)
    for i, (text, colour) in enumerate(rings):
        away = (15 + 7 * name.count("\n") + 11 * i) * (1 if height == "bottom" else -1)
        axes.annotate(text, (x, y), xytext=(0, away), size=8, color=colour, **style)


# The clock: who takes new samples, and who must be computed anew because of it.


def draw_timeline(axes: Axes, sheet: Sheet) -> None:
    """One row per region, one column per control tick since the reset."""
    schema, plan, colours, _, letters = sheet
    line = timeline(schema, plan)
    rate = control_rate_hz(schema)
    shown = (
        f"the first {line.ticks} of a cycle of {_count(line.cycle)} ticks"
        if line.ticks < line.cycle
        else f"repeats every {line.cycle} ticks"
        if line.cycle > 1
        else "every tick is alike"
    )
    _heading(axes, "Clock", f"control ticks at {rate:g} Hz; {shown}")
    labels = letters.shown_apart(line.states, MOST_LETTERS)
    notes = {name: _hertz(rate / schema.layout.region_spec(name).period) for name in line.states}
    count = len(line.states)
    rows = max(count, 4) + 0.6
    named = _apart(axes, {name: row / rows for row, name in enumerate(line.states)}, size=15.0)
    for row, (name, states) in enumerate(line.states.items()):
        if name in named:
            axes.text(-0.25, row + 0.5, labels[name], size=11, color=INK, ha="right", va="center")
            axes.text(line.ticks + 0.25, row + 0.5, notes[name], size=10, color=QUIET, va="center")
        for tick, state in enumerate(states):
            style = {"fc": PAPER, "ec": LINE}
            if state == OBSERVES:
                style = {"fc": colours[name], "ec": "white"}
            elif state == RECOMPUTED:
                style = {"fc": _tint(colours[name], 0.0), "ec": colours[name], "hatch": "////"}
            axes.add_patch(Rectangle((tick + 0.04, row + 0.14), 0.92, 0.72, lw=0.8, **style))
    every = 1 if line.ticks <= 16 else 2
    for tick in range(0, line.ticks, every):
        axes.text(tick + 0.5, count + 0.1, str(tick), size=10, color=QUIET, ha="center", va="top")
    handles = [
        Patch(fc="#475569", label="takes new samples"),
        Patch(fc="#e2e8f0", ec="#475569", hatch="////", label="recomputed: reads one that changed"),
        Patch(fc=PAPER, ec=LINE, label="as before"),
    ]
    _legend(axes, handles, columns=3)
    before, after = _beside_clock(axes, labels.values(), notes.values())
    axes.set(xlim=(-before * line.ticks, (1 + after) * line.ticks), ylim=(rows, 0))
    axes.axis("off")


def _beside_clock(axes: Axes, names: Iterable[str], notes: Iterable[str]) -> tuple[float, float]:
    """Room on the left and the right of the ticks, as parts of what they take."""
    wide = axes.get_position(original=True).width * axes.figure.get_size_inches()[0]
    left = max(0.28 / 1.38 * wide, _inches(max(map(width_of, names), default=0), 11) + 0.25)
    right = max(0.1 / 1.38 * wide, _inches(max(map(width_of, notes), default=0), 10) + 0.12)
    return left / (wide - left - right), right / (wide - left - right)


def _count(number: int) -> str:
    """A cycle's length may have thousands of digits."""
    return f"{number}" if number < 10**9 else "more than a billion"


def _hertz(rate: float) -> str:
    return f"{rate:.0f} Hz" if 999.5 <= rate < 999_999.5 else f"{rate:.3g} Hz"
