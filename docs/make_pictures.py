"""Draws docs/img: overview.png from the simulator and the shipped schema, path.png from boxes.

Run in the checkout: .venv/bin/python docs/make_pictures.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.transforms import Affine2D

from canvas_robot.evaluation.camera import BRIDGE_TABLE_CAMERA
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasLayout, CanvasSchema
from canvas_robot.sim.experts import ReachExpert
from canvas_robot.sim.registration import REACH_ID

IMAGES = Path(__file__).resolve().parent / "img"
DPI = 100

INK, GREY, LINE, CARD = "#1f2937", "#5b6472", "#cbd2db", "#f8fafc"
BLUE, VIOLET, GREEN, ORANGE, RED = "#2563eb", "#7c3aed", "#059669", "#ea580c", "#dc2626"
COLOURS = {"visual": BLUE, "goal": VIOLET, "proprio": GREEN, "action": ORANGE}
MEANINGS = {
    "visual": "camera patches",
    "goal": "instruction",
    "proprio": "measured pose",
    "action": "next four steps",
}

EPISODE_ID = 4
SHOWN_STEP = 9  # of the episode: the camera frame, and "now" in the chart
EXPERT = ReachExpert(speed_m=0.008, hover_m=0.13)  # slow, for a path of many steps
STEP_S = 0.2


@dataclass(frozen=True, eq=False)
class Run:
    """An episode of the scripted expert.

    frame: (480, 640, 3) uint8, the camera at SHOWN_STEP; seen: (256, 256, 3), as a policy gets it.
    targets: (steps + 1, 3) commanded positions, metres in base_link.
    """

    frame: np.ndarray
    seen: np.ndarray
    targets: np.ndarray
    instruction: str


def run_expert() -> Run:
    """One episode with the picture at its best: shadows and smooth edges."""
    env = gymnasium.make(
        REACH_ID,
        render_mode="rgb_array",
        colours=("red", "green", "blue", "yellow"),
        shadows=True,
        multisamples=8,
    )
    observation, info = env.reset(options={"episode_id": EPISODE_ID})
    targets, frames, seen = [env.unwrapped.sim.target.position], [], []
    ended = False
    while not ended:
        frames.append(env.render())
        seen.append(observation["image"])
        observation, _, terminated, truncated, info = env.step(EXPERT(env))
        targets.append(env.unwrapped.sim.target.position)
        ended = terminated or truncated
    env.close()
    return Run(frames[SHOWN_STEP], seen[SHOWN_STEP], np.array(targets), info["instruction"])


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure and one Axes all over it, in pixels, y down."""
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.axis("off")
    return figure, axes


def write(axes: Axes, x: float, y: float, text: str, size: float, **style) -> None:
    """Text with its middle at height y."""
    axes.text(x, y, text, **{"fontsize": size, "color": INK, "va": "center", **style})


def arrow(axes: Axes, *points: tuple[float, float], colour: str = GREY) -> None:
    """A line through pixels, with a head at the last."""
    if len(points) > 2:
        axes.plot(*np.array(points[:-1]).T, color=colour, lw=2, solid_joinstyle="round", zorder=2)
    head = "-|>,head_length=7,head_width=4.5"
    axes.add_patch(
        FancyArrowPatch(
            *points[-2:], arrowstyle=head, color=colour, lw=2, shrinkA=0, shrinkB=0, zorder=2
        )
    )


# ---------------------------------------------------------------- overview.png

OVERVIEW = (1600, 590)


def draw_overview(run: Run, schema: CanvasSchema) -> None:
    """Camera, canvas and command, side by side."""
    figure, axes = blank(*OVERVIEW)
    for x, title in ((30, "camera"), (560, "canvas"), (1274, "command")):
        write(axes, x, 40, title, 21, weight="bold")
    draw_camera(axes, run, x=30, y=76, width=470)
    write(axes, 30, 464, f"“{run.instruction}”", 17)
    write(axes, 30, 502, "simulated WidowX 250S;", 13.5, color=GREY)
    write(axes, 30, 528, "path, chart: a scripted expert", 13.5, color=GREY)
    draw_canvas(axes, schema.layout, run.seen, x=560, y=82)
    draw_key(axes, schema.layout, x=560, y=492)
    draw_command(figure, run, schema.layout.region_size("action")[0], (1318, 92, 236, 290))
    write(axes, 1274, 464, "end-effector pose", 17)
    write(axes, 1274, 502, "and gripper, five times a second,", 13.5, color=GREY)
    write(axes, 1274, 528, "inside the workspace", 13.5, color=GREY)
    for x in (510, 1226):
        arrow(axes, (x, 252), (x + 38, 252))
    figure.savefig(IMAGES / "overview.png", dpi=DPI)
    plt.close(figure)


