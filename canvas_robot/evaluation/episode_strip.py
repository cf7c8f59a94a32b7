"""draw_episode: a recorded episode as one figure: film strips of its cameras above its curves.

Each frame stands above its own time in the curves. What is drawn is as stored, nothing relabelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from canvas_robot.data.stored import STEP_NS, StoredEpisode
from canvas_robot.evaluation.lettering import lettering, quiet_fonts
from canvas_robot.evaluation.schema_picture import INK, LINE, PAPER, QUIET

STEP_S = STEP_NS / 1e9
FILM, HOLE = "#111827", "#e5e7eb"
# x, y, z as in robotics' own pictures: red, green, blue; and as roll, pitch, yaw turn about them.
AXES = ("#dc2626", "#16a34a", "#2563eb")
STATE, TARGET = "#0f766e", "#f59e0b"
MOST_FRAMES = 16
_SHOWN_AS_0 = 1e-6  # rounding leaves smaller numbers

# Inches.
WIDTH, LEFT, RIGHT = 15.0, 1.75, 1.6
WIDEST_FRAME, MARGIN = 2.4, 0.035
TOP, HOLES, GAP, PANEL, BETWEEN, BOTTOM = 1.25, 0.13, 0.16, 1.12, 0.26, 0.62


class Curve(NamedTuple):
    """One line of a panel: its name beside the last value, and its values, one a step."""

    name: str
    colour: str
    values: np.ndarray
    stepped: bool = False


class Panel(NamedTuple):
    """Curves that share a unit, and what they are; least_range: values that are in view."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    least_range: tuple[float, ...] = ()


