"""`canvas-robot data from-bags`: recordings of a robot as a data set to learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

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
    skip_unusable: Annotated[
        bool, typer.Option("--skip-unusable", help="Pass over bags that make no episode.")
    ] = False,
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
    declared = load_binding(resolve_config("bindings", binding)) if binding else None

    def read(bag: Path, left_out: Callable, tell: Callable) -> Episode:
        return bag_episode(bag, declared, name, image_transport, instruction, left_out, tell)

    console = data_console()
    reading = _Reading(bags, read, console, skip_unusable)
    folder = write_rlds(reading.episodes(), out, split, achieved=True)
    console.print(f"data set: {folder}")
    reading.tell()
    console.print(
        "its actions are motions that were reached: train with data.rules.actions=composed"
    )


class _Reading:
    """Bags, read one after the other. All are opened before the first is read.

    Args:
        read: makes an episode of a bag, and tells what is not in it.
        console: is told how it goes.
        skip: passes over a bag that makes no episode; else that raises BagError.
    """

    def __init__(
        self, bags: list[Path], read: Callable[..., Episode], console: Console, skip: bool
    ) -> None:
        self._bags, self._read, self._console, self._skip = bags, read, console, skip
        self._signals: set[str] = set()  # that are stored nowhere
        self._cameras: Counter[str] = Counter()  # episodes that have them
        self._unusable = _unopened(bags)
        if self._unusable and not skip:
            self._raise()

    def episodes(self) -> Iterator[Episode]:
        from canvas_robot.ros.bag import BagError

        for bag in self._bags:
            if bag not in self._unusable:
                try:
                    yield self._episode(bag)
                    continue
                except BagError as error:
                    self._unusable[bag] = str(error)
            if not self._skip:
                self._raise()
            self._console.print(f"passed over: {self._unusable[bag]}")
        if not self._cameras:
            self._raise()

    def tell(self) -> None:
        """What the data set has not."""
        if self._unusable:
            self._console.print(f"{len(self._unusable)} of {len(self._bags)} bags passed over")
        if len(self._cameras) > 1:
            told = "; ".join(f"{count} have {names}" for names, count in self._cameras.items())
            self._console.print(
                f"episodes differ in their cameras: {told}; training leaves those out that lack a "
                f"camera which its schema looks at (data.rules.black)"
            )
        if self._signals:
            self._console.print(
                f"left out, for a step holds the arm's state, and the pictures of cameras that "
                f"the binding's sources.dataset names: {', '.join(sorted(self._signals))}"
            )

    def _episode(self, bag: Path) -> Episode:
        lines: list[str] = []
        episode = self._read(bag, self._signals.update, lines.append)
        cameras = ", ".join(episode.pictures)
        self._cameras[cameras] += 1
        self._console.print(f"{len(episode):>6} steps  {bag}  {episode.instruction!r}  {cameras}")
        for line in lines:
            self._console.print(f"{'':>12}  {line}")
        return episode

    def _raise(self) -> None:
        from canvas_robot.ros.bag import BagError

        raise BagError("\n".join(self._unusable.values()))


def _unopened(bags: list[Path]) -> dict[Path, str]:
    """Why not, of each that cannot be opened."""
    from canvas_robot.ros.bag import BagError, opened
    from canvas_robot.ros.bag_episode import about_bag

    faults = {}
    for bag in bags:
        try:
            about_bag(bag)
            with opened(bag):
                pass
        except BagError as error:
            faults[bag] = str(error)
    return faults
