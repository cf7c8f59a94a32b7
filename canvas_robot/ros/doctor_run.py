"""One examination from start to end: a table, and the camera's view as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from rich.console import Console
from rich.table import Table

from canvas_robot.resources import resolve_config
from canvas_robot.ros.doctor import Doctor
from canvas_robot.ros.processes import user_domain_id
from canvas_robot.ros.qos import overrides_of_file
from canvas_robot.signals import load_binding

_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


def run_doctor(
    binding: str,
    image_transport: str,
    name: str,
    seconds: float,
    reference: Path | None,
    save: Path | None,
    console: Console,
    params_file: Path | None = None,
) -> bool:
    """Listens, prints what was found with a remedy a line; True where there is no fault.

    reference: picture that the camera should see; save: where to put what it sees. params_file: of
    the node, whose quality of service is listened with.
    """
    declared = load_binding(resolve_config("bindings", binding))
    picture = None
    if reference is not None:
        try:
            with PIL.Image.open(reference) as image:
                picture = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise ValueError(
                f"--reference: expected a picture, got {reference}: {error}"
            ) from error
    overrides = {} if params_file is None else overrides_of_file(params_file)
    with Doctor(declared, image_transport, name, user_domain_id(), overrides) as doctor:
        with console.status(f"listening for {seconds:g} s; nothing is published"):
            doctor.listen(seconds)
        findings, seen = doctor.examine(picture), doctor.picture()
    table = Table("", "what", "found", "remedy")
    for finding in findings:
        level = f"[{_COLOURS[finding.level]}]{finding.level}[/]"
        table.add_row(level, finding.subject, finding.found, finding.remedy)
    console.print(table)
    if save is not None and seen is not None:
        PIL.Image.fromarray(seen).save(save)
        console.print(f"the camera's view: {save}")
    return all(finding.level != "fault" for finding in findings)