def draw_camera(axes: Axes, run: Run, x: float, y: float, width: float) -> None:
    """The frame, with the path of commanded targets projected into it."""
    scale = width / run.frame.shape[1]
    bottom = y + scale * run.frame.shape[0]
    axes.imshow(run.frame, extent=(x, x + width, bottom, y), aspect="auto", zorder=1)
    pixels = BRIDGE_TABLE_CAMERA.project(run.targets) * scale + (x, y)
    done, coming = pixels[: SHOWN_STEP + 1], pixels[SHOWN_STEP:]
    for points, style in ((done, "-"), (coming, (0, (1.2, 1.4)))):
        axes.plot(*points.T, color="white", lw=6.5, alpha=0.9, zorder=2, solid_capstyle="round")
        axes.plot(*points.T, color=ORANGE, lw=3.4, ls=style, zorder=3)
    axes.plot(*done[-1], "o", ms=12, color=ORANGE, mec="white", mew=2.5, zorder=4)
    axes.plot(*coming[-1], "o", ms=10, color="white", mec=ORANGE, mew=3, zorder=4)


def draw_canvas(axes: Axes, layout: CanvasLayout, image: np.ndarray, x: float, y: float) -> None:
    """The grid's T sheets, turned away a little; the visual region shows what the camera saw."""
    for t in range(layout.T):
        sheet = Affine2D.from_values(6.9, 1.35, 0.0, 16.0, x + 132 * t, y)  # cells (w, h) to pixels
        draw_cells(axes, sheet, (0, layout.W, 0, layout.H), fill=CARD, edge=LINE)
        for name in layout.regions:
            t0, t1, h0, h1, w0, w1 = layout.region_spec(name).bounds
            if not t0 <= t < t1:
                continue
            if name == "visual":
                place = sheet + axes.transData
                axes.imshow(
                    image, extent=(w0, w1, h1, h0), transform=place, aspect="auto", zorder=3
                )
                axes.set(xlim=(0, OVERVIEW[0]), ylim=(OVERVIEW[1], 0))  # imshow moves them
                draw_cells(axes, sheet, (w0, w1, h0, h1), fill="none", edge=COLOURS[name])
            else:
                draw_cells(axes, sheet, (w0, w1, h0, h1), fill=COLOURS[name], edge=COLOURS[name])
        now = t == layout.t_current
        left, low = sheet.transform((layout.W / 2, layout.H))
        label = "now" if now else f"{t - layout.t_current:+d}".replace("-", "−")
        style = {"weight": "bold"} if now else {"color": GREY}
        write(axes, left, low + 34, label, 14, ha="center", **style)


def draw_cells(axes: Axes, sheet: Affine2D, bounds: tuple, fill: str, edge: str) -> None:
    """A box (w0, w1, h0, h1) of a sheet, with faint lines between its cells."""
    w0, w1, h0, h1 = bounds
    corners = sheet.transform([(w0, h0), (w1, h0), (w1, h1), (w0, h1)])
    width, zorder = (1.2, 2) if fill == CARD else (2.0, 4)
    axes.add_patch(Polygon(corners, fc=fill, ec=edge, lw=width, zorder=zorder))
    lines = [[(w, h0), (w, h1)] for w in range(w0 + 1, w1)]
    lines += [[(w0, h), (w1, h)] for h in range(h0 + 1, h1)]
    colour = LINE if fill == CARD else "white"
    for line in lines:
        axes.plot(*sheet.transform(line).T, color=colour, lw=0.7, alpha=0.6, zorder=zorder)


def draw_key(axes: Axes, layout: CanvasLayout, x: float, y: float) -> None:
    """Each region's colour, extent in (t, h, w) and meaning."""
    for i, name in enumerate(layout.regions):
        left = x + 172 * i
        axes.add_patch(Rectangle((left, y - 9), 18, 18, fc=COLOURS[name], ec="none"))
        write(axes, left + 27, y, name, 15, weight="bold")
        size = "×".join(str(extent) for extent in layout.region_size(name))
        write(axes, left, y + 27, f"{size} cells", 13.5)
        write(axes, left, y + 52, MEANINGS[name], 13.5, color=GREY)


