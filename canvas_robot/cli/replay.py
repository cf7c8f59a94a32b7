"""`canvas-robot replay`: a Bridge V2 episode or a video, fed to the policy node; or a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def replay(
    source: Annotated[
        Path,
        typer.Argument(
            help="Bridge V2 in TFDS form (a folder), a video file, or a bag of `canvas-robot "
            "record`, whose decisions are then made again, without a node: --verify."
        ),
    ],
    episode: Annotated[int, typer.Option(min=-1, help="Episode of the data set; -1: all.")] = 0,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    state: Annotated[
        Path | None, typer.Option(help="States of a video: (T, 7) in .npy, .csv or .json.")
    ] = None,
    fixed_joints: Annotated[
        bool, typer.Option("--fixed-joints", help="A video of an arm that stands still.")
    ] = False,
    joints: Annotated[
        str, typer.Option(help="Those joints: six angles [rad], finger [m]; default: table reset.")
    ] = "",
    instruction: Annotated[
        str | None, typer.Option(help="The goal; default: the recording's own, or do the task.")
    ] = None,
    binding: Annotated[
        str, typer.Option(help="The node's binding; default: replay_pose or replay_joints.")
    ] = "",
    checkpoint: Annotated[
        str, typer.Option(help="The node's checkpoint, for --launch and --verify.")
    ] = "",
    launch: Annotated[
        bool, typer.Option("--launch", help="Start a policy node of its own.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with calling the policy directly.")
    ] = False,
    clock: Annotated[
        Literal["sim", "wall"], typer.Option(help="sim: /clock comes from the replay.")
    ] = "sim",
    rate: Annotated[
        float, typer.Option(min=0.1, max=10.0, help="Speed; 1 is as recorded. Clock sim only.")
    ] = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="Report folder; default runs/replay/<time>.")
    ] = None,
) -> None:
    """Feed recorded images and states to the running policy node over DDS; report its commands."""
    from rich.console import Console

    from canvas_robot.ros.bag import is_bag
    from canvas_robot.ros.bag_run import run_bag
    from canvas_robot.ros.demo import run_folder
    from canvas_robot.ros.replay_run import ReplaySettings, run_replay

    if is_bag(source):
        if not verify or launch:
            raise ValueError("a bag is decided again without a node: give --verify, no --launch")
        raise typer.Exit(0 if run_bag(source, checkpoint, binding, Console()) else 1)
    settings = ReplaySettings(
        source=source,
        folder=out if out is not None else run_folder(Path.cwd(), "replay"),
        episode=episode,
        split=split,
        state=state,
        joints=_joints(joints) if fixed_joints or joints else None,
        instruction=instruction,
        binding=binding,
        checkpoint=checkpoint,
        launch=launch,
        verify=verify,
        clock=clock,
        rate=rate,
    )
    raise typer.Exit(0 if run_replay(settings, Console()) else 1)


def _joints(text: str) -> tuple[float, ...]:
    from canvas_robot.sim.workplace import FINGER_RESET, TABLE_RESET

    if not text:
        return (*(float(q) for q in TABLE_RESET), float(FINGER_RESET))
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 7:
        raise typer.BadParameter(
            f"expected seven numbers with commas between them, got {text!r}", param_hint="--joints"
        )
    return values
