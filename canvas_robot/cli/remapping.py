"""The option by which commands hear a node under the names that it was started with."""

from __future__ import annotations

from typing import Annotated

import typer

Remap = Annotated[
    list[str] | None,
    typer.Option(
        "--remap",
        "-r",
        metavar="FROM:=TO",
        help="A rule that the node is started with; repeatable.",
    ),
]