def draw_command(figure: Figure, run: Run, horizon: int, area: tuple[int, int, int, int]) -> None:
    """Commanded x, y, z over time; the steps of one action chunk are shaded."""
    left, top, width, height = area
    total_width, total_height = OVERVIEW
    axes = figure.add_axes(
        (
            left / total_width,
            1 - (top + height) / total_height,
            width / total_width,
            height / total_height,
        )
    )
    seconds = STEP_S * np.arange(len(run.targets))
    now = seconds[SHOWN_STEP]
    axes.axvspan(now, now + horizon * STEP_S, color=ORANGE, alpha=0.14, lw=0)
    for values, name, colour in zip(run.targets.T, "xyz", (RED, GREEN, BLUE), strict=True):
        axes.step(seconds, values, where="post", color=colour, lw=1.8, alpha=0.4)
        done = slice(SHOWN_STEP + 1)
        axes.step(seconds[done], values[done], where="post", color=colour, lw=3)
        axes.plot(now, values[SHOWN_STEP], "o", ms=8, color=colour, mec="white", mew=1.5)
        axes.text(seconds[-1] + 0.12, values[-1], name, fontsize=15, color=colour, va="center")
    axes.set_title("target position [m]", fontsize=13.5, color=GREY, loc="left", pad=8)
    axes.set_xlabel("time [s]", fontsize=13.5, color=GREY, labelpad=3)
    axes.tick_params(colors=GREY, labelsize=12.5, length=3)
    axes.locator_params(nbins=5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.margins(x=0.02)


# ---------------------------------------------------------------- path.png


@dataclass(frozen=True)
class Box:
    """A card of the diagram: its centre in pixels, a title, two lines, the folder it lives in."""

    x: float
    y: float
    title: str
    text: str
    home: str = ""
    colour: str = LINE
    width: float = 236
    height: float = 132

    def side(self, dx: int, dy: int) -> tuple[float, float]:
        """The middle of the side in that direction."""
        return self.x + dx * self.width / 2, self.y + dy * self.height / 2


SIGNALS = Box(450, 190, "signals", "type, shape and range:\nfits, or is refused", "signals/", BLUE)
HISTORY = Box(
    450, 410, "history", "the newest samples of\neach region at the tick", "signals/", BLUE
)
CODECS = Box(730, 410, "codecs", "samples to tokens,\nplaced on the canvas", "policy/", VIOLET)
RUNNER = Box(730, 190, "backbone", "frozen, looped\nCogVideoX, by the plan", "policy/", VIOLET)
HEAD = Box(1010, 190, "head", "tokens to a chunk of\nactions in their units", "policy/", ORANGE)
RULE = Box(1010, 410, "rule", "add to the last target,\nclip to the limits", "kinematics/", ORANGE)
PATH = (SIGNALS, HISTORY, CODECS, RUNNER, HEAD, RULE)


def draw_path() -> None:
    """From three places through one path and back to them."""
    figure, axes = blank(1460, 570)
    small = {"width": 220, "height": 104}
    sources = (
        Box(132, 190, "data set", "Bridge V2 episodes,\nread by TFDS", **small),
        Box(132, 330, "simulator", "the Gymnasium\nenvironment", **small),
        Box(132, 470, "robot", "camera and joint\nstates on ROS 2", **small),
    )
    sinks = (
        Box(1328, 190, "report", "compared with the\nnode, bit for bit", **small),
        Box(1328, 330, "simulator", "env.step(action)", **small),
        Box(1328, 470, "robot", "target pose and\ngripper on ROS 2", **small),
    )
    axes.add_patch(
        FancyBboxPatch(
            (302, 60),
            856,
            466,
            boxstyle="round,pad=0,rounding_size=20",
            fc="#eef2f7",
            ec="none",
            zorder=1,
        )
    )
    write(axes, 730, 90, "one path, whoever calls it", 15, color=GREY, ha="center")
    for source in sources:
        arrow(axes, source.side(1, 0), (272, source.y), (272, SIGNALS.y), SIGNALS.side(-1, 0))
    report, *bodies = sinks
    arrow(axes, HEAD.side(1, 0), report.side(-1, 0))
    for body in bodies:
        arrow(axes, RULE.side(1, 0), (1188, RULE.y), (1188, body.y), body.side(-1, 0))
    arrow(axes, SIGNALS.side(0, 1), HISTORY.side(0, -1))
    arrow(axes, HISTORY.side(1, 0), CODECS.side(-1, 0))
    arrow(axes, CODECS.side(0, -1), RUNNER.side(0, 1))
    arrow(axes, RUNNER.side(1, 0), HEAD.side(-1, 0))
    arrow(axes, HEAD.side(0, 1), RULE.side(0, -1))
    for label, x, y in (("samples", 440, 300), ("rows", 720, 300), ("action chunk", 1000, 300)):
        write(axes, x, y, label, 13.5, color=INK, ha="right", style="italic")
    for card in (*sources, *PATH, *sinks):
        draw_box(axes, card)
    figure.savefig(IMAGES / "path.png", dpi=DPI)
    plt.close(figure)


def draw_box(axes: Axes, box: Box) -> None:
    """A white card with a coloured edge."""
    axes.add_patch(
        FancyBboxPatch(
            (box.x - box.width / 2, box.y - box.height / 2),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=12",
            fc="white",
            ec=box.colour,
            lw=2.2,
            zorder=3,
        )
    )
    middle = {"ha": "center", "zorder": 4}
    top = box.y - box.height / 2
    write(axes, box.x, top + 27, box.title, 16, weight="bold", **middle)
    lines = box.text.splitlines()
    for i, line in enumerate(lines):
        y = top + 54 + 22 * i if len(lines) > 1 else top + 65
        write(axes, box.x, y, line, 13, color=GREY, **middle)
    if box.home:
        write(
            axes,
            box.x,
            top + 110,
            box.home,
            12.5,
            color=box.colour,
            family="monospace",
            **middle,
        )


def main() -> None:
    """Both pictures."""
    plt.rcParams["font.family"] = "DejaVu Sans"
    IMAGES.mkdir(exist_ok=True)
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    draw_overview(run_expert(), schema)
    draw_path()


if __name__ == "__main__":
    main()
