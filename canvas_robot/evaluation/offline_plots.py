"""The pictures of an offline evaluation: errors by component, by step of the chunk, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from canvas_robot.evaluation.offline import POLICY, PREVIOUS, ZERO, Recording
from canvas_robot.evaluation.page import INK, LINE, QUIET

COLOURS = {POLICY: "#2563a6", PREVIOUS: "#e08a1e", ZERO: "#a3adba"}
DASHES = {POLICY: "-", PREVIOUS: "-", ZERO: (0, (3, 2))}  # baselines often lie on one another
CHUNK = "#9cc3e6"
CHANCE = 0.5
_HEADLINE = {"color": INK, "fontsize": 12, "fontweight": "bold"}


def write_errors(path: Path, report: Mapping) -> None:
    """errors.png: each component's error beside the baselines', and the gripper's accuracy."""
    figure = Figure(figsize=(12, 4.8), dpi=130, layout="constrained", facecolor="white")
    motion, gripper = figure.subplots(1, 2, width_ratios=(7, 4))
    by_predictor, names = report["predictors"], report["components"]
    _bars(
        motion,
        [f"{name}\n({unit})" if unit != "1" else name for name, unit in names.items()],
        {
            predictor: [of["components"][name]["normalised_mean_absolute"] for name in names]
            for predictor, of in by_predictor.items()
        },
    )
    motion.set_ylabel("mean absolute error, normalised", color=QUIET)
    motion.set_title("by component", loc="left", fontsize=10, color=INK)
    shares = ("accuracy", "balanced", "at_changes")
    _bars(
        gripper,
        ["all targets", "open and closed\nweigh the same", "where the\ntarget changes"],
        {p: [of["gripper"][share] for share in shares] for p, of in by_predictor.items()},
    )
    gripper.set_ylim(0, 1.05)
    gripper.axhline(CHANCE, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    gripper.set_ylabel("share that is right", color=QUIET)
    gripper.set_title("gripper", loc="left", fontsize=10, color=INK)
    motion.set_ylim(top=1.3 * motion.get_ylim()[1])  # room for the legend
    _legend(motion)
    _headline(figure, report, "Action error beside the baselines")
    figure.savefig(path)


def write_horizon(path: Path, report: Mapping) -> None:
    """horizon.png: the error at each step of the chunk."""
    figure = Figure(figsize=(12, 4.2), dpi=130, layout="constrained", facecolor="white")
    motion, gripper = figure.subplots(1, 2)
    for axes, key in ((motion, "motion"), (gripper, "gripper")):
        for predictor, of in report["predictors"].items():
            _band(axes, of["by_step"][key], predictor)
        steps = range(report["horizon"])
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.set_xlabel("step of the chunk (control ticks after the decision)", color=QUIET)
        _plain(axes)
    motion.set_ylabel("mean absolute error of motion, normalised", color=QUIET)
    gripper.set_ylim(0, 1.05)
    gripper.set_ylabel("gripper: share that is right", color=QUIET)
    _legend(motion)
    motion.set_ylim(0, 1.15 * motion.get_ylim()[1])
    _headline(figure, report, "Error by step of the chunk")
    figure.savefig(path)


def write_curves(
    path: Path,
    recordings: Sequence[tuple[str, Recording]],
    report: Mapping,
    scale: np.ndarray,
) -> None:
    """episodes.png: a few episodes' recorded actions and predicted ones, a row for each.

    Args:
        recordings: each with what is said of it.
        scale: (7,), units for 1 of the normalised action: panels show at least 2 of them.
    """
    names, count = report["components"], len(recordings)
    figure = Figure(figsize=(16, 2.2 * count + 0.7), dpi=120, facecolor="white")
    rows = figure.subfigures(count, 1, squeeze=False)[:, 0]
    limits = [_limits([each for _, each in recordings], k, scale[k]) for k in range(len(names))]
    for row, (said, recording) in zip(rows, recordings, strict=True):
        panels = row.subplots(1, len(names))
        row.subplots_adjust(left=0.04, right=0.995, bottom=0.13, top=0.76, wspace=0.38)
        row.suptitle(_short(said), x=0.006, y=0.97, ha="left", fontsize=10.5, color=INK)
        for k, (axes, (name, unit)) in enumerate(zip(panels, names.items(), strict=True)):
            _curve(axes, recording, k)
            axes.set_ylim(limits[k])
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.set_title(name if unit == "1" else f"{name} ({unit})", fontsize=9, color=QUIET)
            _plain(axes)
    _curve_legend(panels[-1], rows[0])
    figure.savefig(path)


def _curve(axes: Axes, recording: Recording, k: int) -> None:
    ticks, horizon = np.arange(len(recording.recorded)), recording.recorded.shape[1]
    recorded, predicted = recording.recorded[:, 0, k], recording.predicted[:, 0, k]
    for start in range(0, len(ticks), horizon):
        known = ~recording.missing[start]
        chunk = recording.predicted[start, known, k]
        label = "predicted: whole chunks" if start == 0 else None
        axes.plot(start + np.arange(len(chunk)), chunk, color=CHUNK, linewidth=3.5, label=label)
    axes.plot(ticks, recorded, color=INK, linewidth=1.1, label="recorded")
    axes.plot(ticks, predicted, color=COLOURS[POLICY], linewidth=1.1, label="predicted: first step")


def _limits(recordings: Sequence[Recording], k: int, scale: float) -> tuple[float, float]:
    """One range for all episodes; it shows at least 2 normalised units."""
    shown = np.concatenate(
        [each[..., k].ravel() for r in recordings for each in (r.recorded, r.predicted)]
    )
    low, high = float(shown.min()), float(shown.max())
    half = max(1.08 * (high - low), 2 * scale) / 2
    return (low + high) / 2 - half, (low + high) / 2 + half


def _curve_legend(axes: Axes, row: SubFigure) -> None:
    handles, labels = axes.get_legend_handles_labels()
    row.legend(
        handles,
        labels,
        loc="upper right",
        bbox_to_anchor=(0.998, 1.02),
        ncols=len(labels),
        frameon=False,
        fontsize=9,
    )


def _bars(
    axes: Axes, labels: Sequence[str], heights: Mapping[str, Sequence[Mapping[str, float | None]]]
) -> None:
    """Groups of bars, a colour for each predictor, with their intervals."""
    width = 0.8 / len(heights)
    for number, (predictor, estimates) in enumerate(heights.items()):
        places = np.arange(len(labels)) + (number - (len(heights) - 1) / 2) * width
        values = [np.nan if e["value"] is None else e["value"] for e in estimates]
        axes.bar(places, values, 0.92 * width, color=COLOURS[predictor], label=predictor)
        for place, e in zip(places, estimates, strict=True):
            if e["low"] is not None:
                axes.plot([place, place], [e["low"], e["high"]], color=INK, linewidth=1)
            if not e["value"]:
                _at_foot(axes, place, "none" if e["value"] is None else "0")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(bottom=0)
    _plain(axes)


def _at_foot(axes: Axes, place: float, text: str) -> None:
    """Where no bar can be seen."""
    axes.annotate(
        text,
        (place, 0),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=QUIET,
    )


def _band(axes: Axes, estimates: Sequence[Mapping], predictor: str) -> None:
    colour, dashes = COLOURS[predictor], DASHES[predictor]
    steps = np.arange(len(estimates))
    low, value, high = (
        np.array([np.nan if e[key] is None else e[key] for e in estimates])
        for key in ("low", "value", "high")
    )
    axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    line = {"marker": "o", "markersize": 4, "linewidth": 1.6, "linestyle": dashes}
    axes.plot(steps, value, color=colour, label=predictor, **line)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="upper right", labelcolor=INK)


def _headline(figure: Figure, report: Mapping, what: str) -> None:
    """Two lines above the panels, which make room."""
    data, height = report["data"], figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.52 / height))
    untrained = "" if report["trained"] else " (untrained)"
    figure.text(0.01, 1 - 0.24 / height, f"{what}{untrained}", **_HEADLINE)
    figure.text(
        0.01,
        1 - 0.45 / height,
        f"{data['dataset']}/{data['split']}: {data['episodes']:,} episodes, "
        f"{data['windows']:,} windows; {report['actions']} actions; lines and bands: "
        f"{report['confidence']:.0%} of {report['resamples']:,} draws of episodes",
        color=QUIET,
        fontsize=9,
    )


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=QUIET, labelsize=8.5)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)


def _short(text: str, length: int = 150) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
