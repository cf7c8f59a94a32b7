"""`canvas-robot data from-bags`: recordings of a robot as a data set to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    from canvas_robot.signals import load_binding

    if image_transport not in ("raw", "compressed"):
        raise ValueError(f"--image-transport: expected raw or compressed, got {image_transport!r}")
    declared = load_binding(resolve_config("bindings", binding)) if binding else None
    console, episodes = data_console(), []
    for bag in bags:
        episode = bag_episode(bag, declared, name, image_transport, instruction)
        episodes.append(episode)
        console.print(f"{len(episode):>6} steps  {bag}  {episode.instruction!r}")
    console.print(f"data set: {write_rlds(episodes, out, split)}")
