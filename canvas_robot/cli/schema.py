"""`canvas-robot schema`: check, show, draw, compare, upgrade schema files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canvas_robot.cli import schema_distance
from canvas_robot.cli.schema_distance import finite
from canvas_robot.cli.schema_tables import Column, print_table
from canvas_robot.destinations import ready_file
from canvas_robot.resources import schema_path
from canvas_robot.schema.plain import printable

if TYPE_CHECKING:
    from rich.console import Console

    from canvas_robot.schema import CanvasSchema, Plan
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
    from canvas_robot.schema.advice import advise

    failed = False
    for name in files:
        path: str | Path = name
        try:
            path = schema_path(name)
            schema, plan = _load(name)
            advices = advise(schema, plan)
        except (ValueError, OSError) as error:
            print(printable(f"{name}: error: {str(error).removeprefix(f'{path}: ')}"))
            failed = True
            continue
        layout = schema.layout
        size = f"{layout.T}x{layout.H}x{layout.W} cells, {len(layout.regions)} regions"
        print(printable(f"{name}: ok, {size}, {plan.n_rows} tokens"))
        for advice in advices:
            print(f"  {printable(str(advice))}")
    raise typer.Exit(1 if failed else 0)


@app.command("show")
def show(
    file: File,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-3,
            callback=finite,
            help="Control ticks per second; default: metadata.control_rate_hz, else 5.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Regions, connections and what is executed, as tables."""
    from dataclasses import asdict

    from canvas_robot.schema.description import describe

    description = describe(*_load(file), rate_hz=rate)
    if as_json:
        _print_json(asdict(description))
        return
    _print_description(_console(), file, description)


