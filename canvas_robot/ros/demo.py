"""The demo: a simulated arm and the policy as two processes over DDS.

It is watched live and reported afterwards.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from canvas_robot.evaluation.run_report import BRIDGE_TABLE_CAMERA, RunMeta, write_report
from canvas_robot.ros.monitor import Monitor, Status
from canvas_robot.ros.processes import NodeProcesses, free_domain_id, node_environment
from canvas_robot.sim.reach import ReachTask

CUBES = ("red", "blue")
START_TIMEOUT_S = 120.0
MIN_FRESH = 0.99  # share of ticks that must use an image newer than the tick before
MIN_TICKS = 0.99  # share of the expected ticks that must have commanded
MAX_GAP_TICKS = 2.5  # longest silence between two commands, in control periods
FRAMES_PER_SECOND = 10.0  # of the video
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
    """What to run: seconds of commands, where the report goes, and the policy's checkpoint.

    An empty checkpoint is an untrained policy; an empty instruction is the episode's own.
    """

    seconds: float
    folder: Path
    checkpoint: str = ""
    episode: int = 0
    instruction: str = ""


class DemoError(RuntimeError):
    """The demo could not run; the text says which node failed and what it printed."""


def run_demo(settings: DemoSettings, console: Console) -> bool:
    """Runs the demo and writes its report.

    True where commands flowed at the rate, on fresh images, all the time.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    if not settings.instruction:
        goal = ReachTask(CUBES).episode(settings.episode).instruction
        settings = dataclasses.replace(settings, instruction=goal)
    domain = free_domain_id()
    with (
        NodeProcesses(node_environment(domain), settings.folder) as nodes,
        Monitor(domain, "camera/image_raw") as monitor,
    ):
        nodes.start("sim_robot", {"episode": settings.episode, "colours": list(CUBES)})
        nodes.start(
            "policy",
            {
                "autostart": True,
                "instruction": settings.instruction,
                "checkpoint": settings.checkpoint,
            },
        )
        _wait_for_start(monitor, nodes, console)
        statuses, started = _watch(monitor, nodes, settings, console)
        codes = nodes.stop_all()
    summary = _report(settings, statuses, monitor.frames, started)
    failures = _failures(summary, statuses, codes)
    for failure in failures:
        console.print(f"[red]{failure}[/red]")
    console.print(f"report: {settings.folder / 'report.html'}")
    return not failures


def _wait_for_start(monitor: Monitor, nodes: NodeProcesses, console: Console) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with console.status("starting the simulated arm and the policy") as status:
        while not any(s.active for s in monitor.statuses):
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
) -> tuple[list[Status], float]:
    """Statuses of the run, and when it started. Pictures are thinned to the video's rate."""
    started = time.monotonic()
    monitor.statuses.clear()
    monitor.frames.clear()
    with Live(console=console, refresh_per_second=4) as live:
        while time.monotonic() - started < settings.seconds and nodes.died() is None:
            monitor.spin_once(0.05)
            _thin(monitor.frames)
            if monitor.statuses:
                live.update(_table(monitor.statuses, settings, time.monotonic() - started))
    console.print()
    return list(monitor.statuses), started


def _thin(frames: list) -> None:
    if len(frames) >= 2 and frames[-1][0] - frames[-2][0] < 1.0 / FRAMES_PER_SECOND:
        frames.pop()


def _table(statuses: list[Status], settings: DemoSettings, elapsed_s: float) -> Table:
    last = statuses[-1].values
    trained = "trained" if last["trained"] else "UNTRAINED policy: its actions mean nothing"
    table = Table(
        title=f"canvas_robot demo: {settings.instruction!r} ({trained})", show_header=False
    )
    target = ", ".join(f"{x:+.3f}" for x in last.get("target", []))
    rows = {
        "time": f"{elapsed_s:5.1f} of {settings.seconds:.0f} s",
        "state": last["state"] if not last["reason"] else f"{last['state']}: {last['reason']}",
        "ticks": f"{sum(s.active for s in statuses)} commanded, "
        f"{sum(not s.active for s in statuses)} held, {last['missed_ticks']} missed",
        "target [m]": target or "none",
        "model": f"{last.get('model_ms', math.nan):6.1f} ms",
        "image to command": f"{_image_to_command_ms(last):6.1f} ms",
    }
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


def _report(settings: DemoSettings, statuses: list[Status], frames: list, started: float) -> dict:
    rate = statuses[-1].values["control_rate_hz"] if statuses else 5.0
    meta = RunMeta(
        instruction=settings.instruction,
        trained=bool(statuses and statuses[-1].values["trained"]),
        seconds=settings.seconds,
        control_rate_hz=rate,
        expected_ticks=math.floor(settings.seconds * rate),
        versions=versions(),
        title="canvas_robot demo",
        details={
            "checkpoint": settings.checkpoint or "none (untrained)",
            "episode": settings.episode,
        },
    )
    records = [status.record(started) for status in statuses]
    pictures = [(at - started, image) for at, image in frames]
    return write_report(settings.folder, records, pictures, BRIDGE_TABLE_CAMERA, meta)


def _failures(summary: dict, statuses: list[Status], codes: dict[str, int]) -> list[str]:
    """Why the run does not count as good, in sentences; empty for a good one."""
    failures = [f"node {name} ended with exit code {code}" for name, code in codes.items() if code]
    active = [s for s in statuses if s.active]
    if len(active) < MIN_TICKS * summary["expected_ticks"] - 1:
        model_ms, rate = summary["latency_ms"]["model"]["p95"], summary["control_rate_hz"]
        failures.append(
            f"commands: expected {summary['expected_ticks']}, got {len(active)}; 95% of decisions "
            f"took up to {model_ms} ms of the {1e3 / rate:.0f} ms there are: close other programs"
        )
    if not active:
        return failures
    period_s = 1.0 / active[-1].values["control_rate_hz"]
    gap = max((b.received_s - a.received_s for a, b in pairwise(active)), default=0.0)
    if gap > MAX_GAP_TICKS * period_s:
        failures.append(f"commands paused for {gap:.2f} s, at a period of {period_s:.2f} s")
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
