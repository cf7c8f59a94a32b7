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
    from canvas_robot.evaluation.policy_bench import bench_policy

    _report(bench_policy(checkpoint, decisions, threads), json_file)


@app.command("canvas")
def canvas(
    runs: Annotated[int, typer.Option(min=1, help="Timings of each attention.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    dispatcher: Annotated[
        Path | None,
        typer.Option(help="Folder that holds canvas-engineering 0.5.0, to time its dispatcher."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
) -> None:
    """Time compiling schemas and one attention layer, beside canvas-engineering 0.1.0."""
    from canvas_robot.evaluation.canvas_bench import bench_canvas
    from canvas_robot.evaluation.dispatcher_bench import bench_dispatcher

    figures = bench_canvas(threads, runs, typer.echo)
    if dispatcher is not None:
        typer.echo("the same layer beside canvas-engineering 0.5.0's dispatcher")
        beside = bench_dispatcher(dispatcher, threads, runs)
        figures |= {f"dispatched_{name}": value for name, value in beside.items()}
    _report(figures, json_file)


def _report(figures: dict, json_file: Path | None) -> None:
    """Prints the figures as a table and writes them to a file if there is one."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.1f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
