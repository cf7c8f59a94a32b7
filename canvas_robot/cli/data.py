"""`canvas-robot data`: Bridge V2 on disk; one file for each command."""

from __future__ import annotations

import typer

from canvas_robot.cli import (
    data_download,
    data_encode,
    data_from_bags,
    data_index,
    data_inspect,
    data_stats,
)

app = typer.Typer(help="Bridge V2: fetch, check, look at and prepare it.", no_args_is_help=True)
app.command("download")(data_download.download)
app.command("index")(data_index.index)
app.command("inspect")(data_inspect.inspect)
app.command("stats")(data_stats.stats)
app.command("encode")(data_encode.encode)
app.command("from-bags")(data_from_bags.from_bags)


@app.callback()
def _group() -> None:
    """Bridge V2: fetch, check, look at and prepare it."""
