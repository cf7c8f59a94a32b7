"""The picture of a replay: poses over time, recorded and simulated, and errors by reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from canvas_robot.evaluation.page import INK, LINE, QUIET
from canvas_robot.evaluation.replay_conventions import CONVENTIONS, POSITION, RIGHT, ROTATION
from canvas_robot.evaluation.replay_figures import (
    AS_IT_IS,
    Fit,
    fit,
    position_errors,
    rotation_errors,
)
from canvas_robot.evaluation.replay_tracking import ROWS_PER_STEP, Replayed, Track
from canvas_robot.signals.pose import BRIDGE_DEFAULT_ROTATION, rpy_from_matrix

SHOWN_EPISODES = 4
BLUE, ORANGE, GREEN, GREY = "#2563a6", "#e08a1e", "#3c8d5a", "#c3cad4"
COMPONENTS = ("x (mm)", "y (mm)", "z (mm)", "roll (°)", "pitch (°)", "yaw (°)")
_LEAST_SPANS = np.array([30.0] * 3 + [12.0] * 3)  # of a panel's axis
_ROW, _FOOT = 1.8, 4.4  # inches
_LATER = {"color": BLUE, "linewidth": 3.0, "alpha": 0.35}
_PLAIN = {"color": BLUE, "linewidth": 1.4}
_RECORDED = {"color": INK, "marker": "o", "markersize": 4, "linewidth": 0}


@dataclass(frozen=True, eq=False)
class _Curves:
    """Of one episode, each (n, 6) in the units of COMPONENTS; `later`: the fit taken out."""

    recorded: np.ndarray
    simulated: np.ndarray
    later: np.ndarray

    @property
    def low(self) -> np.ndarray:
        return self._all().min(axis=0)

    @property
    def high(self) -> np.ndarray:
        return self._all().max(axis=0)

    def _all(self) -> np.ndarray:
        return np.concatenate([self.recorded, self.simulated, self.later])


def write_replay(path: Path, episodes: Sequence[Replayed], figures: Mapping) -> None:
    """A PNG: some episodes, a row each, from much motion to little; below, the errors of all.

    figures: of these episodes, see `tracking_figures`.
    """
    shown, taken = _shown(episodes), fit(episodes, RIGHT)
    heights = [_ROW] * len(shown) + [_FOOT]
    figure = Figure(figsize=(16, sum(heights)), dpi=100, facecolor="white")
    *rows, foot = figure.subfigures(len(heights), 1, height_ratios=heights)
    curves = [_curves(episode, taken) for episode in shown]
    spans = np.max([_LEAST_SPANS, *(each.high - each.low for each in curves)], axis=0)
    for row, episode, each in zip(rows, shown, curves, strict=True):
        _draw_episode(row, episode, each, spans)
    _draw_legend(rows[0], taken)
    _draw_errors(foot, episodes, figures)
    figure.savefig(path)


def _shown(episodes: Sequence[Replayed]) -> list[Replayed]:
    """Spread evenly from the one that moves most on."""

    def motion(episode: Replayed) -> float:
        return float(np.ptp(episode.recorded.positions, axis=0).max())

    ordered = sorted(episodes, key=motion, reverse=True)
    count = min(SHOWN_EPISODES, len(ordered))
    return [ordered[place * len(ordered) // count] for place in range(count)]


def _curves(episode: Replayed, taken: Fit) -> _Curves:
    simulated = _components(episode.tracks[RIGHT])
    rows = np.maximum(np.arange(len(simulated)) - taken.late, 0)
    offset = np.append(taken.offset * 1e3, np.zeros(3))
    return _Curves(_components(episode.recorded), simulated, simulated[rows] - offset)


def _components(track: Track) -> np.ndarray:
    """(n, 6), angles in Bridge's convention and without jumps of a whole turn."""
    rpy = rpy_from_matrix(track.rotations @ BRIDGE_DEFAULT_ROTATION.T)
    return np.concatenate([track.positions * 1e3, np.degrees(np.unwrap(rpy, axis=0))], axis=1)


