"""`canvas-robot data from-bags`: recordings of a robot as a data set to learn from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from canvas_robot.data.episode import Episode


def from_bags(
    bags: Annotated[
        list[Path], typer.Argument(metavar="BAG...", help="Recordings, an episode each.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Becomes OUT/recorded/1.0.0.")],
    binding: Annotated[
        str, typer.Option(help="File, or name of a shipped one; default: each bag's own.")
    ] = "",
    name: Annotated[str, typer.Option(help="Of the node, with its namespace.")] = "policy",
    image_transport: Annotated[
        str, typer.Option(help="As the node's parameter: raw or compressed.")
    ] = "raw",
    instruction: Annotated[
        str, typer.Option(help="What all show, in words; default: what each bag says.")
    ] = "",
    split: Annotated[str, typer.Option(help="As stored: train or val.")] = "train",
) -> None:
    """Make a data set of bags that `canvas-robot record` has written, in Bridge V2's layout."""
    from canvas_robot.cli.data_index import data_console
    from canvas_robot.data.rlds import write_rlds
    from canvas_robot.resources import resolve_config
    from canvas_robot.ros.bag_episode import bag_episode
    from canvas_robot.ros.images import check_transport
    from canvas_robot.signals import load_binding

    check_transport(image_transport)
    if split not in ("train", "val"):
        raise ValueError(f"--split: expected train or val, got {split!r}")
    if out.is_file():
        raise ValueError(f"--out: expected a folder, got the file {out}")
    _require_whole(bags)
    declared = load_binding(resolve_config("bindings", binding)) if binding else None
    console = data_console()
    unstored: set[str] = set()
    stored: Counter[str] = Counter()  # episodes by their cameras

    def read(bag: Path) -> Episode:
        lines: list[str] = []
        episode = bag_episode(
            bag, declared, name, image_transport, instruction, unstored.update, lines.append
        )
        cameras = ", ".join(episode.pictures)
        stored[cameras] += 1
        console.print(f"{len(episode):>6} steps  {bag}  {episode.instruction!r}  {cameras}")
        for line in lines:
            console.print(f"{'':>12}  {line}")
        return episode

    folder = write_rlds(map(read, bags), out, split, achieved=True)
    console.print(f"data set: {folder}")
    if len(stored) > 1:
        told = "; ".join(f"{count} have {cameras}" for cameras, count in stored.items())
        console.print(
            f"episodes differ in their cameras: {told}; training leaves those out that lack a "
            f"camera which its schema looks at (data.rules.black)"
        )
    if unstored:
        console.print(
            f"left out, for a step holds the arm's state, and the pictures of cameras that the "
            f"binding's sources.dataset names: {', '.join(sorted(unstored))}"
        )
    console.print(
        "its actions are motions that were reached: train with data.rules.actions=composed"
    )


def _require_whole(bags: list[Path]) -> None:
    """Raises BagError for all that cannot be opened, before the first is read."""
    from canvas_robot.ros.bag import BagError, opened
    from canvas_robot.ros.bag_episode import about_bag

    faults = []
    for bag in bags:
        try:
            about_bag(bag)
            with opened(bag):
                pass
        except BagError as error:
            faults.append(str(error))
    if faults:
        raise BagError("\n".join(faults))
