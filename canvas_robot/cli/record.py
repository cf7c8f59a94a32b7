"""`canvas-robot record`: what goes into the policy node and what comes out, into a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from canvas_robot.cli.remapping import Remap


def record(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; default runs/record/<time>.")
    ] = None,
    binding: Annotated[str, typer.Option(help="The node's binding.")] = "widowx.yaml",
    image_transport: Annotated[
        str, typer.Option(help="As the node's parameter: raw or compressed.")
    ] = "raw",
    name: Annotated[str, typer.Option(help="Of the node, with its namespace.")] = "policy",
    remap: Remap = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="What else is recorded, such as /tf; repeatable.")
    ] = None,
    instruction: Annotated[
        str, typer.Option(help="What is shown, in words: said in the bag's metadata.")
    ] = "",
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="How long; default: until Ctrl-C.")
    ] = None,
    goals: Annotated[
        bool,
        typer.Option("--goals", help="A bag below OUT for each goal of /recorder/record_episode."),
    ] = False,
) -> None:
    """Record the policy node's inputs, commands and decisions as an MCAP bag (rosbag2)."""
    from rich.console import Console

    from canvas_robot.ros.demo import run_folder
    from canvas_robot.ros.record_run import run_goals, run_record

    if goals:
        if instruction or seconds is not None:
            raise ValueError("--goals: goals say instruction and seconds; leave these out")
        folder = out if out is not None else Path.cwd() / "runs" / "record"
        run_goals(folder, binding, image_transport, name, Console(), remap or (), topic or ())
        return
    folder = out if out is not None else run_folder(Path.cwd(), "record")
    came = run_record(
        folder,
        binding,
        image_transport,
        name,
        seconds,
        Console(),
        remap or (),
        instruction,
        topic or (),
    )
    raise typer.Exit(0 if came else 1)
