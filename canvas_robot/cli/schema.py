"""`canvas-robot schema`: check, show, draw, compare, upgrade schema files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canvas_robot.cli import schema_distance
from canvas_robot.resources import schema_path

if TYPE_CHECKING:
    from rich.console import Console

    from canvas_robot.schema.description import BlockRow, Description, GroupRow
    from canvas_robot.schema.difference import Difference

app = typer.Typer(help="Look at canvas schemas.", no_args_is_help=True)
File = Annotated[str, typer.Argument(metavar="FILE", help="A file, or a name in config/schemas.")]
WIDTH = 120  # where the output is no terminal


@app.callback()
def _group() -> None:
    """Look at canvas schemas."""


@app.command("check")
def check(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files, or names in config/schemas.")
    ],
) -> None:
    """Whether files are valid schemas that compile, and what is likely to be a mistake.

    Exits with 1 if any is not valid; warnings and notes do not count.
    """
    from canvas_robot.schema import compile_plan
    from canvas_robot.schema.advice import advise

    failed = False
    for name in files:
        try:
            schema = _load(name)
            plan = compile_plan(schema)
        except (ValueError, OSError) as error:
            print(f"{name}: error: {error}")
            failed = True
            continue
        layout = schema.layout
        print(
            f"{name}: ok, {layout.T}x{layout.H}x{layout.W} cells, {len(layout.regions)} regions, "
            f"{plan.n_rows} tokens"
        )
        for advice in advise(schema, plan):
            print(f"  {advice}")
    raise typer.Exit(1 if failed else 0)


@app.command("show")
def show(
    file: File,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-3, help="Control ticks per second; default: metadata.control_rate_hz, else 5."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Regions, connections and what is executed, as tables."""
    from dataclasses import asdict

    from canvas_robot.schema.description import describe

    description = describe(_load(file), rate_hz=rate)
    if as_json:
        print(json.dumps(asdict(description), indent=2, ensure_ascii=False))
        return
    _print_description(_console(), file, description)


@app.command("draw")
def draw(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write: .png or .svg.")],
) -> None:
    """Write one picture: the grid, who reads which tokens, the graph, the clock."""
    from canvas_robot.evaluation.schema_picture import draw_schema

    draw_schema(_load(file), out, Path(file).stem)
    print(f"wrote {out}")


