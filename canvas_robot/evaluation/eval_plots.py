"""Pictures of an evaluation: success with its intervals, and how soon it came."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canvas_robot.evaluation.page import INK, LINE, QUIET

# Apart in lightness, too; each protocol has a mark of its own.
MARKS = {"last": ("#2563a6", "o"), "any": ("#e08a1e", "s"), "held": ("#059669", "D")}
BINS = 12


def intervals_picture(success: Mapping[str, Mapping[str, Mapping | None]]) -> bytes:
    """PNG: by environment and protocol, the share of successes with its 95% interval.

    success: by environment, what `shares` gives.
    """
    figure = Figure(
        figsize=(11, 1.1 + 0.85 * len(success)), dpi=110, layout="constrained", facecolor="white"
    )
    axes = figure.subplots()
    named = set()
    for row, shares in enumerate(success.values()):
        known = {name: of for name, of in shares.items() if of is not None}
        for place, (name, of) in enumerate(known.items()):
            colour, mark = MARKS[name]
            y = row + 0.24 * (place - (len(known) - 1) / 2)
            ends = [100 * of["low"], 100 * of["high"]]
            axes.plot(ends, [y, y], color=colour, linewidth=2.4, solid_capstyle="butt", zorder=2)
            axes.plot(
                100 * of["rate"], y, mark, color=colour, markersize=7, zorder=3, clip_on=False,
                label=None if name in named else name,
            )  # fmt: skip
            axes.annotate(
                f"{of['rate']:.1%}", (100 * of["high"], y), xytext=(6, 0), size=8.5, color=colour,
                textcoords="offset points", va="center", annotation_clip=False,
            )  # fmt: skip
            named.add(name)
    axes.set(xlim=(0, 100), ylim=(len(success) - 0.5, -0.5))
    axes.set_yticks(range(len(success)), list(success))
    axes.set_xlabel("episodes that succeed (%); lines: 95% intervals", color=QUIET, size=9)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.6)
    axes.legend(
        frameon=False, fontsize=9, labelcolor=INK, ncols=3, loc="lower right",
        bbox_to_anchor=(1, 1),
    )  # fmt: skip
    _plain(axes)
    axes.tick_params(axis="y", colors=INK, labelsize=9.5, length=0)
    return _png(figure)


def steps_picture(steps: Mapping[str, tuple[Sequence[int], int]]) -> bytes:
    """PNG: by environment, after how many steps the rule first held.

    steps: by environment, the steps of the episodes in which it did, and the longest episode.
    """
    columns = min(3, len(steps))
    rows = -(-len(steps) // columns)
    figure = Figure(figsize=(11, 2.6 * rows), dpi=110, layout="constrained", facecolor="white")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (env_id, (values, longest)) in zip(all_axes, steps.items(), strict=False):
        width = -(-longest // BINS)
        edges = np.arange(0.5, longest + width, width)
        axes.hist(values, bins=edges, color=MARKS["any"][0], edgecolor="white", linewidth=0.8)
        axes.set_title(env_id, loc="left", fontsize=9, color=INK)
        axes.set_xlim(0, longest + 1)
        axes.yaxis.get_major_locator().set_params(integer=True)
        told = f"step at which it first succeeded; {len(values)} episodes did"
        axes.set_xlabel(told, size=8.5, color=QUIET)
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
        _plain(axes)
    for axes in all_axes[len(steps) :]:
        axes.axis("off")
    return _png(figure)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=QUIET, labelsize=8.5)
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
