"""`canvas-robot eval-offline`: a checkpoint's actions against recorded ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canvas_robot.destinations import ready_file

if TYPE_CHECKING:
    from rich.console import Console


def eval_offline(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Folder of a checkpoint.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="Bridge V2, or in its format.")],
    split: Annotated[str, typer.Option(help="As stored: train or val.")] = "val",
    episodes: Annotated[int, typer.Option(min=0, help="How many, evenly spread; 0: all.")] = 0,
    rules: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Other rules than the training's; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Report folder; default: runs/eval_offline/<time>."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", callback=ready_file, help="Write the figures here too."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="Of the frozen weights: float32, bfloat16 or float16.")
    ] = "float32",
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Windows computed at once.")] = 16,
    prompts: Annotated[
        str, typer.Option(help="Folder made by `canvas-robot prompts`; no text encoder then.")
    ] = "",
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out episodes that cannot be read.")
    ] = False,
) -> None:
    """Compare a checkpoint's actions with recorded ones on held-out episodes.

    Every window of every episode is decided on once. Beside it stand two baselines: no motion, and
    the last action repeated. Episodes that were trained on are left out where others remain.
    """
    from rich.console import Console

    from canvas_robot.evaluation.offline_run import OfflineSettings, evaluate_offline

    settings = OfflineSettings(
        checkpoint=checkpoint.expanduser(),
        data=data.expanduser(),
        split=split,
        episodes=episodes,
        rules=tuple(rules or ()),
        device=device,
        dtype=dtype,
        prompts=prompts,
        batch=batch,
        skip_corrupt=skip_corrupt,
    )
    folder = out or Path("runs", "eval_offline", time.strftime("%Y-%m-%d_%H-%M-%S"))
    console = Console(highlight=False, markup=False, emoji=False)
    with _bars(console) as (indexing, judging):
        report = evaluate_offline(settings, folder, indexing, judging)
    if json_file is not None:
        text = json.dumps(report, indent=2, ensure_ascii=False)
        json_file.write_text(text + "\n", encoding="utf-8")
    _print(console, report)
    console.print(f"{folder / 'report.html'}", soft_wrap=True)


@contextmanager
def _bars(console: Console) -> Iterator[list[Callable[[int, int], None]]]:
    """What is told how far the index and the episodes are; each appears when it is first told."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Remaining())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:

        def told(what: str) -> Callable[[int, int], None]:
            task = bars.add_task(what, total=None, visible=False)

            def done(count: int, total: int) -> None:
                bars.update(task, completed=count, total=total, visible=True)

            return done

        yield [told("indexing the data"), told("episodes")]


def _print(console: Console, report: Mapping) -> None:
    from rich.table import Table

    from canvas_robot.evaluation.offline_report import interval, share, verdicts
    from canvas_robot.evaluation.page import said

    data = report["data"]
    console.print(
        f"trained: {str(report['trained']).lower()}; actions: {report['actions']}; "
        f"{data['dataset']}/{data['split']}, fingerprint {data['fingerprint'][:12]}: "
        f"{data['episodes']:,} episodes, {data['windows']:,} windows",
        soft_wrap=True,
    )
    left_out = {reason: count for reason, count in data["left_out"].items() if count}
    if left_out:
        console.print(f"left out: {', '.join(f'{c:,} {r}' for r, c in left_out.items())}")
    predictors = report["predictors"]
    table = Table("mean absolute error", *predictors)
    for name, unit in report["components"].items():
        errors = [of["components"][name]["mean_absolute"]["value"] for of in predictors.values()]
        table.add_row(name if unit == "1" else f"{name} ({unit})", *map(said, errors))
    table.add_section()
    table.add_row("motion, normalised", *(interval(of["motion"]) for of in predictors.values()))
    for key, what in (
        ("accuracy", "gripper right"),
        ("balanced", "open and closed weigh the same"),
        ("at_changes", "where its target changes"),
    ):
        table.add_row(what, *(share(of["gripper"][key]) for of in predictors.values()))
    console.print(table)
    for _, head, text in verdicts(report):
        console.print(f"{head} {text}", soft_wrap=True)
