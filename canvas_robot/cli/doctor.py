"""`canvas-robot doctor`: is the robot ready for its first motion?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from canvas_robot.cli.remapping import Remap


def doctor(
    binding: Annotated[
        str | None,
        typer.Option(help="Of the robot; else that of the parameters file, or widowx.yaml."),
    ] = None,
    image_transport: Annotated[
        str | None,
        typer.Option(help="raw or compressed; else as the parameters file says, or raw."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="That the policy node has or will have, with its namespace.")
    ] = "policy",
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to listen.")] = 5.0,
    reference: Annotated[
        Path | None, typer.Option(help="Picture that the camera should see.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Put the camera's view there, as a new reference.")
    ] = None,
    remap: Remap = None,
    params_file: Annotated[
        Path | None,
        typer.Option(
            help="Of the node: its quality of service is listened with, its outputs looked at."
        ),
    ] = None,
) -> None:
    """Look at a live robot before it moves: topics, types, rates, clocks, pose, camera, drivers.

    Nothing is published. Exit code 1 where there is a fault; each has its remedy.
    """
    from rich.console import Console

    from canvas_robot.ros.doctor_run import run_doctor
    from canvas_robot.ros.images import check_transport

    if image_transport is not None:
        check_transport(image_transport)
    good = run_doctor(
        binding,
        image_transport,
        name,
        seconds,
        reference,
        save,
        Console(),
        params_file,
        remap or (),
    )
    raise typer.Exit(0 if good else 1)
