"""Timing of every connection type over the number of rows, and its picture.

Each is timed in a CanvasAttention of its own; what the types compute is in `canvas.attention`.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canvas_robot.canvas.attention import CanvasAttention
from canvas_robot.evaluation.canvas_bench import alternate
from canvas_robot.schema import (
    ATTENTION_TYPES,
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
)

SIZES = (256, 512, 1024, 2048, 4096, 8192)
FITTED = (1024, 8192)  # below, fixed costs of a call hide the growth
COLOURS = ("#2563eb", "#d97706", "#059669", "#be185d")
REFERENCES = {"cross_attention": (0, (4, 2)), "none": (0, (1, 1.5))}
INK, QUIET, LINE = "#1f2937", "#6b7280", "#d1d5db"


def attention_costs(
    sizes: Sequence[int] = SIZES,
    names: Sequence[str] = tuple(ATTENTION_TYPES),
    width: int = 64,
    heads: int = 4,
    threads: int = 1,
    repeats: int = 5,
) -> dict:
    """Forward time of each type where N rows read M = N rows, dense in time.

    The time is the whole layer's: what it spends without any edge is the time of `none`.

    Args:
        sizes: N, powers of two >= 8.
        names: function types.
        width, heads: of the layer.
        threads: of torch.
        repeats: runs of each, all types in turns; the median counts.

    Returns:
        `sizes`; `ms`, for each name a time for each size; `exponent`, for each name the e of the
        best fit time ~ N^e over the sizes in FITTED, None with fewer than two of them; `expected`,
        the registry's cost; and the conditions.

    Raises:
        ValueError: a size is no power of two, or less than 8.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        by_size = [_times(size, names, width, heads, repeats) for size in sizes]
    finally:
        torch.set_num_threads(before)
    ms = {name: [times[name] for times in by_size] for name in names}
    return {
        "sizes": list(sizes),
        "ms": ms,
        "exponent": {name: growth_exponent(sizes, ms[name]) for name in names},
        "expected": {name: ATTENTION_TYPES[name].cost for name in names},
        "width": width,
        "heads": heads,
        "threads": threads,
        "repeats": repeats,
        "torch": torch.__version__,
        "processor": platform.machine(),
    }


def _times(
    size: int, names: Sequence[str], width: int, heads: int, repeats: int
) -> dict[str, float]:
    schemas = {name: pair_schema(size, name, width) for name in names}
    layers = {name: CanvasAttention(schema, heads) for name, schema in schemas.items()}
    return alternate(layers, schemas[names[0]], repeats)


def pair_schema(rows: int, fn: str, width: int) -> CanvasSchema:
    """Region `a` reads region `b` by `fn`; both are boxes of `rows` cells, side by side."""
    t, h, w = _box(rows)
    regions = {"a": (0, t, 0, h, 0, w), "b": (0, t, h, 2 * h, 0, w)}
    layout = CanvasLayout(t, 2 * h, w, width, regions)
    return CanvasSchema(layout, CanvasTopology([Connection("a", "b", fn=fn)]))


def _box(rows: int) -> tuple[int, int, int]:
    """(t, h, w) with t = 4 or 8 and h = w (t = 2 for 8 rows)."""
    power = rows.bit_length() - 1
    if rows < 8 or rows != 2**power:
        raise ValueError(f"sizes: expected powers of two >= 8, got {rows}")
    side = 2 ** ((power - 2) // 2)
    return rows // side**2, side, side


def growth_exponent(sizes: Sequence[int], times: Sequence[float]) -> float | None:
    """Slope of log time over log size by least squares, over the sizes in FITTED."""
    low, high = FITTED
    points = [
        (math.log(size), math.log(time))
        for size, time in zip(sizes, times, strict=True)
        if low <= size <= high
    ]
    if len(points) < 2:
        return None
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return covariance / sum((x - mean_x) ** 2 for x, _ in points)


def plot_costs(result: Mapping, path: str | Path) -> None:
    """Draws what `attention_costs` returned, a panel for each family; the ending says the format.

    Grey in every panel: full attention and a layer without edges, where they were timed.
    """
    families: dict[str, list[str]] = {}
    for name in result["ms"]:
        families.setdefault(ATTENTION_TYPES[name].family, []).append(name)
    columns = min(4, len(families))
    lines = math.ceil(len(families) / columns)
    figure = Figure(figsize=(3.6 * columns, 3.5 * lines + 0.6), dpi=130, layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (family, names) in zip(panels, families.items(), strict=False):
        _draw_family(axes, family, names, result)
    for axes in panels[len(families) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("forward time (ms)", color=QUIET, fontsize=9)
    for axes in panels[max(0, len(families) - columns) : len(families)]:
        axes.set_xlabel("rows N = M", color=QUIET, fontsize=9)
        axes.xaxis.set_tick_params(labelbottom=True)
    figure.suptitle(
        "Forward time of each connection type as rows grow: expected cost and measured exponent "
        f"({FITTED[0]} to {FITTED[1]} rows)\n"
        f"width {result['width']}, {result['heads']} heads, {result['threads']} thread(s), "
        f"{result['processor']}, median of {result['repeats']}. "
        "Grey: cross_attention (dashed), a layer without edges (dotted)",
        x=0.01,
        ha="left",
        color=INK,
        fontsize=10.5,
    )
    figure.savefig(path)


def _draw_family(axes: Axes, family: str, names: Sequence[str], result: Mapping) -> None:
    sizes, ms = result["sizes"], result["ms"]
    for name, style in REFERENCES.items():
        if name in ms and name not in names:
            axes.loglog(sizes, ms[name], color="#9ca3af", linestyle=style, linewidth=1.1)
    for name, colour in zip(names, COLOURS, strict=False):
        exponent = result["exponent"][name]
        measured = "" if exponent is None else f", measured N^{exponent:.2f}"
        axes.loglog(
            sizes,
            ms[name],
            color=colour,
            linewidth=1.8,
            marker="o",
            markersize=3.5,
            label=f"{name}: {result['expected'][name]}{measured}",
        )
    axes.set_title(family, loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.legend(loc="upper left", frameon=False, fontsize=7.5, handlelength=1.2)
    axes.set_xticks(sizes, [f"{size}" for size in sizes])
    axes.minorticks_off()
    _leave_room_above(axes, ms)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=QUIET, labelsize=8)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)


def _leave_room_above(axes: Axes, ms: Mapping[str, Sequence[float]]) -> None:
    """The same limits in all panels, with a third more above for the legend."""
    low = min(min(times) for times in ms.values())
    high = max(max(times) for times in ms.values())
    axes.set_ylim(0.7 * low, 1.5 * high * (high / low) ** 0.35)
