"""The demo: a simulated arm and the policy as two processes over DDS.

It is watched live and reported afterwards.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from canvas_robot.evaluation.eval_statistics import wilson
from canvas_robot.evaluation.records import TickRecord
from canvas_robot.evaluation.run_report import BRIDGE_TABLE_CAMERA, RunMeta, write_report
from canvas_robot.resources import DEMO
from canvas_robot.ros.decisions import HoldReason
from canvas_robot.ros.monitor import Monitor, Status
from canvas_robot.ros.processes import NodeProcesses, free_domain_id, node_environment
from canvas_robot.ros.sim_episodes import SimEpisode, SimEpisodes, most_periods
from canvas_robot.sim.task import CONTROL_PERIOD_S as PERIOD_S
from canvas_robot.sim.tasks import task_named

START_TIMEOUT_S = 120.0
MIN_FRESH = 0.99  # share of ticks that must use an image newer than the tick before
MIN_TICKS = 0.99  # share of the expected ticks that must have commanded
MAX_GAP_TICKS = 2.5  # longest silence between two commands, in control periods
FRAMES_PER_SECOND = 10.0  # of the video
FILMED = 8  # episodes: a picture of the camera is 1 MB
# An episode is over by then: a policy that holds all the time never ends one.
LATEST_S, LATEST_TIMES = 10.0, 3
PACKAGES = (
    "canvas_robot",
    "torch",
    "diffusers",
    "transformers",
    "mujoco",
    "gymnasium",
    "numpy",
    "opencv-python",
)


@dataclass(frozen=True)
class DemoSettings:
    """What to run, and where the report goes.

    task: of the simulated robot; episode: the first. episodes: how many, one after the other; 0:
    that one scene for some seconds. checkpoint: a folder or "demo"; "": an untrained policy.
    instruction: of the seconds; "": the episode's own.
    """

    folder: Path
    task: str = "cube_on_plate"
    episodes: int = 5
    seconds: float = 0.0
    checkpoint: str = DEMO
    episode: int = 0
    instruction: str = ""


class DemoError(RuntimeError):
    """The demo could not run; the text says which node failed and what it printed."""


@dataclass(frozen=True, eq=False)
class _Stretch:
    """What was recorded while the policy was to command without a pause.

    started: on the monitor's clock. expected: ticks. episode: how it went, where it was one.
    """

    started: float
    statuses: list[Status]
    frames: list[tuple[float, np.ndarray]]
    expected: int
    episode: SimEpisode | None = None


@dataclass(eq=False)
class _Show:
    """What the live table tells of the run as a whole; counts: what `going_on` is about."""

    title: str
    counts: str
    started: float = field(default_factory=time.monotonic)
    going_on: str = ""
    episodes: list[SimEpisode] = field(default_factory=list)


def run_demo(settings: DemoSettings, console: Console) -> bool:
    """Runs the demo and writes its report.

    True where commands flowed at the rate, on fresh images, all the time.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    if not settings.instruction:
        goal = task_named(settings.task).episode(settings.episode).instruction
        settings = dataclasses.replace(settings, instruction=goal)
    domain = free_domain_id()
    with (
        NodeProcesses(node_environment(domain), settings.folder) as nodes,
        Monitor(domain, "camera/image_raw") as monitor,
    ):
        nodes.start("sim_robot", {"episode": settings.episode, "task": settings.task})
        nodes.start(
            "policy",
            {
                "autostart": True,
                "instruction": "" if settings.episodes else settings.instruction,
                "checkpoint": settings.checkpoint,
            },
        )
        _wait_for_start(settings, monitor, nodes, console)
        play = _play if settings.episodes else _watch
        stretches = list(play(monitor, nodes, settings, console))
        codes = nodes.stop_all()
    summary = _report(settings, stretches)
    failures = _failures(summary, stretches, codes)
    for failure in failures:
        console.print(f"[red]{failure}[/red]")
    if said := success_in_words([s.episode for s in stretches if s.episode]):
        console.print(said)
    console.print(f"report: {settings.folder / 'report.html'}")
    return not failures


