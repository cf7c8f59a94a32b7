"""`canvas-robot data download`: Bridge V2 as published, with resume, every file checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from canvas_robot.data.download import Download, Outcome


def download(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The data set will be in DIR/DATASET/VERSION.")
    ],
    dataset: Annotated[str, typer.Option(help="Its name.")] = "bridge_dataset",
    version: Annotated[str, typer.Option(help="Its version.")] = "1.0.0",
    url: Annotated[
        str, typer.Option(help="Another server's folder of that version; default: the publisher's.")
    ] = "",
    split: Annotated[str, typer.Option(help="Splits, such as train,val; default: all.")] = "",
    only: Annotated[
        str,
        typer.Option(metavar="GLOB", help="Only files so named, such as '*-0000?-*'."),
    ] = "*",
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files at a time.")] = 4,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before fetching.")] = False,
) -> None:
    """Fetch the published Bridge V2 (124 GB), or a part of it, and check every record.

    Run it again to go on where it stopped: what is here is checked and kept.
    """
    from rich.console import Console

    from canvas_robot.data.download import Source, plan_download, run_download

    console = Console(highlight=False, markup=False, emoji=False)
    source = Source(dataset, version, url, _names(split), only)
    plan = plan_download(folder, source)
    _print_plan(console, plan)
    plan.check_space()
    if not yes:
        _ask()
    with _progress(console, plan) as (moved, done):
        outcomes = run_download(plan, jobs, moved, done)
    _print_outcomes(console, plan, outcomes)
    raise typer.Exit(1 if any(outcome.result == "failed" for outcome in outcomes) else 0)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _ask() -> None:
    if not sys.stdin.isatty():
        raise ValueError("download: expected --yes, or a terminal to ask in; got neither")
    typer.confirm("Fetch it?", abort=True)


def _print_plan(console: Console, plan: Download) -> None:
    from canvas_robot.data.download import gigabytes

    source, count = plan.source, len(plan.shards)
    records = sum(shard.records for shard in plan.shards)
    for line in (
        f"{source.dataset} {source.version} from {source.folder_url}",
        f"into {plan.folder}",
        f"{count:,} {'file' if count == 1 else 'files'}, {records:,} episodes, "
        f"{gigabytes(plan.about_bytes)}; about {gigabytes(plan.missing_bytes())} to fetch, "
        f"{gigabytes(plan.free_bytes())} free",
    ):
        console.print(line, soft_wrap=True)


@contextmanager
def _progress(
    console: Console, plan: Download
) -> Iterator[tuple[Callable[[int], None], Callable[[Outcome], None]]]:
    """What is told of bytes and files while the download runs: a bar, or lines in a log."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    total, files = len(plan.shards), 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"0/{total} files", total=plan.missing_bytes())

        def moved(count: int) -> None:
            bar.advance(task, count)

        def done(outcome: Outcome) -> None:
            nonlocal files
            files += 1
            bar.update(task, description=f"{files}/{total} files")
            if outcome.result == "failed" or not console.is_terminal:
                line = f"{files}/{total} {outcome.name}: {outcome.result}"
                console.print(f"{line}: {outcome.problem}" if outcome.problem else line)

        yield moved, done


def _print_outcomes(console: Console, plan: Download, outcomes: list[Outcome]) -> None:
    from rich.table import Table
    from rich.text import Text

    from canvas_robot.data.download import gigabytes

    table = Table("result", "files", "bytes")
    for result in ("fetched", "resumed", "kept", "failed"):
        those = [outcome for outcome in outcomes if outcome.result == result]
        if those:
            table.add_row(result, f"{len(those):,}", gigabytes(sum(o.size for o in those)))
    console.print(table)
    failed = [outcome for outcome in outcomes if outcome.result == "failed"]
    for outcome in failed:
        console.print(Text(f"failed: {outcome.problem}\n  {outcome.remedy}"), soft_wrap=True)
    if not failed:
        console.print(f"every record is whole: {plan.folder}", soft_wrap=True)
