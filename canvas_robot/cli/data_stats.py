"""`canvas-robot data stats`: mean, deviation and quantiles of states and actions, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canvas_robot.destinations import ready_file

if TYPE_CHECKING:
    from rich.console import Console

    from canvas_robot.data.transitions import DataRules, Selection
    from canvas_robot.signals import Statistics

PUBLISHED = "bridge_v2.json"
PUBLISHED_RULES = "rules: --actions naive --first-step keep --language keep --black keep"
COMPONENTS = {
    "state": ("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    "action": ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
}
MEASURES = {"mean": "mean", "std": "std", "q01": "1%", "q99": "99%"}
_WIDTH = 120  # where the output is no terminal


def stats(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The data set.")],
    split: Annotated[str, typer.Option(help="As stored: train or val.")] = "train",
    actions: Annotated[
        str, typer.Option(help="composed, naive or recorded; see canvas_robot.data.transitions.")
    ] = "composed",
    gripper: Annotated[str, typer.Option(help="settled or raw.")] = "settled",
    first_step: Annotated[str, typer.Option(help="drop or keep the first step.")] = "drop",
    language: Annotated[str, typer.Option(help="skip or keep blank instructions.")] = "skip",
    black: Annotated[str, typer.Option(help="skip or keep episodes without picture.")] = "skip",
    camera: Annotated[str, typer.Option(help="Whose picture `black` asks for.")] = "image_0",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", callback=ready_file, help="File to write them to, as JSON."),
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out episodes that cannot be read.")
    ] = False,
) -> None:
    """Compute mean, standard deviation and quantiles of states and actions over all transitions.

    They are shown beside the published ones, which are of all of Bridge V2 under other rules:
    --actions naive --first-step keep --language keep --black keep.
    """
    from rich.console import Console

    from canvas_robot.data.bridge import BridgeV2
    from canvas_robot.data.statistics import signal_statistics
    from canvas_robot.data.transitions import chosen
    from canvas_robot.resources import config_path
    from canvas_robot.signals import load_statistics, save_statistics

    rules = _rules(
        actions=actions, gripper=gripper, first_step=first_step, language=language, black=black
    )
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    with _shown(console, "reading the index") as progress:
        dataset = BridgeV2(folder, split, camera, skip_corrupt=skip_corrupt, progress=progress)
    selection = chosen(dataset, rules, [camera])
    with _shown(console, "reading episodes") as progress:
        computed = signal_statistics(dataset, rules, progress, selection)
    if output is not None:
        save_statistics(computed, output)
    _print_selection(console, selection, len(dataset))
    published = load_statistics(config_path("statistics", PUBLISHED))
    for signal, statistics in computed.items():
        _print_statistics(console, signal, statistics, published[signal])
    console.print(f"published: {published['action'].source}; {PUBLISHED_RULES}", soft_wrap=True)
    if output is not None:
        console.print(f"written to {output}", soft_wrap=True)


def _rules(**asked: str) -> DataRules:
    """The rules; raises ValueError, naming the option, for one that is none."""
    from typing import get_args, get_type_hints

    from canvas_robot.data.transitions import DataRules

    for name, choices in get_type_hints(DataRules).items():
        if name in asked and asked[name] not in get_args(choices):
            raise ValueError(
                f"--{name.replace('_', '-')}: expected one of {', '.join(get_args(choices))}, "
                f"got {asked[name]!r}"
            )
    return DataRules(**asked)


@contextmanager
def _shown(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """What is told how much is done, of how much: a bar on a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(what), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as p:
        task = p.add_task(what, total=None)
        yield lambda done, total: p.update(task, completed=done, total=total)


def _print_selection(console: Console, selection: Selection, count: int) -> None:
    left_out = [f"{number:,} {reason}" for reason, number in selection.left_out.items() if number]
    console.print(
        f"{selection.counts.sum():,} transitions of {len(selection):,} episodes; left out of "
        f"{count:,}: {', '.join(left_out) or 'none'}",
        soft_wrap=True,
    )


def _print_statistics(
    console: Console, signal: str, statistics: Statistics, published: Statistics
) -> None:
    from canvas_robot.cli.schema_tables import Column, print_table

    headings = [h for name in MEASURES.values() for h in (name, "published")]
    columns = (
        Column("component"),
        *(Column(heading, right=True) for heading in headings),
        Column("lowest", right=True, spare=1),
        Column("highest", right=True, spare=2),
    )
    values = zip(
        *(getattr(each, name) for name in MEASURES for each in (statistics, published)),
        statistics.low,
        statistics.high,
        strict=True,
    )
    rows = [
        (component, *(f"{value:.4g}" for value in row))
        for component, row in zip(COMPONENTS[signal], values, strict=True)
    ]
    print_table(console, signal, columns, rows)
