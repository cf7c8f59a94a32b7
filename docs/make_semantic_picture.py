"""Draws docs/img/semantic_distances.png and prints the tables of docs/semantics.md.

Run in the checkout: .venv/bin/python docs/make_semantic_picture.py
The sentences are in docs/semantic_signals.json: two wordings of each signal, by kind, and pairs of
sentences that differ in one number or word.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from canvas_robot.schema import RegionSpec
from canvas_robot.schema.transfer import ADAPTER_UP_TO, DIRECT_UP_TO, transfer_distance
from canvas_robot.semantic import DEFAULT_MODEL, embed

DOCS = Path(__file__).resolve().parent
SENTENCES = json.loads((DOCS / "semantic_signals.json").read_text(encoding="utf-8"))
TYPICAL = (
    "fixed RGB camera",
    "RGB wrist camera",
    "depth",
    "joint angles",
    "end-effector pose",
    "gripper",
    "force torque",
    "instruction",
    "reward",
)
INK, GREY = "#1f2937", "#5b6472"
COLOURS = ("#059669", "#2563eb", "#7c3aed", "#ea580c")


def region(sentence: str) -> RegionSpec:
    """A region that means the sentence."""
    return RegionSpec(
        (0, 1, 0, 1, 0, 1),
        semantic_type=sentence,
        semantic_embedding=embed(sentence),
        embedding_model=DEFAULT_MODEL,
    )


def typical_distances() -> np.ndarray:
    """(9, 9) transfer distances between the typical signals, first wordings."""
    wordings = {name: w[0] for kind in SENTENCES["kinds"].values() for name, w in kind.items()}
    regions = [region(wordings[name]) for name in TYPICAL]
    return np.array([[transfer_distance(a, b) for b in regions] for a in regions])


def relations() -> dict[str, list[float]]:
    """Sorted distances of all pairs of sentences, by what the two have to do with each other."""
    found = {
        "same sentence,\none number or word differs": [
            transfer_distance(region(a), region(b)) for a, b in SENTENCES["one_edit"]
        ],
        "same signal,\nother words": [],
        "other signal,\nsame kind": [],
        "other kind": [],
    }
    _, same, kindred, foreign = found.values()
    items = [
        (kind, name, region(wording))
        for kind, signals in SENTENCES["kinds"].items()
        for name, wordings in signals.items()
        for wording in wordings
    ]
    for (kind_a, a, region_a), (kind_b, b, region_b) in combinations(items, 2):
        group = same if a == b else kindred if kind_a == kind_b else foreign
        group.append(transfer_distance(region_a, region_b))
    return {name: sorted(group) for name, group in found.items()}


def typical_table(distances: np.ndarray) -> str:
    """Markdown: the upper triangle, two digits."""
    lines = [f"| | {' | '.join(TYPICAL[1:])} |", "|---" + "|---:" * (len(TYPICAL) - 1) + "|"]
    for i, name in enumerate(TYPICAL[:-1]):
        cells = [f"{distances[i, j]:.2f}" if j > i else "" for j in range(1, len(TYPICAL))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def relations_table(groups: dict[str, list[float]]) -> str:
    """Markdown: number of pairs, nearest, median, farthest of each relation."""
    lines = ["| two sentences | pairs | nearest | median | farthest |", "|---|---:|---:|---:|---:|"]
    for name, group in groups.items():
        figures = f"{group[0]:.2f} | {median(group):.2f} | {group[-1]:.2f}"
        lines.append(f"| {name.replace(chr(10), ' ')} | {len(group)} | {figures} |")
    return "\n".join(lines)


def draw(distances: np.ndarray, groups: dict[str, list[float]], path: Path) -> None:
    """The heat-map of the typical signals beside all pairs, with the limits of bridging."""
    figure = Figure(figsize=(13.5, 6.2), dpi=110, layout="constrained", facecolor="white")
    heat, strips = figure.subplots(1, 2, width_ratios=(1.05, 1))
    draw_heat(heat, distances)
    draw_strips(strips, groups)
    figure.savefig(path)


def draw_heat(axes: Axes, distances: np.ndarray) -> None:
    """Every distance as a colour and a number: dark is near."""
    image = axes.imshow(distances, cmap="viridis", vmin=0.0, vmax=1.1)
    ticks = range(len(TYPICAL))
    axes.set_xticks(ticks, TYPICAL, rotation=40, ha="right", rotation_mode="anchor", color=INK)
    axes.set_yticks(ticks, TYPICAL, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(distances):
        colour = "white" if value < 0.7 else INK
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_title("Typical robot signals: transfer distance", color=INK, loc="left")
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="1 - cosine")


def draw_strips(axes: Axes, groups: dict[str, list[float]]) -> None:
    """One dot a pair, a row a relation, with the zones in which bridging is called what it is."""
    rng = np.random.default_rng(0)
    for row, ((name, group), colour) in enumerate(zip(groups.items(), COLOURS, strict=True)):
        heights = row + rng.uniform(-0.22, 0.22, len(group))
        axes.scatter(group, heights, s=16, color=colour, alpha=0.6, linewidths=0, label=name)
    for limit in (DIRECT_UP_TO, ADAPTER_UP_TO):
        axes.axvline(limit, color=GREY, linewidth=1, linestyle="--")
    zones = (
        (DIRECT_UP_TO / 2 - 0.008, "direct"),
        ((DIRECT_UP_TO + ADAPTER_UP_TO) / 2, "adapter layers"),
        ((ADAPTER_UP_TO + 1.12) / 2, "full MLP"),
    )
    for x, label in zones:
        axes.text(x, -0.62, label, ha="center", va="center", color=GREY, fontsize=9)
    axes.set_yticks(range(len(groups)), list(groups), color=INK)
    axes.set(xlim=(-0.02, 1.12), ylim=(len(groups) - 0.6, -0.85), xlabel="transfer distance")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("All pairs of sentences", color=INK, loc="left")


if __name__ == "__main__":
    measured, grouped = typical_distances(), relations()
    print(typical_table(measured), relations_table(grouped), sep="\n\n")
    draw(measured, grouped, DOCS / "img" / "semantic_distances.png")