def _wait_for_start(
    settings: DemoSettings, monitor: Monitor, nodes: NodeProcesses, console: Console
) -> None:
    """Until the policy decides: it commands, or holds because it has no goal yet."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with console.status("starting the simulated arm and the policy") as status:
        while not any(s.active or settings.episodes for s in monitor.statuses):
            monitor.spin_once()
            name = nodes.died()
            if name is not None or time.monotonic() > deadline:
                what = (
                    f"node {name} ended" if name else f"no command within {START_TIMEOUT_S:.0f} s"
                )
                raise DemoError(f"{what}; it printed:\n{nodes.log(name or 'policy')[-2000:]}")
            if monitor.statuses:
                status.update(f"the policy holds: {monitor.statuses[-1].message}")


def _watch(
    monitor: Monitor, nodes: NodeProcesses, settings: DemoSettings, console: Console
) -> Iterator[_Stretch]:
    """One scene for some seconds. Pictures are thinned to the video's rate."""
    show = _Show(settings.instruction, "time")
    monitor.statuses.clear()
    monitor.frames.clear()
    with Live(console=console, refresh_per_second=4) as live:
        while (elapsed := time.monotonic() - show.started) < settings.seconds:
            if nodes.died() is not None:
                break
            monitor.spin_once(0.05)
            _thin(monitor.frames)
            if monitor.statuses:
                show.going_on = f"{elapsed:5.1f} of {settings.seconds:.0f} s"
                live.update(_table(monitor.statuses, show))
    console.print()
    rate = monitor.statuses[-1].values["control_rate_hz"] if monitor.statuses else 0.0
    expected = math.floor(settings.seconds * rate)
    yield _Stretch(show.started, list(monitor.statuses), list(monitor.frames), expected)


def _play(
    monitor: Monitor, nodes: NodeProcesses, settings: DemoSettings, console: Console
) -> Iterator[_Stretch]:
    """One episode after the other."""
    episodes, show = SimEpisodes(monitor), _Show("", "episode")
    with Live(console=console, refresh_per_second=4) as live:
        for number in range(settings.episodes):
            show.title = episodes.begin()["instruction"]
            monitor.frames.clear()
            began, started = len(monitor.statuses), time.monotonic()
            patience = started + LATEST_S + LATEST_TIMES * most_periods(settings.task) * PERIOD_S
            while not episodes.over and nodes.died() is None and time.monotonic() < patience:
                monitor.spin_once(0.05)
                _thin(monitor.frames)
                show.going_on = f"{number + 1} of {settings.episodes}"
                live.update(_table(monitor.statuses, show))
            result = episodes.result()
            show.episodes.append(result)
            live.update(_table(monitor.statuses, show))
            first, last = result.ticks
            yield _Stretch(
                started,
                [s for s in monitor.statuses[began:] if first <= s.values["index"] <= last],
                list(monitor.frames) if number < FILMED else [],
                last - first + 1 if last else 0,
                result,
            )
            if nodes.died() is not None:
                break
    console.print()


def success_in_words(episodes: Sequence[SimEpisode]) -> str:
    """How many succeeded, by protocol, with 95% intervals; "" without any."""
    if not episodes:
        return ""
    kinds = {"any": [e.success_any for e in episodes], "last": [e.success for e in episodes]}
    if episodes[0].success_held is not None:
        kinds["held"] = [bool(e.success_held) for e in episodes]
    parts = []
    for name, kind in kinds.items():
        share = wilson(sum(kind), len(kind))
        parts.append(
            f"{name} {share['k']} of {share['n']} ({share['low']:.0%} to {share['high']:.0%})"
        )
    return "success: " + ", ".join(parts)


def _thin(frames: list) -> None:
    if len(frames) >= 2 and frames[-1][0] - frames[-2][0] < 1.0 / FRAMES_PER_SECOND:
        frames.pop()


def _table(statuses: Sequence[Status], show: _Show) -> Table:
    last = statuses[-1].values
    trained = "trained" if last["trained"] else "UNTRAINED policy: its actions mean nothing"
    table = Table(title=f"canvas_robot demo: {show.title!r} ({trained})", show_header=False)
    target = ", ".join(f"{x:+.3f}" for x in last.get("target", []))
    # Between episodes there is nothing to do.
    held = sum(bool(s.values["reason"] not in ("", HoldReason.NO_INSTRUCTION)) for s in statuses)
    rows = {
        show.counts: show.going_on,
        "state": last["state"] if not last["reason"] else f"{last['state']}: {last['reason']}",
        "ticks": f"{sum(s.active for s in statuses)} commanded, "
        f"{held} held, {last['missed_ticks']} missed",
        "target [m]": target or "none",
        "model": f"{last.get('model_ms', math.nan):6.1f} ms",
        "image to command": f"{_image_to_command_ms(last):6.1f} ms",
    }
    if show.episodes:
        rows["success"] = success_in_words(show.episodes).removeprefix("success: ")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _image_to_command_ms(values: dict) -> float:
    image_ns = values.get("image_stamp_ns", 0)
    return (
        (values["command_stamp_ns"] - image_ns) / 1e6 + values["publish_ms"]
        if image_ns
        else math.nan
    )


