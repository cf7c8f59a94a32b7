"""One recording from start to end: progress, and what is in the bag."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from canvas_robot.kinematics.arm_model import is_topic
from canvas_robot.resources import resolve_config
from canvas_robot.ros.findings import absolute
from canvas_robot.ros.images import check_transport
from canvas_robot.ros.processes import user_domain_id
from canvas_robot.ros.record import Recorder, RecordError
from canvas_robot.signals import Binding, load_binding


def run_record(
    folder: Path,
    binding: str,
    image_transport: str,
    name: str,
    seconds: float | None,
    console: Console,
    remap: Sequence[str] = (),
    instruction: str = "",
    topics: Sequence[str] = (),
) -> bool:
    """Records for `seconds`, or until Ctrl-C; True where all came that a node decides on.

    The bag's metadata says the instruction, where there is one, and the whole binding.

    Raises RecordError, and BindingError and the like for the binding.
    """
    check_transport(image_transport)
    path = resolve_config("bindings", binding)
    declared, about = load_binding(path), _about(path, instruction)
    started = time.monotonic()
    with (
        Recorder(
            folder, declared, image_transport, name, user_domain_id(), remap, about, topics
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
    if nothing := recorder.left_out():
        console.print(
            f"{nothing}: do robot and node run in ROS_DOMAIN_ID {user_domain_id()}, with the "
            f"topics of {binding}?"
        )
        return False
    console.print(f"bag: {folder}")
    if not any(topic.endswith("/status") for topic in recorder.counts):
        console.print(f"nothing came of the node {name!r}: is that its name, with its namespace?")
    useless = list(_useless(recorder, declared, image_transport, name))
    for line in useless:
        console.print(line)
    return not useless


def _useless(
    recorder: Recorder, binding: Binding, image_transport: str, name: str
) -> Iterator[str]:
    """What no node could decide on, and nothing learn from, in a bag that is closed."""
    from canvas_robot.ros.bag import refused_from_the_first  # brings torch

    for topic in recorder.unheard():
        yield f"nothing came of {topic}"
    if binding.robot is None or is_topic(binding.robot.arm):
        return  # who the arm is was not recorded: nobody can say what a node would refuse
    refused = refused_from_the_first(recorder.folder, binding, image_transport, name)
    for signal, why in refused.items():
        yield f"signal {signal!r}: a node refuses its messages: {why}"


def run_goals(
    folder: Path,
    binding: str,
    image_transport: str,
    name: str,
    console: Console,
    remap: Sequence[str] = (),
    topics: Sequence[str] = (),
) -> None:
    """Records a bag in `folder` for each goal of /recorder/record_episode, until Ctrl-C.

    Raises RecordError where the action's messages are not installed, and as `run_record`.
    """
    try:
        from canvas_robot.ros.record_goals import RecordGoals
    except ImportError as error:
        raise RecordError(
            f"--goals: expected the package canvas_robot_interfaces, got {error}; build it, as "
            f"docs/robot.md says"
        ) from error
    check_transport(image_transport)
    path, domain_id = resolve_config("bindings", binding), user_domain_id()
    declared = load_binding(path)

    def begin(instruction: str) -> Recorder:
        bag = unused(folder / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
        about = _about(path, instruction)
        return Recorder(bag, declared, image_transport, name, domain_id, remap, about, topics)

    namespace = absolute(name).rpartition("/")[0]
    with RecordGoals(begin, domain_id, namespace) as goals:
        console.print(f"waiting for goals of {namespace}/recorder/record_episode; Ctrl-C ends it")
        try:
            while True:
                goals.spin_once()
        except KeyboardInterrupt:
            pass


def unused(folder: Path) -> Path:
    """The folder's path, with a number behind it where there is such a folder already."""
    others = (folder.with_name(f"{folder.name}_{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], others) if not path.exists())


def _about(binding: Path, instruction: str) -> dict[str, str]:
    """What a bag's metadata say of it."""
    about = {"canvas_robot.binding": binding.read_text()}
    return about | ({"canvas_robot.instruction": instruction} if instruction else {})