@app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A file, or a name in config/schemas.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The one to compare it with.")],
    binding: Annotated[
        str, typer.Option(help="A binding of A: says which codec fills which region.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """What differs between two schemas, and whether a checkpoint trained under A fits B.

    Exits with 0 if they are equal, 1 if they differ, 2 if one cannot be read.
    """
    from dataclasses import asdict

    from canvas_robot.schema.difference import compare

    try:
        difference = compare(_load(first), _load(second), _codecs(binding))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    if as_json:
        verdict = {"verdict": difference.verdict, "reasons": difference.reasons}
        print(json.dumps({**verdict, **asdict(difference)}, indent=2, ensure_ascii=False))
    elif not difference.changes:
        print("equal")
    else:
        _print_difference(_console(), difference)
    raise typer.Exit(1 if difference.changes else 0)


@app.command("upgrade")
def upgrade(
    file: File,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write.")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Overwrite FILE itself.")] = False,
    drop_unknown: Annotated[
        bool, typer.Option("--drop-unknown", help="Drop also what changes the meaning.")
    ] = False,
) -> None:
    """Read a schema of canvas-engineering 0.1.0 to 0.5.0 and write it in the current form.

    Without -o or --in-place the schema is printed and no file is written.
    """
    from canvas_robot.schema import SchemaError
    from canvas_robot.schema import upgrade as upgrading

    if out is not None and in_place:
        raise typer.BadParameter("expected one of -o and --in-place")
    path = schema_path(file)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{path}: expected a canvas schema in JSON, got {error}") from error
    try:
        result = upgrading.upgrade(data, drop_unknown)
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from error
    for verb, lines in (("translated", result.translated), ("dropped", result.dropped)):
        for line in lines:
            print(f"{verb}: {line}", file=sys.stderr)
    target = path if in_place else out
    if target is None:
        print(json.dumps(result.schema.to_dict(), indent=2, ensure_ascii=False))
        return
    result.schema.to_json(target)
    print(f"wrote {target}", file=sys.stderr)


app.command("distance")(schema_distance.distance)


def _load(reference: str):
    from canvas_robot.schema import CanvasSchema

    return CanvasSchema.from_json(schema_path(reference))


def _codecs(binding: str) -> dict[str, str] | None:
    if not binding:
        return None
    from canvas_robot.resources import resolve_config
    from canvas_robot.signals import load_binding

    name = binding if binding.endswith((".yaml", ".yml")) else f"{binding}.yaml"
    regions = load_binding(resolve_config("bindings", name)).regions
    return {region: bound.codec for region, bound in regions.items()}


def _console() -> Console:
    from rich.console import Console

    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH if fixed else None, highlight=False, markup=False, emoji=False)


def _print_description(console: Console, file: str, description: Description) -> None:
    grid = "x".join(str(extent) for extent in description.grid)
    console.print(
        f"{Path(file).stem}: {grid} cells, {description.tokens} of {description.cells} covered, "
        f"d_model {description.d_model}, t_current {description.t_current}, "
        f"control rate {description.control_rate_hz:g} Hz",
        soft_wrap=True,
    )
    _print_regions(console, description)
    _print_connections(console, description)
    _print_groups(console, description)
    _print_edges(console, description)


def _print_regions(console: Console, description: Description) -> None:
    table = _table("regions", "region")
    table.add_column("box t h w", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    for heading in ("tokens", "share", "period", "rate", "timestep", "loss"):
        table.add_column(heading, justify="right")
    for heading in ("output", "stream", "default type"):
        table.add_column(heading, overflow="fold")
    for r in description.regions:
        t0, t1, h0, h1, w0, w1 = r.bounds
        table.add_row(
            r.name,
            f"{t0}:{t1} {h0}:{h1} {w0}:{w1}",
            "x".join(str(extent) for extent in r.size),
            str(r.tokens),
            f"{r.share:.1%}",
            str(r.period),
            f"{r.rate_hz:.3g} Hz",
            str(r.timestep),
            f"{r.loss_weight:g}" if r.is_output else "-",
            "yes" if r.is_output else "no",
            r.stream,
            r.default_attn,
        )
    console.print(table)


def _print_connections(console: Console, description: Description) -> None:
    table = _table("connections", "region", "reads (sources)", "is read by", "meaning")
    for r in description.regions:
        table.add_row(
            r.name,
            ", ".join(str(source) for source in r.sources) or "nothing",
            ", ".join(r.readers) or "nobody",
            r.semantic_type or "-",
        )
    console.print(table)


def _print_groups(console: Console, description: Description) -> None:
    table = _table("execution groups: one softmax each", "rows", "regions", "stream, timestep")
    table.add_column("reads", overflow="fold")
    for g in description.groups:
        rows, regions, reads = _block_cells(g)
        table.add_row(rows, regions, f"{g.stream}, {g.timestep}", reads)
    console.print(table)


def _print_edges(console: Console, description: Description) -> None:
    if not description.edges:
        console.print("residual edges: none")
        return
    table = _table("residual edges: each adds to its rows", "edge", "type", "weight", "rows")
    for heading in ("regions", "reads"):
        table.add_column(heading, overflow="fold")
    for e in description.edges:
        edge = (f"{e.src} -> {e.dst}", e.fn, f"{e.weight:g}")
        for block in e.blocks:
            table.add_row(*edge, *_block_cells(block))
            edge = ("", "", "")
        if not e.blocks:
            table.add_row(*edge, "none", "", "no canvas steps pair up")
    console.print(table)


def _block_cells(block: GroupRow | BlockRow) -> tuple[str, str, str]:
    return (
        f"{block.start}" + (f"..{block.stop - 1}" if block.stop - block.start > 1 else ""),
        ", ".join(str(span) for span in block.spans),
        ", ".join(str(read) for read in block.reads) or "nothing",
    )


def _print_difference(console: Console, difference: Difference) -> None:
    table = _table("", "where", "what", "a checkpoint of A", "because")
    for c in difference.changes:
        table.add_row(c.where, c.what, c.verdict, c.reason)
    console.print(table)
    console.print(f"A checkpoint trained under A, in B: {difference.verdict}")
    for reason in difference.reasons:
        console.print(f"  {reason}", soft_wrap=True)


def _table(title: str, *headings: str):
    from rich import box
    from rich.table import Table

    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
