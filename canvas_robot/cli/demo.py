"""`canvas-robot demo`: the policy drives a simulated arm through ROS 2.

A report says how it went.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    seconds: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="Seconds of commands.")
    ] = 20.0,
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint folder; none: an untrained policy.")
    ] = "",
    instruction: Annotated[str, typer.Option(help="The goal; default: the episode's own.")] = "",
    episode: Annotated[int, typer.Option(min=0, help="Where the cubes lie.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Report folder; default runs/demo/<time>.")
    ] = None,
) -> None:
    """Run a simulated arm and the policy as two processes over DDS: a live table, then a report."""
    from rich.console import Console

    from canvas_robot.ros.demo import DemoSettings, run_demo, run_folder

    folder = out if out is not None else run_folder(Path.cwd(), "demo")
    settings = DemoSettings(seconds, folder, checkpoint, episode, instruction)
    raise typer.Exit(0 if run_demo(settings, Console()) else 1)
