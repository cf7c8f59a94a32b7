"""One run of `canvas-robot replay`: read the source, feed the node, verify, report."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.video import episode_from_video, read_states, read_video
from canvas_robot.evaluation.run_report import BRIDGE_TABLE_CAMERA, RunMeta, write_report
from canvas_robot.policy.assemble import assemble_policy
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.resources import resolve_config
from canvas_robot.ros.demo import versions
from canvas_robot.ros.monitor import Monitor
from canvas_robot.ros.processes import (
    NodeProcesses,
    free_domain_id,
    node_environment,
    user_domain_id,
)
from canvas_robot.ros.replay import (
    TRIES,
    Recording,
    Replayed,
    Replayer,
    SimulationClock,
    WallClock,
    agreement,
)
from canvas_robot.signals import load_binding

RATE_HZ = 5.0  # of Bridge V2's recordings
GOAL_OF_BLANK = "do the task"  # about 30% of Bridge V2 has no instruction, and a node holds without
PATIENCE_S = 10.0  # a decision is followed: a replay's clock nearly stands while the node decides


@dataclass(frozen=True)
class ReplaySettings:
    """What to replay, to which node, where the report goes; see `canvas-robot replay --help`."""

    source: Path
    folder: Path
    episode: int = 0
    split: str = "train"
    state: Path | None = None
    joints: tuple[float, ...] | None = None
    instruction: str | None = None
    binding: str = ""
    checkpoint: str = ""
    launch: bool = False
    verify: bool = False
    clock: str = "sim"
    rate: float = 1.0

    @property
    def binding_name(self) -> str:
        return self.binding or (
            "replay_joints.yaml" if self.joints is not None else "replay_pose.yaml"
        )


def run_replay(settings: ReplaySettings, console: Console) -> bool:
    """Replays, prints and writes the report.

    True where every step got a command, and all agreed if that was asked.
    """
    recordings = read_recordings(settings)
    if recordings[0].states is None and recordings[0].joints is None:
        console.print(
            "[yellow]no --state and no --fixed-joints: "
            "the node has no arm state and will hold[/yellow]"
        )
    binding = load_binding(resolve_config("bindings", settings.binding_name))
    domain = free_domain_id() if settings.launch else user_domain_id()
    started = time.monotonic()
    with _own_node(settings, domain), Monitor(domain) as monitor:
        clock = (
            SimulationClock(monitor, settings.rate)
            if settings.clock == "sim"
            else WallClock(monitor)
        )
        tries = TRIES if settings.verify and settings.clock == "sim" else 1
        replayer = Replayer(monitor, binding, clock, tries=tries)
        replayer.wait_for_node()
        replayed = []
        with Progress(console=console, transient=True) as progress:
            for recording in progress.track(recordings, description="replaying"):
                replayed.append(replayer.replay(recording))
    agreed = _verify(settings, replayed) if settings.verify else None
    return _report(settings, replayed, agreed, started, console)


def read_recordings(settings: ReplaySettings) -> list[Recording]:
    """The source's recordings; raises the reader's own errors, naming the file."""
    if settings.source.is_dir():
        dataset = BridgeV2(settings.source, settings.split)
        if settings.episode >= len(dataset):
            raise ValueError(
                f"--episode: expected one of the {len(dataset)} episodes of {settings.split!r}, "
                f"0 to {len(dataset) - 1}, or -1 for all; got {settings.episode}"
            )
        episodes = list(dataset) if settings.episode < 0 else [dataset[settings.episode]]
        return [
            Recording(e.name, _goal(settings, e.instruction), e.images, e.stamps_ns, e.states)
            for e in episodes
        ]
    frames, fps = read_video(settings.source)
    states = (
        read_states(settings.state)
        if settings.state is not None
        else np.zeros((len(frames), 7), np.float32)
    )
    episode = episode_from_video(settings.source, _goal(settings, ""), states, min(RATE_HZ, fps))
    joints = np.array(settings.joints) if settings.joints is not None else None
    own_states = episode.states if settings.state is not None else None
    return [
        Recording(
            episode.name, episode.instruction, episode.images, episode.stamps_ns, own_states, joints
        )
    ]


def _goal(settings: ReplaySettings, recorded: str) -> str:
    """The asked instruction, else the recording's own, else one that says nothing in particular."""
    return settings.instruction or recorded.strip() or GOAL_OF_BLANK


@contextlib.contextmanager
def _own_node(settings: ReplaySettings, domain: int) -> Iterator[None]:
    """A policy node for the time of the replay, where one is asked for."""
    if not settings.launch:
        yield
        return
    settings.folder.mkdir(parents=True, exist_ok=True)
    with NodeProcesses(node_environment(domain), settings.folder) as nodes:
        nodes.start(
            "policy",
            {
                "autostart": True,
                "use_sim_time": settings.clock == "sim",
                "binding": settings.binding_name,
                "checkpoint": settings.checkpoint,
                "decision_timeout": PATIENCE_S,
            },
        )
        yield


def _verify(settings: ReplaySettings, replayed: list[Replayed]) -> int:
    policy = assemble_policy(
        PolicySettings(checkpoint=settings.checkpoint, binding=settings.binding_name)
    )
    return sum(agreement(policy, one) for one in replayed)


def _report(
    settings: ReplaySettings,
    replayed: list[Replayed],
    agreed: int | None,
    started: float,
    console: Console,
) -> bool:
    steps = sum(len(one.recording) for one in replayed)
    statuses = [status for one in replayed for status in one.statuses]
    commands = sum(one.commands for one in replayed)
    details = {
        "source": str(settings.source),
        "recordings": len(replayed),
        "binding": settings.binding_name,
        "checkpoint": settings.checkpoint or "none (untrained)",
        "clock": settings.clock,
    }
    if settings.joints is not None:
        details["fixed joints (rad; finger m)"] = ", ".join(f"{q:.5f}" for q in settings.joints)
    if agreed is not None:
        details["ticks equal to calling the policy directly"] = f"{agreed} of {steps}"
    if again := sum(one.tries > 1 for one in replayed):
        late = sum(one.was_late for one in replayed)
        told = f"{again}, {late} of them late to the last"
        details["replayed again, as a decision came too late"] = told
    rate = statuses[-1].values["control_rate_hz"] if statuses else RATE_HZ
    meta = RunMeta(
        instruction="; ".join(dict.fromkeys(one.recording.instruction for one in replayed)),
        trained=bool(statuses and statuses[-1].values["trained"]),
        seconds=steps / rate,
        control_rate_hz=rate,
        expected_ticks=steps,
        versions=versions(),
        title="canvas_robot replay",
        details=details,
    )
    records, frames, first = [], [], 0
    for one in replayed:
        for status in one.statuses:
            step = one.step_of(status)
            records.append(dataclasses.replace(status.record(started), tick=first + step))
            frames.append((status.received_s - started, one.recording.images[step]))
        first += len(one.recording)
    write_report(settings.folder, records, frames, BRIDGE_TABLE_CAMERA, meta)
    for line in (
        f"{commands} commands for {steps} recorded steps",
        *(f"{k}: {v}" for k, v in details.items()),
    ):
        console.print(line)
    for status in statuses:
        if not status.active:
            console.print(f"[yellow]held: {status.values['reason']}: {status.message}[/yellow]")
            break
    console.print(f"report: {settings.folder / 'report.html'}")
    return commands == steps and (agreed is None or agreed == steps)
