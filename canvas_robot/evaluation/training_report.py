"""report.html of a training run: curves of what it wrote to metrics.jsonl, and what it was told.

It can be made at any time while the run goes on, from whatever is there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from canvas_robot.evaluation.page import (
    INK,
    LINE,
    QUIET,
    cards,
    facts,
    note,
    page,
    picture,
    said,
    side_by_side,
)
from canvas_robot.training.config import OFF, TrainConfig
from canvas_robot.training.meter import MetricsRow
from canvas_robot.training.plain_config import PlainTrainConfig
from canvas_robot.training.plain_run import PlainRun
from canvas_robot.training.run_folder import Facts, RunFolder

BLUE, ORANGE = "#2563a6", "#e08a1e"
PARTS = ("#2563a6", "#059669", "#be185d", "#7c3aed", "#0e7490", "#92400e")
MOST_POINTS = 2000  # of a curve: more are not seen


def write_training_report(run_folder: str | Path) -> Path:
    """Writes report.html into a run's folder, whole or not at all; returns its path.

    What is missing or cannot be read is named on the page. Raises RunFolderError where there is no
    run.
    """
    return write_report_of(RunFolder.open(run_folder))


def write_report_of(run: RunFolder | PlainRun) -> Path:
    """`write_training_report` of a run that is open already, of whatever kind it is."""
    rows, problems = read_metrics(run.metrics)
    config, problem = _read(run.config)
    found, missing = _read(run.facts)
    problems += [text for text in (problem, missing) if text]
    path = run.path / "report.html"
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(_page(run, rows, config, found, problems), encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_metrics(path: Path) -> tuple[list[MetricsRow], list[str]]:
    """The rows of a metrics.jsonl by step, and what is wrong with the file, in sentences.

    Of several rows of a step the last counts: a run that was resumed wrote it.
    """
    if not path.is_file():
        return [], [f"{path.name}: nothing was written yet"]
    rows, spoilt = {}, []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = msgspec.json.decode(line, type=MetricsRow)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if not (number == len(lines) and not line.endswith(b"\n")):  # else it is being written
                spoilt.append(number)
            continue
        rows[row.step] = row
    problems = [] if rows or spoilt else [f"{path.name}: nothing was written yet"]
    if spoilt:
        listed = ", ".join(map(str, spoilt[:5])) + ", ..." * (len(spoilt) > 5)
        problems.append(f"{path.name}: {len(spoilt)} lines are no rows and left out: {listed}")
    return [rows[step] for step in sorted(rows)], problems


def _read(read: Callable[[], object]) -> tuple[object | None, str]:
    """What a file of the run says, or None and why not."""
    try:
        return read(), ""
    except (OSError, ValueError) as error:
        return None, str(error)


def _page(
    run: RunFolder | PlainRun,
    rows: Sequence[MetricsRow],
    config: TrainConfig | PlainTrainConfig | None,
    found: Facts | None,
    problems: Sequence[str],
) -> str:
    steps = _steps(config)
    notes = [note("warn", "Missing:", text) for text in problems]
    notes += [note(*line) for line in _verdicts(rows, steps, found)]
    body = [cards(_figures(rows, steps, found))]
    if rows:
        body.append(
            picture(
                _curves(rows),
                "Curves of the run",
                "Each point: the mean since the one before it. Across: updates of the weights.",
            )
        )
    panels = []
    if found is not None:
        panels += [
            facts("Trained on", found.data),
            facts("Held out", found.held_out) if found.held_out else "",
            facts("Model", _model(found)),
            *(facts(f"Start {n}", start) for n, start in enumerate(found.started, start=1)),
        ]
    if config is not None:
        panels.insert(0, facts("Configuration", msgspec.to_builtins(config)))
    body.append(side_by_side(panels))
    checkpoints = ", ".join(f"{step:,}" for step in run.checkpoints.steps()) or "none"
    body.append(facts("Run", {"folder": str(run.path), "checkpoints of steps": checkpoints}))
    return page("Training", run.path.name, notes, body)


def _steps(config: TrainConfig | PlainTrainConfig | None) -> int | None:
    """Updates in a whole run; None where that is not known, as where time ends it."""
    if config is None or (isinstance(config, PlainTrainConfig) and config.minutes != OFF):
        return None
    return config.steps


def _model(found: Facts) -> dict[str, object]:
    return {
        "parameters trained": found.trained,
        "parameters frozen": found.frozen,
        "actions": found.actions,
        "gradient checkpointing": found.gradient_checkpointing,
        "backbone": found.backbone,
    }


def _verdicts(
    rows: Sequence[MetricsRow], steps: int | None, found: Facts | None
) -> list[tuple[str, str, str]]:
    """What a reader must know first."""
    lines = []
    if rows and steps is not None and rows[-1].step < steps:
        lines.append(("warn", "Not finished:", f"step {rows[-1].step:,} of {steps:,}."))
    if found is not None and not found.backbone.get("trained", True):
        text = "its transformer's weights are random, from a seed."
        lines.append(("warn", f"Backbone {found.backbone.get('source')}:", text))
    if found is not None and found.held_out is None:
        lines.append(("warn", "Nothing was held out:", "there is no loss on unseen episodes."))
    for what, data in (
        ("trained on", found and found.data),
        ("held out", found and found.held_out),
    ):
        left_out = (data or {}).get("left_out")
        counts = {r: n for r, n in left_out.items() if n} if isinstance(left_out, dict) else {}
        if counts:
            text = "; ".join(f"{said(count)} {reason}" for reason, count in counts.items())
            lines.append(("warn", f"Episodes left out of those {what}:", f"{text}."))
    waits = [row.data_wait for row in rows]
    if waits and np.mean(waits) > 0.05:
        text = f"{np.mean(waits):.0%} of the time; more data.workers may help."
        lines.append(("warn", "Waited for data:", text))
    return lines


def _figures(
    rows: Sequence[MetricsRow], steps: int | None, found: Facts | None
) -> list[tuple[str, str, str]]:
    if not rows:
        return [("Steps", "0", f"of {said(steps)}")]
    last, held = rows[-1], [row for row in rows if row.held_out is not None]
    figures = [
        ("Steps", f"{last.step:,}", f"of {said(steps)}; epoch {last.epoch + 1}"),
        ("Loss", said(last.loss), f"at first {said(rows[0].loss)}"),
    ]
    if held:
        best = min(held, key=lambda row: row.held_out)
        remark = f"lowest {said(best.held_out)} at step {best.step:,}"
        figures.append(("Held-out loss", said(held[-1].held_out), remark))
    figures += [
        (
            "Steps a second",
            said(float(np.median([row.steps_per_s for row in rows]))),
            f"median; {np.mean([row.data_wait for row in rows]):.1%} waiting for data",
        ),
        ("Memory", f"{max(row.memory_mb for row in rows):,.0f} MB", "at most"),
    ]
    if found is not None:
        figures.append(("Parameters trained", f"{found.trained:,}", f"{found.frozen:,} are frozen"))
    return figures


def _curves(rows: Sequence[MetricsRow]) -> bytes:
    """A picture of all curves, PNG."""
    figure = Figure(figsize=(13, 9), dpi=110, layout="constrained", facecolor="white")
    (loss, parts, grad), (lr, loops, memory), (rate, wait, clock) = figure.subplots(3, 3)
    steps = [row.step for row in rows]
    _line(loss, steps, [row.loss for row in rows], BLUE, "training")
    held = [(row.step, row.held_out) for row in rows if row.held_out is not None]
    if held:
        _line(loss, *zip(*held, strict=True), ORANGE, "held out", dots=True)
    _legend(loss)
    _part_lines(parts, rows)
    _line(grad, steps, [row.grad_norm for row in rows], BLUE)
    _line(lr, steps, [row.lr for row in rows], BLUE)
    loops.step(*thinned(steps, [row.loops for row in rows]), color=BLUE, where="post")
    loops.yaxis.set_major_locator(MaxNLocator(integer=True))
    _line(memory, steps, [row.memory_mb for row in rows], BLUE)
    _line(rate, steps, [row.steps_per_s for row in rows], BLUE)
    _line(wait, steps, [100 * row.data_wait for row in rows], BLUE)
    passed = np.array([row.time for row in rows]) - rows[0].time
    unit, seconds = ("hours", 3600) if passed[-1] > 3600 else ("minutes", 60)
    _line(clock, passed / seconds, [row.loss for row in rows], BLUE)
    for axes, title in (
        (loss, "loss"),
        (parts, "loss by output region (dashed: held out)"),
        (grad, "norm of the gradient, before it is cut"),
        (lr, "learning rate"),
        (loops, "loops"),
        (memory, "memory (MB)"),
        (rate, "steps a second"),
        (wait, "waiting for data (%)"),
        (clock, f"loss over {unit} since the first point"),
    ):
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        _plain(axes)
    for axes in (loops, memory, rate, wait):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    if max(row.data_wait for row in rows) < 0.05:
        wait.set_ylim(0, 5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _part_lines(axes: Axes, rows: Sequence[MetricsRow]) -> None:
    """Each output region's own loss; dashed on held-out windows."""
    names = list(dict.fromkeys(name for row in rows for name in row.parts))
    for number, name in enumerate(names):
        colour = PARTS[number % len(PARTS)]
        known = [(row.step, row.parts[name]) for row in rows if name in row.parts]
        _line(axes, *zip(*known, strict=True), colour, name)
        held = [(r.step, r.held_out_parts[name]) for r in rows if name in r.held_out_parts]
        if held:
            steps, losses = zip(*held, strict=True)
            axes.plot(steps, losses, color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    _legend(axes)


def _line(
    axes: Axes,
    steps: Sequence[float],
    values: Sequence[float],
    colour: str,
    label: str | None = None,
    dots: bool = False,
) -> None:
    few = dots or len(steps) < 30
    marker = {"marker": "o", "markersize": 3} if few else {}
    axes.plot(*thinned(steps, values), color=colour, linewidth=1.3, label=label, **marker)


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points, the first and the last among them."""
    kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST_POINTS)).round()).astype(
        int
    )
    return np.asarray(steps, float)[kept], np.asarray(values, float)[kept]


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=QUIET, labelsize=8.5)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
