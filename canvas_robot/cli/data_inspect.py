"""`canvas-robot data inspect`: what an episode holds, in words, numbers and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canvas_robot.cli.data_index import (
    Folder,
    SkipCorrupt,
    data_console,
    indexing,
)
from canvas_robot.destinations import ready_file

if TYPE_CHECKING:
    from rich.console import Console

    from canvas_robot.data.bridge import BridgeV2
    from canvas_robot.data.stored import StoredEpisode

NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
UNITS = ("m", "m", "m", "rad", "rad", "rad", "0 closed, 1 open")


def inspect(
    folder: Folder,
    split: Annotated[str, typer.Option(help="As stored: train or val.")] = "train",
    episode: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Its place, from 0; negative: from the end; repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=ready_file,
            help="The picture, .png or .svg; default: episode-SPLIT-N.png here.",
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=16, help="Pictures of each camera.")] = 8,
    skip_corrupt: SkipCorrupt = False,
) -> None:
    """Print what episodes hold, and draw film strips of their cameras above all their curves."""
    from canvas_robot.data.bridge import BridgeV2, find_version_folder
    from canvas_robot.data.layout import read_layout
    from canvas_robot.evaluation.episode_strip import draw_episode

    console = data_console()
    camera = read_layout(find_version_folder(folder)).cameras[0]
    with indexing(split) as progress:
        dataset = BridgeV2(folder, split, camera, skip_corrupt=skip_corrupt, progress=progress)
    numbers = [_checked(number, len(dataset), split) for number in episode or [0]]
    if dataset.index.skipped:
        console.print(
            f"{dataset.index.episodes_skipped:,} episodes cannot be read and are left out; "
            f"canvas-robot data index {folder} --skip-corrupt lists them",
            soft_wrap=True,
        )
    for number in numbers:
        stored = dataset.read(number)
        _print_episode(console, dataset, number, stored)
        path = _picture_path(output, split, number, several=len(numbers) > 1)
        draw_episode(stored, path, frames)
        console.print(f"picture: {path}", soft_wrap=True)


def _checked(number: int, count: int, split: str) -> int:
    if not -count <= number < count:
        raise ValueError(
            f"--episode: expected one of the {count} episodes of {split!r}, 0 to {count - 1}, "
            f"or negative from the end; got {number}"
        )
    return number % count


def _picture_path(output: Path | None, split: str, number: int, several: bool) -> Path:
    if output is None:
        return Path(f"episode-{split}-{number}.png")
    return output.with_stem(f"{output.stem}-{number}") if several else output


def _print_episode(console: Console, dataset: BridgeV2, number: int, stored: StoredEpisode) -> None:
    from canvas_robot.cli.schema_tables import Column, print_table
    from canvas_robot.data.stored import STEP_NS
    from canvas_robot.schema.plain import printable

    index = dataset.index
    file, offset = index.files[index.shard[number]], index.offset[number]
    text = printable(stored.instruction.strip())
    for line in (
        f"{stored.name}: {dataset.layout.name}",
        f"instruction: {text or 'none (blank)'}",
        f"{len(stored)} steps, {(len(stored) - 1) * STEP_NS / 1e9:.1f} s",
        f"pictures: {_pictures(dataset, number, stored)}",
        f"stored in {file} at {offset}, {index.length[number]:,} bytes",
    ):
        console.print(line, soft_wrap=True)
    columns = (
        Column(""),
        Column("unit", spare=1),
        *(Column(f"state {part}", right=True) for part in ("first", "last", "least", "most")),
        *(Column(f"action {part}", right=True) for part in ("first", "least", "most")),
    )
    states, actions = stored.states, stored.actions
    values = (states[0], states[-1], states.min(0), states.max(0))
    values += (actions[0], actions.min(0), actions.max(0))
    rows = [
        (name, unit, *(f"{value[i]:.4g}" for value in values))
        for i, (name, unit) in enumerate(zip(NAMES, UNITS, strict=True))
    ]
    print_table(console, "", columns, rows)


def _pictures(dataset: BridgeV2, number: int, stored: StoredEpisode) -> str:
    """Cameras with their size, then those that are black."""
    shown, black = [], []
    for camera, seen in zip(dataset.cameras, dataset.pictures[number], strict=True):
        height, width = stored.image(camera, 0).shape[:2]
        if seen:
            shown.append(f"{camera} {width}x{height}")
        else:
            black.append(camera)
    return ", ".join(shown or ["none"]) + (f"; black: {', '.join(black)}" if black else "")