def _report(settings: DemoSettings, stretches: Sequence[_Stretch]) -> dict:
    statuses = [status for stretch in stretches for status in stretch.statuses]
    rate = statuses[-1].values["control_rate_hz"] if statuses else 5.0
    episodes = [stretch.episode for stretch in stretches if stretch.episode]
    goals = dict.fromkeys(e.instruction for e in episodes) or {settings.instruction: None}
    records, pictures, seconds = joined(stretches, 1.0 / rate)
    meta = RunMeta(
        instruction="; ".join(goals),
        trained=bool(statuses and statuses[-1].values["trained"]),
        seconds=settings.seconds or round(seconds, 3),
        control_rate_hz=rate,
        expected_ticks=sum(stretch.expected for stretch in stretches),
        versions=versions(),
        title="canvas_robot demo",
        details={
            "checkpoint": settings.checkpoint or "none (untrained)",
            "task": settings.task,
            "episode": settings.episode,
            **_told(episodes),
        },
    )
    return write_report(settings.folder, records, pictures, BRIDGE_TABLE_CAMERA, meta)


def _told(episodes: Sequence[SimEpisode]) -> dict[str, object]:
    if not episodes:
        return {}
    return {
        "success": success_in_words(episodes).removeprefix("success: "),
        "episodes": [msgspec.to_builtins(episode) for episode in episodes],
    }


def joined(
    stretches: Sequence[_Stretch], period_s: float
) -> tuple[list[TickRecord], list[tuple[float, np.ndarray]], float]:
    """Records and pictures as if one stretch followed the other, and how many seconds they took."""
    records, pictures, tick, second = [], [], 0, 0.0
    for stretch in stretches:
        if not stretch.statuses:
            continue
        indices = [status.values["index"] for status in stretch.statuses]
        shift = stretch.started - second
        records += [
            dataclasses.replace(status.record(shift), tick=index - indices[0] + tick)
            for status, index in zip(stretch.statuses, indices, strict=True)
        ]
        pictures += [(at - shift, image) for at, image in stretch.frames]
        tick += indices[-1] - indices[0] + 1
        second += stretch.statuses[-1].received_s - stretch.started + period_s
    return records, pictures, second


def _failures(
    summary: Mapping, stretches: Sequence[_Stretch], codes: Mapping[str, int]
) -> list[str]:
    """Why the run does not count as good, in sentences; empty for a good one."""
    failures = [f"node {name} ended with exit code {code}" for name, code in codes.items() if code]
    rate = summary["control_rate_hz"]
    if summary["active_ticks"] < MIN_TICKS * summary["expected_ticks"] - 1:
        model_ms = summary["latency_ms"]["model"]["p95"]
        failures.append(
            f"commands: expected {summary['expected_ticks']}, got {summary['active_ticks']}; 95% "
            f"of decisions took up to {model_ms} ms of the {1e3 / rate:.0f} ms there are: close "
            "other programs"
        )
    if not summary["active_ticks"]:
        return [*failures, "no command was given"]
    for stretch in stretches:
        active = [status for status in stretch.statuses if status.active]
        gap = max((b.received_s - a.received_s for a, b in pairwise(active)), default=0.0)
        if gap > MAX_GAP_TICKS / rate:
            failures.append(f"commands paused for {gap:.2f} s, at a period of {1 / rate:.2f} s")
    if (summary["fresh_image_fraction"] or 0.0) < MIN_FRESH:
        failures.append(
            f"only {summary['fresh_image_fraction']:.1%} of ticks used a newer image, "
            f"expected {MIN_FRESH:.0%}"
        )
    return failures


def versions() -> dict[str, str]:
    """Versions of the packages that matter to a run, where they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def run_folder(root: Path, kind: str) -> Path:
    """runs/<kind>/<time> below `root`."""
    return root / "runs" / kind / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