@app.command("draw")
def draw(
    file: File,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", callback=ready_file, help="Picture to write: .png or .svg."),
    ],
) -> None:
    """Write one picture: the grid, who reads which tokens, the graph, the clock."""
    from canvas_robot.evaluation.schema_picture import draw_schema

    schema, _ = _load(file)
    draw_schema(schema, out, printable(Path(file).stem))
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

    Exits with 0 if they are equal, 1 if they differ, 2 if one cannot be read or compiled.
    """
    from dataclasses import asdict

    from canvas_robot.schema.difference import compare

    try:
        (a, _), (b, _) = _load(first), _load(second)
        difference = compare(a, b, _codecs(binding))
    except (ValueError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        raise typer.Exit(2) from error
    if as_json:
        verdict = {"verdict": difference.verdict, "reasons": difference.reasons}
        _print_json({**verdict, **asdict(difference)})
    elif not difference.changes:
        print("equal")
    else:
        _print_difference(_console(), difference)
    raise typer.Exit(1 if difference.changes else 0)


@app.command("upgrade")
def upgrade(
    file: File,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", callback=ready_file, help="File to write.")
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Overwrite FILE itself.")] = False,
    drop_unknown: Annotated[
        bool, typer.Option("--drop-unknown", help="Drop also what changes the meaning.")
    ] = False,
) -> None:
    """Read a schema of canvas-engineering 0.1.0 to 0.5.0 and write it in the current form.

    Without -o or --in-place the schema is printed and no file is written.
    """
    from canvas_robot.schema import PlanError, compile_plan
    from canvas_robot.schema import upgrade as upgrading
    from canvas_robot.schema.document import read_document

    if out is not None and in_place:
        raise typer.BadParameter("expected one of -o and --in-place")
    path = schema_path(file)
    if in_place and not (own := Path(file).expanduser()).is_file():
        found = "no file on the disk" if own.exists() else "the name of a shipped schema"
        raise typer.BadParameter(f"{file} is {found}, and stays as it is; write a file with -o")
    data = read_document(path)
    try:
        result = upgrading.upgrade(data, drop_unknown)
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from error
    for verb, lines in (("translated", result.translated), ("dropped", result.dropped)):
        for line in lines:
            print(printable(f"{verb}: {line}"), file=sys.stderr)
    try:
        compile_plan(result.schema)
    except PlanError as error:
        print(f"warning: the upgraded schema cannot be executed: {error}", file=sys.stderr)
    target = path if in_place else out
    if target is None:
        _print_json(result.schema.to_dict())
        return
    result.schema.to_json(target)
    print(f"wrote {target}", file=sys.stderr)


app.command("distance")(schema_distance.distance)


def _load(reference: str) -> tuple[CanvasSchema, Plan]:
    """The schema of a file and its plan; every error names the file."""
    from canvas_robot.schema import CanvasSchema, PlanError, compile_plan

    path = schema_path(reference)
    schema = CanvasSchema.from_json(path)
    try:
        return schema, compile_plan(schema)
    except PlanError as error:
        raise type(error)(f"{path}: {error}") from error


def _codecs(binding: str) -> dict[str, str] | None:
    if not binding:
        return None
    from canvas_robot.resources import resolve_config
    from canvas_robot.signals import load_binding

    name = binding if binding.endswith((".yaml", ".yml")) else f"{binding}.yaml"
    regions = load_binding(resolve_config("bindings", name)).regions
    return {region: bound.codec for region, bound in regions.items()}


def _print_json(value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # half a character, or a terminal that knows few
        text = json.dumps(value, indent=2)
    print(text)


def _console() -> Console:
    from rich.console import Console

    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH if fixed else None, highlight=False, markup=False, emoji=False)


def _print_description(console: Console, file: str, description: Description) -> None:
    grid = "x".join(str(extent) for extent in description.grid)
    console.print(
        f"{printable(Path(file).stem)}: {grid} cells, "
        f"{description.tokens} of {description.cells} covered, d_model {description.d_model}, "
        f"t_current {description.t_current}, "
        f"control rate {description.control_rate_hz:g} Hz",
        soft_wrap=True,
    )
    _print_regions(console, description)
    _print_connections(console, description)
    _print_groups(console, description)
    _print_edges(console, description)


def _print_regions(console: Console, description: Description) -> None:
    columns = (
        Column("region"),
        Column("box t h w"),
        Column("shape", spare=2),
        Column("tokens", right=True),
        Column("share", right=True, spare=3),
        Column("period", right=True),
        Column("rate", right=True, spare=7),
        Column("timestep", right=True, spare=5),
        Column("loss", right=True, spare=4),
        Column("output", spare=8),
        Column("stream", spare=6),
        Column("default type", spare=1),
    )
    rows = []
    for r in description.regions:
        t0, t1, h0, h1, w0, w1 = r.bounds
        rows.append(
            (
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
        )
    print_table(console, "regions", columns, rows)


def _print_connections(console: Console, description: Description) -> None:
    columns = (
        Column("region"),
        Column("reads (sources)", breaks=True),
        Column("is read by", breaks=True),
        Column("meaning", breaks=True),
    )
    rows = [
        (
            r.name,
            ", ".join(str(source) for source in r.sources) or "nothing",
            ", ".join(r.readers) or "nobody",
            r.semantic_type or "-",
        )
        for r in description.regions
    ]
    print_table(console, "connections", columns, rows)


def _print_groups(console: Console, description: Description) -> None:
    columns = (
        Column("rows"),
        Column("regions", breaks=True),
        Column("stream, timestep", breaks=True),
        Column("reads", breaks=True),
    )
    rows = []
    for g in description.groups:
        numbers, regions, reads = _block_cells(g)
        rows.append((numbers, regions, f"{g.stream}, {g.timestep}", reads))
    print_table(console, "execution groups: one softmax each", columns, rows)


def _print_edges(console: Console, description: Description) -> None:
    if not description.edges:
        console.print("residual edges: none")
        return
    columns = (
        Column("edge", breaks=True),
        Column("type"),
        Column("weight", right=True),
        Column("rows"),
        Column("regions", breaks=True),
        Column("reads", breaks=True),
    )
    rows = []
    for e in description.edges:
        edge = (f"{e.src} -> {e.dst}", e.fn, f"{e.weight:g}")
        for block in e.blocks:
            rows.append((*edge, *_block_cells(block)))
            edge = ("", "", "")
    print_table(console, "residual edges: each adds to its rows", columns, rows)


def _block_cells(block: GroupRow | BlockRow) -> tuple[str, str, str]:
    return (
        f"{block.start}" + (f"..{block.stop - 1}" if block.stop - block.start > 1 else ""),
        ", ".join(str(span) for span in block.spans),
        ", ".join(str(read) for read in block.reads) or "nothing",
    )


def _print_difference(console: Console, difference: Difference) -> None:
    headings = ("where", "what", "a checkpoint of A", "because")
    columns = tuple(Column(heading, breaks=True) for heading in headings)
    rows = [(c.where, c.what, c.verdict, c.reason) for c in difference.changes]
    print_table(console, "", columns, rows)
    console.print(f"A checkpoint trained under A, in B: {difference.verdict}")
    for reason in difference.reasons:
        console.print(f"  {printable(reason)}", soft_wrap=True)
