"""`canvas-robot ablate`: one configuration with each number of loops and each freeze, compared."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def ablate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]...",
            help="A file or the name of a shipped one, and what is to be otherwise than it says.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder; default: runs/ablate/<time>. Resumes what is there."
        ),
    ] = None,
    loops: Annotated[str, typer.Option(help="Numbers of loops, with commas.")] = "1,2,3,4",
    freeze: Annotated[
        str, typer.Option(help="Of full, half and none, with commas.")
    ] = "full,half,none",
    episodes: Annotated[
        int, typer.Option(min=0, help="Held-out episodes that judge a run; 0: all.")
    ] = 0,
    device: Annotated[
        str, typer.Option(help="That judges: cpu or cuda; default: the one that trains.")
    ] = "",
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Windows judged at once.")] = 16,
) -> None:
    """Train each number of loops with each freeze, judge them on held-out episodes, draw the table.

    Runs follow one another; finished ones are kept, so the same command goes on after a stop.
    """
    from accelerate import PartialState
    from rich.console import Console

    from canvas_robot.evaluation.ablation_report import markdown, write_ablation
    from canvas_robot.evaluation.ablation_run import judge_by
    from canvas_robot.resources import resolve_config
    from canvas_robot.training.ablation import configurations, run_ablation
    from canvas_robot.training.config_file import load_config

    config = load_config(resolve_config("train", words[0]), words[1:])
    folder = out or Path("runs", "ablate", time.strftime("%Y-%m-%d_%H-%M-%S"))
    runs = configurations(config, _cells(loops, freeze), folder)
    folder.mkdir(parents=True, exist_ok=True)
    judge = judge_by(episodes, device or PartialState().device.type, batch)
    ablation = run_ablation(runs, judge, Console())
    write_ablation(folder, ablation, list(runs), config)
    typer.echo(markdown(ablation, list(runs), config))
    typer.echo(f"{folder / 'ablation.png'}")
    if ablation.signal:
        command = shlex.join(["canvas-robot", *sys.argv[1:], *([] if out else ["-o", str(folder)])])
        typer.echo(f"stopped; go on with: {command}", err=True)
        raise typer.Exit(128 + ablation.signal)


def _cells(loops: str, freeze: str) -> list:
    """The grid that was asked for; raises ValueError for other words."""
    from canvas_robot.training.ablation import FREEZES, grid

    try:
        numbers = [int(part) for part in loops.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(1 <= number <= 64 for number in numbers):
        raise ValueError(f"--loops: expected numbers from 1 to 64 with commas, got {loops!r}")
    freezes = freeze.split(",")
    if not set(freezes) <= set(FREEZES):
        raise ValueError(f"--freeze: expected some of {','.join(FREEZES)}, got {freeze!r}")
    return grid(dict.fromkeys(numbers), dict.fromkeys(freezes))
