"""`canvas-robot train-plain`: a policy without canvas or loops learns from the same episodes."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer


def train_plain(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]...",
            help="A file or the name of a shipped one, and what is to be otherwise than it says.",
        ),
    ] = None,
    resume: Annotated[
        str, typer.Option(metavar="RUN", help="Go on with the run in this folder; no CONFIG then.")
    ] = "",
) -> None:
    """Train a small convolutional policy by behaviour cloning, to compare the canvas with.

    It reads what `canvas-robot train` reads, by the same windows, schema and binding. At the end
    the policy is in RUN/export/step_<step>. Ctrl-C finishes the step, writes a checkpoint and says
    how to go on.
    """
    words = list(words or [])
    if not resume and not words:
        raise ValueError(
            "train-plain: expected a configuration, such as plain_sim.yaml, or --resume RUN"
        )

    from rich.console import Console

    from canvas_robot.evaluation.training_report import write_report_of
    from canvas_robot.resources import resolve_config
    from canvas_robot.training.config_file import load_config
    from canvas_robot.training.plain_config import PlainTrainConfig
    from canvas_robot.training.plain_launch import run_plain_training
    from canvas_robot.training.plain_run import PlainRun

    if resume:
        config = PlainRun.open(resume).config(tuple(words))
    else:
        config = load_config(resolve_config("train", words[0]), words[1:], PlainTrainConfig)
    ending = run_plain_training(
        config, Console(), lambda folder: write_report_of(PlainRun.open(folder))
    )
    typer.echo(f"{ending.folder / 'report.html'}")
    if ending.signal:
        command = shlex.join(["canvas-robot", "train-plain", "--resume", str(ending.folder)])
        typer.echo(f"stopped at step {ending.step}; go on with: {command}", err=True)
        raise typer.Exit(128 + ending.signal)
    command = shlex.join(["canvas-robot", "eval", "--env", "ID", "--policy", str(ending.policy)])
    typer.echo(f"evaluate it with: {command}")
