"""One examination from start to end: a table, and the camera's view as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from rich.console import Console
from rich.table import Table

from canvas_robot.policy.settings import PolicySettings, binding_of
from canvas_robot.ros.doctor import Doctor
from canvas_robot.ros.findings import absolute
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
    see; save: where to put what it sees. params_file, remap: of the
    node.
    """
    parameters = {} if params_file is None else parameters_of_file(params_file, absolute(name))
    named = {key: str(parameters.get(key, "")) for key in ("checkpoint", "binding")}
    if binding is not None:
        named["binding"] = binding
    try:
        rate_hz = float(parameters.get("control_rate", 0.0))
        declared = binding_of(PolicySettings(**named, control_rate_hz=rate_hz))
    except FileNotFoundError as error:
        raise ValueError(
            f"checkpoint {named['checkpoint']!r}, binding {named['binding']!r}: {error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"control_rate or binding: {error}") from error
    transport = image_transport or parameters.get("image_transport", "raw")
    picture = None
    if reference is not None:
        try:
            with PIL.Image.open(reference) as image:
                picture = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise ValueError(
                f"--reference: expected a picture, got {reference}: {error}"
            ) from error
    with Doctor(declared, transport, name, user_domain_id(), parameters, remap) as doctor:
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
