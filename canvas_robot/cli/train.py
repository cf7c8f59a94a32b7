"""`canvas-robot train`: a policy learns from recorded episodes; one process, or many."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer


def train(
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
    fit: Annotated[
        bool, typer.Option("--fit", help="Run two steps, print memory and time needed, and end.")
    ] = False,
) -> None:
    """Train loops, codecs and heads, or a whole small model, on Bridge V2 or data in its format.

    Ctrl-C finishes the step, writes a checkpoint and says how to go on.
    """
    words = list(words or [])
    if not resume and not words:
        raise ValueError("train: expected a configuration, such as tiny_sim.yaml, or --resume RUN")

    from rich.console import Console

    from canvas_robot.evaluation.training_report import write_training_report
    from canvas_robot.resources import resolve_config
    from canvas_robot.training.config_file import load_config
    from canvas_robot.training.fit import fit_training
    from canvas_robot.training.launch import run_training
    from canvas_robot.training.run_folder import RunFolder

    if resume:
        config = RunFolder.open(resume).config(tuple(words))
    else:
        config = load_config(resolve_config("train", words[0]), words[1:])
    console = Console()
    if fit:
        fit_training(config, console)
        return
    ending = run_training(config, console, write_training_report)
    typer.echo(f"{ending.folder / 'report.html'}")
    if ending.signal:
        command = shlex.join(["canvas-robot", "train", "--resume", str(ending.folder)])
        typer.echo(f"stopped at step {ending.step}; go on with: {command}", err=True)
        raise typer.Exit(128 + ending.signal)
