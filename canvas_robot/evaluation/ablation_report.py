"""The table of an ablation beside the published one: ablation.json, ablation.md, ablation.png."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from canvas_robot.evaluation.page import INK, QUIET
from canvas_robot.training.ablation import FREEZES, LOOPS, Ablation, Cell, Result
from canvas_robot.training.config import TrainConfig

# Action loss on Bridge V2, CogVideoX-2B, by loops, as canvas-engineering's documentation gives it
# for its version 0.1.0. Not measured here; nothing is said there of steps, split or normalisation.
SOURCE = "canvas-engineering 0.1.0, its documentation: CogVideoX-2B on Bridge V2"
PUBLISHED = {
    "full": {1: 0.121, 2: 0.140, 3: 0.073, 4: 0.104},
    "half": {1: 0.115, 2: 0.119, 3: 0.107, 4: 0.137},
    "none": {1: 0.108, 2: 0.112, 3: 0.088, 4: 0.124},
}
PUBLISHED_PARAMETERS = {"full": "350K at 3 loops", "half": "3.7M", "none": "11.7M"}
CAVEAT = (
    "How the published losses were measured is not said there (steps, split, normalisation): "
    "compare where each table is low, not the numbers of one with those of the other."
)
BLUES = LinearSegmentedColormap.from_list("losses", ["#eef3f8", "#a9c8e6", "#2f6fb0"])


def published(cell: Cell) -> float | None:
    """The published action loss of a cell; None where there is none."""
    return PUBLISHED.get(cell.freeze, {}).get(cell.loops)


def write_ablation(
    folder: Path, ablation: Ablation, cells: Sequence[Cell], config: TrainConfig
) -> None:
    """Writes the table, as far as there are results, into a folder, which there is.

    Args:
        cells: all that were asked for.
        config: that they were made from.
    """
    text = json.dumps(_plain(ablation, cells, config), indent=2, ensure_ascii=False)
    (folder / "ablation.json").write_text(text + "\n", encoding="utf-8")
    (folder / "ablation.md").write_text(markdown(ablation, cells, config), encoding="utf-8")
    _draw(folder / "ablation.png", ablation, cells, config)


def markdown(ablation: Ablation, cells: Sequence[Cell], config: TrainConfig) -> str:
    """The table as a page of Markdown."""
    head = (
        "freeze",
        "loops",
        "parameters trained",
        "held-out action loss",
        "motion error (95%)",
        "gripper right",
        "steps/s",
        "memory (MB)",
        "published loss",
    )
    rows = [_row(cell, ablation) for cell in cells]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    failed = [f"- {cell.name}: {why.splitlines()[0]}" for cell, why in ablation.failed.items()]
    return "\n".join(
        [
            "# Ablation: loops and freeze",
            "",
            *lines,
            "",
            _conditions(ablation, config),
            "",
            f"Published: {SOURCE}; {_parameters()}. {CAVEAT}",
            *(["", "Without a result:", *failed] if failed else []),
            "",
        ]
    )


def _row(cell: Cell, ablation: Ablation) -> tuple[str, ...]:
    known, result = published(cell), ablation.results.get(cell)
    last = "–" if known is None else f"{known:.3f}"
    if result is None:
        why = "failed" if cell in ablation.failed else "not run yet"
        return (cell.freeze, str(cell.loops), why, *["–"] * 5, last)
    motion, gripper = result.judgement.motion, result.judgement.gripper
    interval = "" if motion.low is None else f" ({motion.low:.3f} to {motion.high:.3f})"
    return (
        cell.freeze,
        str(cell.loops),
        f"{result.trained:,}",
        f"{result.action_loss:.4f}",
        f"{_shown(motion.value)}{interval}",
        "–" if gripper.value is None else f"{gripper.value:.1%}",
        f"{result.steps_per_s:.3g}",
        f"{result.memory_mb:,.0f}",
        last,
    )


def _conditions(ablation: Ablation, config: TrainConfig) -> str:
    """What all cells have in common, in sentences."""
    said = [
        f"Each: {config.steps:,} steps of {config.batch_size * config.accumulate} windows, "
        f"backbone {config.backbone.source}, schema {Path(config.schema).name}, "
        f"{config.data.rules.actions} actions, seed {config.seed}."
    ]
    for result in list(ablation.results.values())[:1]:
        of = result.judgement
        said.append(
            f"Judged on {of.windows:,} windows of {of.episodes:,} held-out episodes, where the "
            f"last action repeated has a motion error of {_shown(of.previous_action.value)}, no "
            f"motion one of {_shown(of.zero_action.value)}."
        )
    answers = {result.judgement.trained_on for result in ablation.results.values()}
    if "yes" in answers:
        said.append("These episodes are among those that were TRAINED ON.")
    elif "unknown" in answers:
        said.append("Whether these episodes were trained on is not known.")
    return " ".join(said)


def _parameters() -> str:
    listed = ", ".join(f"{freeze} {count}" for freeze, count in PUBLISHED_PARAMETERS.items())
    return f"parameters trained there: {listed}"


def _plain(ablation: Ablation, cells: Sequence[Cell], config: TrainConfig) -> dict:
    return {
        "config": msgspec.to_builtins(config),
        "cells": [
            {
                "loops": cell.loops,
                "freeze": cell.freeze,
                "result": msgspec.to_builtins(ablation.results.get(cell)),
                "failed": ablation.failed.get(cell),
                "published_action_loss": published(cell),
            }
            for cell in cells
        ],
        "published": {"source": SOURCE, "parameters": PUBLISHED_PARAMETERS, "caveat": CAVEAT},
    }


def _draw(path: Path, ablation: Ablation, cells: Sequence[Cell], config: TrainConfig) -> None:
    """Our table and the published one side by side; the darkest cell is the best of its table."""
    figure = Figure(figsize=(15, 5.2), dpi=130, facecolor="white")
    ours, theirs = figure.subplots(1, 2, width_ratios=(4, 3))
    figure.subplots_adjust(left=0.05, right=0.99, top=0.74, bottom=0.14, wspace=0.18)
    loops = sorted({*LOOPS, *(cell.loops for cell in cells)})
    losses = {cell: result.action_loss for cell, result in ablation.results.items()}
    texts = {cell: _cell_lines(result) for cell, result in ablation.results.items()}
    texts |= {cell: ("failed", "") for cell in ablation.failed}
    _table(ours, losses, texts, loops)
    others = {
        Cell(number, freeze): loss
        for freeze, row in PUBLISHED.items()
        for number, loss in row.items()
    }
    figures = {cell: (f"{loss:.3f}", "") for cell, loss in others.items()}
    _table(theirs, others, figures, LOOPS)
    labels = [f"{freeze}\n{PUBLISHED_PARAMETERS[freeze]}" for freeze in FREEZES]
    theirs.set_yticklabels([label.replace(" at", "\nat") for label in labels])
    ours.set_title("here: held-out action loss", loc="left", fontsize=11, color=INK, pad=24)
    theirs.set_title("published: action loss", loc="left", fontsize=11, color=INK, pad=24)
    figure.text(0.01, 0.945, "Loops and freeze", color=INK, fontsize=13, fontweight="bold")
    figure.text(0.01, 0.87, _wrapped(_conditions(ablation, config)), color=QUIET, fontsize=9)
    figure.text(
        0.01,
        0.02,
        _wrapped(f"Published: {SOURCE}; {_parameters()}. {CAVEAT}"),
        color=QUIET,
        fontsize=9,
    )
    figure.savefig(path)


def _cell_lines(result: Result) -> tuple[str, str]:
    motion = result.judgement.motion.value
    return (
        f"{result.action_loss:.4f}",
        f"motion error {_shown(motion)}\n{_count(result.trained)} trained, "
        f"{result.steps_per_s:.3g} steps/s",
    )


def _table(
    axes: Axes,
    losses: Mapping[Cell, float],
    texts: Mapping[Cell, tuple[str, str]],
    loops: Sequence[int],
) -> None:
    axes.set_xlim(0, len(loops))
    axes.set_ylim(len(FREEZES), 0)
    low, high = min(losses.values(), default=0), max(losses.values(), default=1)
    for row, freeze in enumerate(FREEZES):
        for column, number in enumerate(loops):
            cell = Cell(number, freeze)
            place = (high - losses[cell]) / max(high - low, 1e-12) if cell in losses else 0.0
            colour = _blend(place) if cell in losses else "#f8fafc"
            dark = cell in losses and place > 0.75
            axes.add_patch(_box(column, row, colour))
            large, small = texts.get(cell, ("–", ""))
            ink, quiet = ("white", "#e3edf7") if dark else (INK, "#4b5563")
            middle = column + 0.5
            height = row + (0.38 if small else 0.5)
            axes.text(middle, height, large, ha="center", va="center", fontsize=13, color=ink)
            axes.text(middle, row + 0.72, small, ha="center", va="center", fontsize=8, color=quiet)
    axes.set_xticks(np.arange(len(loops)) + 0.5, [f"{n} loop{'s' * (n > 1)}" for n in loops])
    axes.set_yticks(np.arange(len(FREEZES)) + 0.5, FREEZES)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, colors=QUIET, labelsize=9.5)
    axes.set_ylabel("freeze", color=QUIET)
    axes.spines[:].set_visible(False)


def _box(column: int, row: int, colour: tuple[float, ...] | str) -> Rectangle:
    return Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, facecolor=colour, linewidth=0)


def _blend(place: float) -> tuple[float, ...]:
    """From the highest loss (0) to the lowest (1)."""
    return BLUES(place)


def _count(parameters: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return str(parameters)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _wrapped(text: str, width: int = 190) -> str:
    return "\n".join(textwrap.wrap(text, width))
