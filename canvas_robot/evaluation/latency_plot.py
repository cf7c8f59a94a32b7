"""latency.png: where the time from image to command goes, tick by tick, and its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canvas_robot.evaluation.records import RunMeta, TickRecord

# From the bottom up. `wait`, the image waiting for its tick, swings most and lies on top.
STAGE_COLOURS = {
    "transport": "#94a3b8",
    "assembly": "#67b7d1",
    "model": "#2563a6",
    "publish": "#f59e0b",
    "wait": "#dbe3ec",
}
HOLD_COLOUR = "#fde68a"
INK = "#1f2937"
QUIET = "#6b7280"


def write_latency_plot(
    path: Path, records: Sequence[TickRecord], summary: Mapping, meta: RunMeta
) -> None:
    """Write the plot of records in tick order, at least one active, and of their `summarise`."""
    figure = Figure(figsize=(11, 4.4), dpi=150, layout="constrained", facecolor="white")
    over_time, spread = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    active = [record for record in records if record.state == "active"]
    totals = np.array([record.total_ms for record in active])
    _draw_stages(over_time, records, active, meta)
    top = 1.12 * max(totals.max(), 1.0)
    if meta.period_ms < 1.5 * top:
        top = max(top, 1.12 * meta.period_ms)
        _draw_period(over_time, meta.period_ms)
    _draw_spread(spread, totals, summary["latency_ms"]["total"], top)
    over_time.set_ylim(0, top)
    figure.suptitle(
        f"Image to command (active ticks: {len(active)}, control period: {meta.period_ms:.0f} ms)",
        x=0.01,
        ha="left",
        color=INK,
        fontsize=12,
        fontweight="bold",
    )
    figure.savefig(path)


def _draw_stages(
    axes: Axes, records: Sequence[TickRecord], active: Sequence[TickRecord], meta: RunMeta
) -> None:
    half = 0.5 * meta.period_ms / 1000.0
    # Few ticks stand apart as bars; many would only flicker.
    bar = half if len(records) > 150 else 0.9 * half
    times = np.array([record.wall_s for record in active])
    # Each tick is a bar; NaN keeps the bars apart, so that holds and missed ticks leave gaps.
    edges = np.stack([times - bar, times + bar, np.full_like(times, np.nan)], axis=1).ravel()
    base = np.zeros(len(active))
    for stage, colour in STAGE_COLOURS.items():
        heights = np.array([record.stage_ms(stage) for record in active])
        low, high = np.repeat(base, 3), np.repeat(base + heights, 3)
        axes.fill_between(edges, low, high, color=colour, linewidth=0, label=stage)
        base = base + heights
    holds = [record.wall_s for record in records if record.state == "hold"]
    if holds:
        # A little wider than a period, so that neighbours join in spite of jitter.
        spans = [(time - 1.1 * half, 2.2 * half) for time in holds]
        axes.broken_barh(
            spans,
            (0, 1),
            transform=axes.get_xaxis_transform(),
            color=HOLD_COLOUR,
            linewidth=0,
            antialiased=False,
            zorder=0,
            label="hold",
        )
    axes.set_xlim(records[0].wall_s - half, records[-1].wall_s + half)
    axes.set_xlabel("time since start (s)", color=QUIET)
    axes.set_ylabel("milliseconds", color=QUIET)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(labels),
        frameon=False,
        fontsize=8.5,
        handlelength=1.1,
        columnspacing=1.4,
        borderaxespad=0.2,
    )
    _plain(axes)


def _draw_period(axes: Axes, period_ms: float) -> None:
    axes.axhline(period_ms, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"control period {period_ms:.0f} ms",
        (1, period_ms),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        color=INK,
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
    )


def _draw_spread(
    axes: Axes, totals: np.ndarray, percentiles: Mapping[str, float], top: float
) -> None:
    axes.hist(
        totals,
        bins=np.linspace(0, top, 41),
        orientation="horizontal",
        color="#cbd5e1",
        edgecolor="white",
        linewidth=0.4,
    )
    # Labels beside their lines, moved up where they would touch.
    height = -np.inf
    for name, value in percentiles.items():
        axes.axhline(value, color=INK, linewidth=0.9)
        height = max(value, height + 0.06 * top)
        axes.annotate(
            f"{name}  {value:.1f} ms",
            (1.03, height),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            color=INK,
            annotation_clip=False,
        )
    axes.set_xlabel("ticks", color=QUIET)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d1d5db")
    axes.tick_params(colors=QUIET, labelsize=8.5)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
