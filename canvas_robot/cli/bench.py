"""`canvas-robot bench`: what things cost, measured on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure on this machine."""


@app.command("policy")
def policy(
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint folder; none: an untrained policy.")
    ] = "",
    decisions: Annotated[int, typer.Option(min=5, help="Decisions to time.")] = 100,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's own choice.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
) -> None:
    """Time whole decisions, codecs included, on new 640x480 pictures."""
    from rich.console import Console
    from rich.table import Table

    from canvas_robot.evaluation.policy_bench import bench_policy

    figures = bench_policy(checkpoint, decisions, threads)
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.1f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
