"""`canvas-robot schema distance`: which regions of two schemas mean alike, what bridges them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canvas_robot.resources import schema_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.semantic import (
    DEFAULT_MODEL,
    Comparison,
    EmbeddedTextError,
    compare_schemas,
    regions_to_embed,
    with_missing_embeddings,
)

if TYPE_CHECKING:
    from rich.console import Console


def finite(value: float | None) -> float | None:
    """Refuses NaN and infinity, which pass any bound of a number on the command line."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"expected a finite number, got {value}")
    return value


def distance(
    mine: Annotated[str, typer.Argument(metavar="A", help="A schema's file or name.")],
    theirs: Annotated[str, typer.Argument(metavar="B", help="The one to compare it with.")],
    threshold: Annotated[
        float,
        typer.Option(
            min=0.0, max=2.0, callback=finite, help="Largest distance of a compatible pair."
        ),
    ] = 0.3,
    model: Annotated[
        str, typer.Option(help="Embeds what has no embedding yet: a hub id or a folder.")
    ] = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Compatible regions of two schemas, nearest first, and what bridging each pair costs."""
    from rich.console import Console

    files = {"mine": schema_path(mine), "theirs": schema_path(theirs)}
    schemas = {side: CanvasSchema.from_json(file) for side, file in files.items()}
    embedded = {side: regions_to_embed(schema) for side, schema in schemas.items()}
    for side, file in files.items():
        try:
            schemas[side] = with_missing_embeddings(schemas[side], model)
        except EmbeddedTextError as error:
            raise EmbeddedTextError(f"{file}: {error}") from error
    comparison = compare_schemas(schemas["mine"], schemas["theirs"], threshold)
    if as_json:
        embedded_now = {"model": model, **embedded}
        named = {side: str(file) for side, file in files.items()}
        result = {"files": named, "embedded_now": embedded_now, **asdict(comparison)}
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _print(Console(), files, embedded, comparison, model)


def _print(
    console: Console,
    files: dict[str, Path],
    embedded: dict[str, list[str]],
    comparison: Comparison,
    model: str,
) -> None:
    from rich.table import Table
    from rich.text import Text

    def line(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    for side, names in embedded.items():
        if names:
            line(f"embedded now, offline, by {model}: {', '.join(names)} of {files[side]}")
    table = Table("A", "B", "distance", "bridging", "parameters (estimate)")
    for pair in comparison.pairs:
        table.add_row(
            Text(pair.mine),
            Text(pair.theirs),
            f"{pair.distance:.3f}",
            pair.bridging.kind,
            f"{pair.bridging.parameters:,}",
        )
    if comparison.pairs:
        console.print(table)
    else:
        line(f"no compatible pair: none within {comparison.threshold:g}")
    if comparison.beyond:
        line(f"farther apart than {comparison.threshold:g}: {comparison.beyond} pairs")
    for left_out in comparison.not_compared:
        line(f"not compared: {left_out.region} of {files[left_out.schema]}: {left_out.reason}")
    others = sorted({pair.embedding_model for pair in comparison.pairs} - {DEFAULT_MODEL})
    if others:
        line(f"what bridges {', '.join(others)} is by limits that hold for {DEFAULT_MODEL}")
    if any(pair.bridging.kind == "direct" for pair in comparison.pairs):
        line("direct: the texts hardly differ. Compare units, frames and normalisation yourself.")