def draw_episode(episode: StoredEpisode, path: str | Path, frames: int = 8) -> None:
    """Writes the figure; the ending of `path` (.png or .svg) says the format.

    frames: pictures of each camera, at most one a step.

    Raises ValueError for another ending, EpisodeError when a picture cannot be decoded.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"{path}: expected a file that ends with .png or .svg")
    with quiet_fonts():
        episode_figure(episode, frames).savefig(path, dpi=110)


def shown_steps(steps: int, frames: int) -> list[int]:
    """Steps in the middle of `frames` equal parts of an episode; all, where it has fewer."""
    frames = max(1, min(frames, steps, MOST_FRAMES))
    return [int((k + 0.5) * steps / frames) for k in range(frames)]


def panels(episode: StoredEpisode) -> tuple[Panel, ...]:
    """The seven curves of the state and the seven of the action, by unit."""
    state, action = episode.states.T, episode.actions.T
    position, turn = ("x", "y", "z"), ("roll", "pitch", "yaw")
    return (
        Panel("state: position", "m", _three(position, state[:3])),
        Panel("state: rotation", "rad", _three(turn, state[3:6])),
        Panel("action: move", "m per step", _three([f"d{n}" for n in position], action[:3], True)),
        Panel("action: turn", "rad per step", _three([f"d{n}" for n in turn], action[3:6], True)),
        Panel(
            "gripper",
            "0 closed\n1 open",
            (
                Curve("action", TARGET, action[6], stepped=True),
                Curve("state", STATE, state[6]),
            ),
            least_range=(0.0, 1.0),
        ),
    )


@rc_context({"text.parse_math": False})  # an instruction may hold dollar signs
def episode_figure(episode: StoredEpisode, frames: int = 8) -> Figure:
    """A strip for each camera that has pictures, then the panels; all share the time axis."""
    steps = shown_steps(len(episode), frames)
    cameras = [camera for camera in episode.layout.cameras if episode.has_picture(camera)]
    strips = [episode.images(camera, steps) for camera in cameras]
    heights = [_frame_size(images)[1] + 2 * HOLES for images in strips]
    shown = panels(episode)
    height = TOP + sum(h + GAP for h in heights) + len(shown) * (PANEL + BETWEEN) + BOTTOM  # inches
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    _title(figure, episode, cameras, height)

    def place(top: float, inches: float) -> Axes:
        box = (
            LEFT / WIDTH,
            1 - (top + inches) / height,
            1 - (LEFT + RIGHT) / WIDTH,
            inches / height,
        )
        return figure.add_axes(box)

    top = TOP
    for camera, images, strip in zip(cameras, strips, heights, strict=True):
        _draw_strip(place(top, strip), camera, images, steps)
        top += strip + GAP
    top += BETWEEN - GAP
    for panel in shown:
        last = panel is shown[-1]
        _draw_panel(place(top, PANEL), panel, steps, len(episode), last)
        top += PANEL + BETWEEN
    return figure


def _three(names, rows: np.ndarray, stepped: bool = False) -> tuple[Curve, ...]:
    return tuple(
        Curve(name, colour, values, stepped)
        for name, colour, values in zip(names, AXES, rows, strict=True)
    )


def _title(figure: Figure, episode: StoredEpisode, cameras: list[str], height: float) -> None:
    instruction = " ".join(episode.instruction.split())
    letters = lettering([instruction], weight="bold")
    figure.text(
        LEFT / WIDTH, 1 - 0.42 / height, letters.shown(instruction, 70) or "no instruction",
        size=21, weight="bold", va="center", family=letters.families,
        color=INK if instruction else QUIET, style="normal" if instruction else "italic",
    )  # fmt: skip
    black = [camera for camera in episode.layout.cameras if camera not in cameras]
    seconds = f"{(len(episode) - 1) * STEP_S:.1f} s at {1 / STEP_S:g} Hz"
    facts = [episode.name, f"{len(episode)} steps, {seconds}"]
    if black:
        facts.append(f"black: {', '.join(black)}")
    figure.text(
        LEFT / WIDTH, 1 - 0.82 / height, "   ·   ".join(facts), size=12, color=QUIET, va="center"
    )


def _frame_size(images: np.ndarray) -> tuple[float, float]:
    """Inches of a frame, its share of the width at most."""
    width = min((WIDTH - LEFT - RIGHT) / len(images), WIDEST_FRAME)
    rows, columns = images.shape[1:3]
    return width, width * rows / columns


def _draw_strip(axes: Axes, camera: str, images: np.ndarray, steps: list[int]) -> None:
    """Frames side by side on a dark film; coordinates are inches, y down."""
    width = WIDTH - LEFT - RIGHT
    frame_width, frame_height = _frame_size(images)
    height = frame_height + 2 * HOLES
    film = FancyBboxPatch(
        (0.05, 0.05), width - 0.1, height - 0.1, boxstyle="round,pad=0.05", fc=FILM, lw=0
    )
    axes.add_patch(film)
    for k, (image, step) in enumerate(zip(images, steps, strict=True)):
        middle = (k + 0.5) * width / len(images)
        left, right = middle - frame_width / 2 + MARGIN, middle + frame_width / 2 - MARGIN
        top, bottom = HOLES + MARGIN, HOLES + frame_height - MARGIN
        axes.imshow(
            image,
            extent=(left, right, bottom, top),
            interpolation="lanczos" if image.shape[1] < 200 else "antialiased",
            aspect="auto",
            zorder=2,
        )
        axes.text(
            left + 0.06, top + 0.06, f"{step}", size=9, color="white", va="top", zorder=3,
            bbox={"boxstyle": "round,pad=0.22", "fc": FILM, "ec": "none", "alpha": 0.72},
        )  # fmt: skip
    for y in (HOLES / 2, height - HOLES / 2):
        axes.plot((0.12, width - 0.1), (y, y), color=HOLE, lw=3.4, ls=(0, (2.1, 3)), zorder=2)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.text(-0.16, height / 2, camera, size=12, weight="bold", color=INK, ha="right", va="center")


def _draw_panel(axes: Axes, panel: Panel, steps: list[int], total: int, last: bool) -> None:
    for step in steps:
        axes.axvline(step, color=LINE, lw=0.7, ls=(0, (2, 2)), zorder=1)
    at = np.arange(total)
    for curve in panel.curves:
        style = {"color": curve.colour, "lw": 1.7, "zorder": 3}
        if curve.stepped:  # an action leads from its step to the next
            axes.stairs(curve.values, np.arange(total + 1), baseline=None, **style)
        else:
            axes.plot(at, curve.values, marker="o" if total == 1 else None, **style)
    low, high = _limits(panel)
    axes.set(xlim=(-0.5, total - 0.5), ylim=(low, high), facecolor=PAPER)
    if low < 0 < high:
        axes.axhline(0, color=QUIET, lw=0.6, zorder=2)
    _name_curves(axes, panel, low, high)
    axes.text(-0.065, 0.62, panel.title.replace(": ", "\n"), transform=axes.transAxes, size=11,
              weight="bold", color=INK, ha="right", va="center")  # fmt: skip
    axes.text(-0.065, 0.2, panel.unit, transform=axes.transAxes, size=9.5, color=QUIET,
              ha="right", va="center")  # fmt: skip
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=QUIET, labelsize=9, length=3, labelbottom=last)
    axes.locator_params(axis="y", nbins=4)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if last:
        axes.set_xlabel("step (0.2 s each)", size=10.5, color=QUIET)


def _limits(panel: Panel) -> tuple[float, float]:
    values = np.concatenate([*(curve.values for curve in panel.curves), panel.least_range])
    low, high = float(values.min()), float(values.max())
    margin = 0.12 * (high - low) or 0.05
    return low - margin, high + margin


def _name_curves(axes: Axes, panel: Panel, low: float, high: float) -> None:
    """Names beside the last values, moved apart where they would run into each other."""
    ends = [float(np.clip((c.values[-1] - low) / (high - low), 0, 1)) for c in panel.curves]
    order = sorted(range(len(ends)), key=ends.__getitem__)
    heights = spread([ends[i] for i in order], least=0.2)
    for i, y in zip(order, heights, strict=True):
        curve = panel.curves[i]
        axes.add_patch(Rectangle((1.008, y - 0.012), 0.012, 0.024, transform=axes.transAxes,
                                 fc=curve.colour, lw=0, clip_on=False))  # fmt: skip
        last = curve.values[-1] if abs(curve.values[-1]) >= _SHOWN_AS_0 else 0.0
        text = f"{curve.name}  {last:.3g}"
        axes.text(1.026, y, text, transform=axes.transAxes, size=10, color=curve.colour,
                  weight="bold", va="center")  # fmt: skip


def spread(ends: list[float], least: float) -> list[float]:
    """Rising heights in 0..1 moved apart, each pair by as much, until they lie `least` apart."""
    heights, room = np.array(ends), least * np.arange(len(ends))
    for _ in range(100):
        short = np.maximum(0, least - np.diff(heights)) / 2
        if not short.any():
            break
        heights[1:] += short
        heights[:-1] -= short
        heights = np.clip(heights, room, 1 - room[::-1])
    return heights.tolist()
