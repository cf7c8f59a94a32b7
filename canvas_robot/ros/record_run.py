"""One recording from start to end: progress, and what is in the bag."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from canvas_robot.resources import resolve_config
from canvas_robot.ros.processes import user_domain_id
from canvas_robot.ros.record import Recorder
from canvas_robot.signals import load_binding


def run_record(
    folder: Path,
    binding: str,
    image_transport: str,
    name: str,
    seconds: float | None,
    console: Console,
    remap: Sequence[str] = (),
    instruction: str = "",
) -> bool:
    """Records for `seconds`, or until Ctrl-C; True where anything came.

    The bag's metadata says the instruction, where there is one, and the whole binding.

    Raises RecordError, and BindingError and the like for the binding.
    """
    if image_transport not in ("raw", "compressed"):
        raise ValueError(f"--image-transport: expected raw or compressed, got {image_transport!r}")
    path = resolve_config("bindings", binding)
    declared = load_binding(path)
    about = {"canvas_robot.binding": path.read_text()}
    if instruction:
        about["canvas_robot.instruction"] = instruction
    started = time.monotonic()
    with (
        Recorder(
            folder, declared, image_transport, name, user_domain_id(), remap, about
        ) as recorder,
        console.status("recording; Ctrl-C ends it") as status,
    ):
        try:
            while seconds is None or time.monotonic() - started < seconds:
                recorder.spin_for(0.25)
                status.update(
                    f"recording: {time.monotonic() - started:.0f} s, "
                    f"{sum(recorder.counts.values()):,} messages, {recorder.bytes / 1e6:,.1f} MB; "
                    f"Ctrl-C ends it"
                )
        except KeyboardInterrupt:
            pass
    for topic, count in sorted(recorder.counts.items()):
        console.print(f"{count:>8,}  {topic}")
    console.print(f"bag: {folder}")
    if not recorder.counts:
        console.print("nothing came: is the node running in this ROS_DOMAIN_ID, with this binding?")
    elif not any(topic.endswith("/status") for topic in recorder.counts):
        console.print(f"nothing came of the node {name!r}: is that its name, with its namespace?")
    return bool(recorder.counts)