def _draw_episode(row: SubFigure, episode: Replayed, curves: _Curves, spans: np.ndarray) -> None:
    fine = np.arange(len(curves.simulated)) / ROWS_PER_STEP
    middles = (curves.low + curves.high) / 2
    panels = row.subplots(1, len(COMPONENTS))
    row.subplots_adjust(left=0.035, right=0.995, bottom=0.16, top=0.72, wspace=0.28)
    text = f"episode {episode.number}: {episode.instruction or 'no instruction'}"
    row.suptitle(text[:100], x=0.006, y=0.97, ha="left", fontsize=10.5, color=INK)
    for k, (axes, name) in enumerate(zip(panels, COMPONENTS, strict=True)):
        axes.plot(fine, curves.later[:, k], **_LATER)
        axes.plot(fine, curves.simulated[:, k], **_PLAIN)
        axes.plot(curves.recorded[:, k], **_RECORDED)
        axes.set_ylim(middles[k] - 0.55 * spans[k], middles[k] + 0.55 * spans[k])
        axes.set_title(name, fontsize=9, color=QUIET)
        axes.locator_params(axis="x", integer=True)
        _plain(axes)


def _draw_legend(row: SubFigure, taken: Fit) -> None:
    moved = ", ".join(f"{0.0 - value:+.1f}" for value in taken.offset * 1e3)
    later = f"the same {taken.lag_s * 1e3:.0f} ms later and moved by ({moved}) mm"
    lines = {
        "recorded states, each 0.2 s": _RECORDED,
        "simulated, open loop": _PLAIN,
        later: _LATER,
    }
    row.legend(
        [Line2D([], [], **style) for style in lines.values()],
        list(lines),
        loc="upper right",
        bbox_to_anchor=(0.998, 1.02),
        ncols=len(lines),
        frameon=False,
        fontsize=9,
    )


def _draw_errors(foot: SubFigure, episodes: Sequence[Replayed], figures: Mapping) -> None:
    panels = foot.subplots(1, 4, width_ratios=(3, 4, 3, 4))
    foot.subplots_adjust(left=0.045, right=0.995, bottom=0.19, top=0.9, wspace=0.42)
    for (histogram, bars), part, key, errors, unit in zip(
        (panels[:2], panels[2:]),
        (POSITION, ROTATION),
        ("position_mm", "rotation_deg"),
        (position_errors, rotation_errors),
        ("mm", "degrees"),
        strict=True,
    ):
        _draw_histogram(
            histogram,
            {
                "no motion": (errors(episodes, "no motion", AS_IT_IS), GREY),
                "as recorded": (errors(episodes, RIGHT, AS_IT_IS), BLUE),
            },
        )
        histogram.set_title(
            f"{part} error of {figures['steps']:,} steps", loc="left", fontsize=10, color=INK
        )
        histogram.set_xlabel(unit, color=QUIET)
        _draw_bars(bars, figures["readings"], part, key)
        bars.set_title(f"median {part} error, {unit}", loc="left", fontsize=10, color=INK)
    _draw_bar_legend(foot)


def _draw_histogram(axes: Axes, of: Mapping[str, tuple[np.ndarray, str]]) -> None:
    last = max(float(np.percentile(errors, 98)) for errors, _ in of.values())
    bins = np.linspace(0, last, 31)
    for name, (errors, colour) in of.items():
        share = np.full(len(errors), 100 / len(errors))
        axes.hist(
            np.minimum(errors, last), bins, weights=share, color=colour, alpha=0.8, label=name
        )
    axes.set_ylabel("% of steps", color=QUIET)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    _plain(axes)


def _draw_bars(axes: Axes, readings: Mapping[str, Mapping], part: str, key: str) -> None:
    """One bar a reading; the lag and the offset taken out of it: a line in it."""
    places = np.arange(len(readings))[::-1]
    for place, (name, of) in zip(places, readings.items(), strict=True):
        median, fitted = of[key]["median"], of["fitted"][key]["median"]
        axes.barh(place, median, 0.72, color=_colour(name, part))
        axes.plot([fitted, fitted], [place - 0.36, place + 0.36], color=INK, linewidth=1.6)
        axes.annotate(
            f"{median:.1f}", (max(median, fitted), place), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    axes.set_yticks(places, list(readings))
    axes.margins(x=0.12)
    _plain(axes)


def _draw_bar_legend(foot: SubFigure) -> None:
    kinds = {
        "the right reading": BLUE,
        "wrong in this part": ORANGE,
        "right in this part, else wrong": GREY,
        "made from the states that were reached": GREEN,
    }
    line = "with the reading's own lag and offset taken out"
    foot.legend(
        [*(Patch(color=colour) for colour in kinds.values()), Line2D([], [], color=INK)],
        [*kinds, line],
        loc="lower center",
        ncols=len(kinds) + 1,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )


def _colour(reading: str, part: str) -> str:
    if reading not in CONVENTIONS:
        return GREEN
    if reading == RIGHT:
        return BLUE
    return ORANGE if part in CONVENTIONS[reading].wrong else GREY


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=QUIET, labelsize=8.5, length=3)
    axes.set_axisbelow(True)
