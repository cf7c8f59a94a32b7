"""`canvas-robot demo`: the policy drives a simulated arm through ROS 2.

A report says how it went.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    task: Annotated[
        str, typer.Option(help="Of the simulated robot, a name in docs/simulation.md.")
    ] = "cube_on_plate",
    episodes: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many, one after the other.")
    ] = 5,
    episode: Annotated[int, typer.Option(min=0, help="Number of the first.")] = 90_000,
    seconds: Annotated[
        float | None,
        typer.Option(min=1.0, max=3600.0, help="Instead: one scene, for that long."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help='Folder, or "demo", which ships; "": an untrained policy.')
    ] = "demo",
    instruction: Annotated[
        str, typer.Option(help="The goal, with --seconds; default: the episode's own.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Report folder; default runs/demo/<time>.")
    ] = None,
) -> None:
    """Run a simulated arm and the policy as two processes over DDS: a live table, then a report."""
    from rich.console import Console

    from canvas_robot.ros.demo import DemoSettings, run_demo, run_folder

    if instruction and seconds is None:
        raise ValueError("--instruction: every episode has its own; give --seconds, too")
    folder = out if out is not None else run_folder(Path.cwd(), "demo")
    settings = DemoSettings(
        folder=folder,
        task=task,
        episodes=episodes if seconds is None else 0,
        seconds=seconds or 0.0,
        checkpoint=checkpoint,
        episode=episode,
        instruction=instruction,
    )
    raise typer.Exit(0 if run_demo(settings, Console()) else 1)
