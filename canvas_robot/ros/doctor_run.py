"""One examination from start to end: a table, and the camera's view as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from canvas_robot.ros.doctor import Doctor
from canvas_robot.ros.findings import Finding, absolute
from canvas_robot.ros.parameters import parameters_of_file
from canvas_robot.ros.processes import user_domain_id

_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


def run_doctor(
    binding: str | None,
    image_transport: str | None,
    name: str,
    seconds: float,
    reference: Path | None,
    save: Path | None,
    console: Console,
    params_file: Path | None = None,
    remap: Sequence[str] = (),
) -> bool:
    """Listens, prints what was found with a remedy a line; True where there is no fault.

    binding, image_transport: None: as the parameters say. reference: picture that the camera should
    see; save: where to put what it sees. params_file, remap: of
    the node.
    """
    parameters = {} if params_file is None else parameters_of_file(params_file, absolute(name))
    if params_file is not None and not parameters:
        console.print(
            f"[yellow]{params_file}: nothing in it is for the node {absolute(name)}; begin it with "
            f"/**/{absolute(name).rpartition('/')[2]}:, or name the node (--name)[/]"
        )
    asked = {"binding": binding, "image_transport": image_transport}
    parameters |= {parameter: value for parameter, value in asked.items() if value is not None}
    picture = None
    if reference is not None:
        try:
            with PIL.Image.open(reference) as image:
                picture = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise ValueError(
                f"--reference: expected a picture, got {reference}: {error}"
            ) from error
    with Doctor(None, name, user_domain_id(), parameters, remap) as doctor:
        with console.status(f"listening for {seconds:g} s; nothing is published"):
            doctor.listen(seconds)
        findings, seen = doctor.examine(picture), doctor.picture()
    console.print(findings_table(findings))
    if save is not None and seen is not None:
        PIL.Image.fromarray(seen).save(save)
        console.print(f"the camera's view: {save}")
    return all(finding.level != "fault" for finding in findings)


def findings_table(findings: Sequence[Finding]) -> Table:
    """A row each; the remedy below what was found, so that both have room on a narrow terminal."""
    table = Table("", box=SIMPLE_HEAD)
    for column in ("what", "found, and the remedy"):
        table.add_column(column, overflow="fold")  # what is to be copied must be whole
    for finding in findings:
        level = Text(finding.level, style=_COLOURS[finding.level])
        found = Text(finding.found)
        if finding.remedy:
            found.append(f"\n-> {finding.remedy}", style="bold")
        table.add_row(level, Text(finding.subject), found)
    return table
