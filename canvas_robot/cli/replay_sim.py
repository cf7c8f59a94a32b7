"""`canvas-robot replay-sim`: recorded Bridge V2 actions, executed by the simulated arm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console


def replay_sim(
    dataset: Annotated[Path, typer.Argument(help="Bridge V2 in TFDS form (a folder).")],
    episode: Annotated[int, typer.Option(min=-1, help="Its number in the split; -1: all.")] = -1,
    most: Annotated[
        int, typer.Option(min=1, help="Of all, so many, spread evenly over the split.")
    ] = 200,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for tracking.json and tracking.png.")
    ] = Path("runs/replay_sim"),
) -> None:
    """Compare where recorded actions bring the simulated arm with where they brought the real one.

    The arm starts at the first recorded state; then nothing corrects it. Beside the actions as
    they are, wrong readings of them and actions made from the states are executed.
    """
    from rich.console import Console

    from canvas_robot.data.bridge import BridgeV2
    from canvas_robot.evaluation.replay_figures import tracking_figures
    from canvas_robot.evaluation.replay_plot import write_replay
    from canvas_robot.evaluation.replay_tracking import numbers_of, replay_episodes

    console = Console(highlight=False, markup=False, emoji=False)
    source = BridgeV2(dataset, split)
    replayed = replay_episodes(source, numbers_of(source, episode, most), console.print)
    figures = tracking_figures(source, replayed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tracking.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    write_replay(out / "tracking.png", replayed, figures)
    _print(console, figures)
    console.print(out / "tracking.png", soft_wrap=True)


def _print(console: Console, figures: Mapping) -> None:
    """Two tables, the episodes' and the readings', and what was fitted."""
    from rich.table import Column, Table

    from canvas_robot.evaluation.replay_conventions import RIGHT

    goal = Column("goal", no_wrap=True, max_width=max(console.width - 71, 8))
    table = Table("episode", "steps", "moves", "turns", "off", "most", "turned", "most", goal)
    for of in figures["episodes"]:
        motion, position, rotation = of["motion"], of["position_mm"], of["rotation_deg"]
        cells = [
            *(f"{motion['position_mm']:.0f} mm", f"{motion['rotation_deg']:.0f}°"),
            *(f"{position['median']:.1f}", f"{position['max']:.1f} mm"),
            *(f"{rotation['median']:.1f}", f"{rotation['max']:.1f}°"),
        ]
        table.add_row(str(of["episode"]), str(of["steps"]), *cells, of["instruction"])
    console.print(table)
    reading = Column("reading", no_wrap=True)
    table = Table(reading, "off", "90%", "fitted", "turned", "90%", "fitted", "gripper")
    for name, of in figures["readings"].items():
        position, rotation, fitted = of["position_mm"], of["rotation_deg"], of["fitted"]
        cells = [
            *(f"{position['median']:.1f}", f"{position['p90']:.1f}"),
            f"{fitted['position_mm']['median']:.1f} mm",
            *(f"{rotation['median']:.1f}", f"{rotation['p90']:.1f}"),
            f"{fitted['rotation_deg']['median']:.1f}°",
            f"{of['gripper']['median']:.2f}",
        ]
        table.add_row(name, *cells)
    console.print(table)
    fitted = figures["readings"][RIGHT]["fitted"]
    offset = ", ".join(f"{value:+.1f}" for value in fitted["offset_mm"])
    console.print(
        f"off, turned, gripper: medians of {figures['steps']:,} steps. fitted: a lag and an offset "
        f"taken out; of {RIGHT!r}, the recorded arm is {fitted['lag_s'] * 1e3:.0f} ms later and "
        f"the simulated one ({offset}) mm from it",
        soft_wrap=True,
    )
