"""`canvas-robot data index`: where each episode lies, and what is damaged, summed up as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from canvas_robot.data.index import EpisodeIndex, Skipped

WIDTH = 120  # at least, where the output is no terminal
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The data set, in TFDS form.")]
SkipCorrupt = Annotated[
    bool, typer.Option("--skip-corrupt", help="Use what is whole of damaged or incomplete data.")
]


def index(
    folder: Folder,
    split: Annotated[str, typer.Option(help="As stored: train or val; default: all.")] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the checksums of all data too.")
    ] = False,
    skip_corrupt: SkipCorrupt = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Make the index that random access needs, unless it is up to date, and sum it up.

    One pass that leaves the pictures out; kept beside the data, or in ~/.cache/canvas_robot/index
    where that is read-only. Exits with 1 if episodes cannot be read, but not with --skip-corrupt.
    """
    from canvas_robot.data.bridge import find_version_folder, split_files, splits_of
    from canvas_robot.data.index import open_index
    from canvas_robot.data.layout import read_layout

    version = find_version_folder(folder)
    layout = read_layout(version)
    indexes = {}
    for name in [split] if split else splits_of(version):
        *_, files = split_files(version, name)
        with indexing(name) as progress:
            indexes[name] = open_index(files, layout, progress=progress, verify=verify)
    if as_json:
        print(json.dumps({name: facts(index) for name, index in indexes.items()}, indent=2))
    else:
        _print(data_console(), f"{version}: {layout.name}", indexes)
    lost = sum(index.episodes_skipped for index in indexes.values())
    if lost and not skip_corrupt:
        raise ValueError(
            f"{folder}: {lost:,} episodes cannot be read; download their files again, "
            "or leave them out with --skip-corrupt"
        )


def facts(index: EpisodeIndex) -> dict:
    """An index in numbers, ready for JSON."""
    return {
        "episodes": len(index),
        "steps": int(index.steps.sum()),
        "with_language": int(index.has_language.sum()),
        "pictures": dict(zip(index.cameras, index.pictures.sum(axis=0).tolist(), strict=True)),
        "shards": len(index.files),
        "gigabytes": index.gigabytes,
        "seconds": index.seconds,
        "seconds_per_gigabyte": index.seconds / index.gigabytes if index.gigabytes else None,
        "verified": index.verified,
        "episodes_skipped": index.episodes_skipped,
        "skipped": [skipped._asdict() for skipped in index.skipped],
    }


@contextmanager
def indexing(split: str) -> Iterator[Callable[[int, int], None]]:
    """What is told how many bytes are indexed, of how many: a bar on a terminal, beside the output.

    It shows nothing where an index is there already.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn(f"indexing {split}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(split, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def data_console() -> Console:
    """Prints names and texts of the data as they are."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    return console


def _print(console: Console, title: str, indexes: dict[str, EpisodeIndex]) -> None:
    from canvas_robot.cli.schema_tables import Column, print_table

    cameras = next(iter(indexes.values())).cameras
    columns = (
        Column("split"),
        Column("episodes", right=True),
        Column("steps", right=True),
        Column("language", right=True),
        *(Column(camera, right=True) for camera in cameras),
        Column("GB", right=True),
        Column("s/GB", right=True, spare=1),
        Column("checksums", spare=2),
        Column("skipped", right=True),
    )
    rows = []
    for split, index in indexes.items():
        numbers = facts(index)
        rows.append(
            (
                split,
                f"{len(index):,}",
                f"{numbers['steps']:,}",
                _share(numbers["with_language"], len(index)),
                *(_share(count, len(index)) for count in numbers["pictures"].values()),
                f"{index.gigabytes:,.3g}",
                f"{numbers['seconds_per_gigabyte'] or 0:.2g}",
                "verified" if index.verified else "when read",
                f"{index.episodes_skipped:,}",
            )
        )
    print_table(console, title, columns, rows)
    print_skipped(console, [skipped for index in indexes.values() for skipped in index.skipped])


def print_skipped(console: Console, places: list[Skipped]) -> None:
    """A table of what cannot be read; nothing where all can."""
    from canvas_robot.cli.schema_tables import Column, print_table

    if not places:
        return
    columns = (
        Column("file"),
        Column("at", right=True),
        Column("episodes", right=True),
        Column("problem", breaks=True),
    )
    rows = [
        (
            place.file,
            str(place.offset) if place.offset >= 0 else "-",
            f"{place.episodes:,}",
            place.problem,
        )
        for place in places
    ]
    print_table(console, "skipped", columns, rows)


def _share(count: int, total: int) -> str:
    """How many of all, as `12 (48%)`."""
    return f"{count:,} ({count / total:.0%})" if total else "0"
