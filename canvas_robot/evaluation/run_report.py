"""The report folder of one run: report.json, episode.mp4, latency.png, report.html.

What happened at each tick is recorded as `TickRecord`; `summarise` turns records into numbers; `write_report`
writes the folder. The drawing lives in `episode_video`, `latency_plot` and `report_page`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from canvas_robot.evaluation.camera import BRIDGE_TABLE_CAMERA, PinholeCamera
from canvas_robot.evaluation.episode_video import write_episode_video
from canvas_robot.evaluation.latency_plot import write_latency_plot
from canvas_robot.evaluation.report_page import write_report_page

__all__ = [
    "BRIDGE_TABLE_CAMERA",
    "PinholeCamera",
    "RunMeta",
    "TickRecord",
    "summarise",
    "write_report",
]

STATES = ("active", "hold")
# In the order in which they happen.
STAGES = ("transport", "wait", "assembly", "model", "publish")
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, eq=False)
class TickRecord:
    """One control tick.

    tick: number of the tick, counted by the control timer (a skipped tick leaves a gap).
    wall_s: seconds from the start of the run to the command, on the clock of the camera frames' times.
    image_stamp_ns: stamp of the newest image used, nanoseconds; 0 when no image had come yet.
    command_stamp_ns: stamp of the command, nanoseconds.
    transport_ms: from the image's stamp to its arrival.
    assembly_ms: making the observation.
    model_ms: the policy.
    publish_ms: from the policy's answer to the command being sent.
    total_ms: from the image's stamp to the command.
    position: (3,) commanded end-effector position in the base frame, metres; NaN in a hold that has no target.
    gripper: commanded opening, 0 closed to 1 open; NaN likewise.
    state: "active", or "hold" when the policy's action was not executed.
    reason: why the robot holds; empty when active.

    The five latencies are NaN where a hold has nothing to measure.
    """

    tick: int
    wall_s: float
    image_stamp_ns: int
    command_stamp_ns: int
    transport_ms: float
    assembly_ms: float
    model_ms: float
    publish_ms: float
    total_ms: float
    position: np.ndarray
    gripper: float
    state: str
    reason: str = ""

    def __post_init__(self) -> None:
        position = np.array(self.position, dtype=np.float64)
        name = f"TickRecord {self.tick}"
        if position.shape != (3,):
            raise ValueError(f"{name}: expected position (3,) in metres, got {position.shape}")
        if self.state not in STATES:
            raise ValueError(f"{name}: expected state to be one of {STATES}, got {self.state!r}")
        if self.state == "hold" and not self.reason:
            raise ValueError(f"{name}: expected a reason for the hold, got ''; say why it holds")
        latencies = [self.total_ms, *(self.stage_ms(stage) for stage in STAGES)]
        if self.state == "active" and not np.isfinite([*position, self.gripper, *latencies]).all():
            raise ValueError(
                f"{name}: expected finite position, gripper and latencies while active, got "
                f"{position.tolist()}, {self.gripper}, {latencies}; record a tick without command as hold"
            )
        object.__setattr__(self, "position", position)

    @property
    def wait_ms(self) -> float:
        """The rest of `total_ms`: how long the image waited for its tick. Never negative."""
        measured = self.transport_ms + self.assembly_ms + self.model_ms + self.publish_ms
        return max(0.0, self.total_ms - measured)

    def stage_ms(self, stage: str) -> float:
        """Latency of one of `STAGES`, milliseconds."""
        return float(getattr(self, f"{stage}_ms"))


@dataclass(frozen=True)
class RunMeta:
    """What a report says about the run as a whole.

    instruction: the goal text.
    trained: whether the policy's weights were trained for this task; False puts a warning on every page and frame.
    seconds: length of the run.
    control_rate_hz: declared control rate.
    expected_ticks: ticks the control timer should have made in `seconds`.
    versions: package name to version, shown as given.
    title: heading of the page.
    details: further facts shown as given (checkpoint, schema, robot, device): text, numbers or booleans.
    """

    instruction: str
    trained: bool
    seconds: float
    control_rate_hz: float
    expected_ticks: int
    versions: Mapping[str, str]
    title: str = "canvas_robot run"
    details: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.control_rate_hz > 0:
            raise ValueError(
                f"RunMeta.control_rate_hz: expected a positive rate, got {self.control_rate_hz}"
            )
        if not self.seconds >= 0 or self.expected_ticks < 0:
            raise ValueError(
                "RunMeta: expected seconds and expected_ticks not negative, "
                f"got {self.seconds} and {self.expected_ticks}"
            )
        try:
            json.dumps([dict(self.versions), dict(self.details)], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"RunMeta: expected text, finite numbers or booleans in versions and details: {error}"
            ) from error

    @property
    def period_ms(self) -> float:
        """Declared time between two control ticks."""
        return 1000.0 / self.control_rate_hz


def summarise(records: Sequence[TickRecord], meta: RunMeta) -> dict:
    """The run in numbers, ready for JSON; numbers that cannot be computed from these records are None.

    `missed_ticks` counts expected ticks that were not recorded, or gaps in the tick numbers if those are more.
    `slow_ticks` are active ticks whose own work (assembly, model, publish) took longer than a control period.
    `fresh_image_fraction` is the share of ticks that used an image no earlier tick had used.
    `latency_ms` has p50, p95 and p99 over active ticks of the image-stamp-to-command total and of each stage.
    """
    records = sorted(records, key=lambda record: record.tick)
    active = [record for record in records if record.state == "active"]
    holds = [record for record in records if record.state == "hold"]
    work_ms = [record.assembly_ms + record.model_ms + record.publish_ms for record in active]
    return {
        "title": meta.title,
        "instruction": meta.instruction,
        "trained": meta.trained,
        "seconds": meta.seconds,
        "control_rate_hz": meta.control_rate_hz,
        "measured_rate_hz": _measured_rate_hz(records),
        "ticks": len(records),
        "expected_ticks": meta.expected_ticks,
        "missed_ticks": _missed_ticks(records, meta.expected_ticks),
        "active_ticks": len(active),
        "hold_ticks": len(holds),
        "hold_reasons": dict(Counter(record.reason for record in holds).most_common()),
        "slow_ticks": sum(work > meta.period_ms for work in work_ms),
        "fresh_image_fraction": _fresh_image_fraction(records),
        "latency_ms": {
            "total": _percentiles([record.total_ms for record in active]),
            **{
                stage: _percentiles([record.stage_ms(stage) for record in active])
                for stage in STAGES
            },
        },
        "versions": dict(meta.versions),
        "details": dict(meta.details),
    }


def write_report(
    folder: str | Path,
    records: Sequence[TickRecord],
    frames: Sequence[tuple[float, np.ndarray]],
    camera: PinholeCamera | None,
    meta: RunMeta,
) -> dict:
    """Write the report into `folder`, made if absent; returns what report.json holds.

    frames: (time_s, (H, W, 3) uint8 RGB) camera pictures, `time_s` on the clock of `TickRecord.wall_s`.
    camera: projects commanded positions into the pictures; None leaves the path out.

    Few or no records or frames are no error: what could not be made is named under "missing" and on the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = sorted(records, key=lambda record: record.tick)
    frames = sorted(frames, key=lambda frame: frame[0])
    summary = {**summarise(records, meta), "missing": _missing(records, frames, camera)}
    video = plot = None
    if frames:
        video = folder / "episode.mp4"
        write_episode_video(video, records, frames, camera, meta)
    if summary["active_ticks"]:
        plot = folder / "latency.png"
        write_latency_plot(plot, records, summary, meta)
    write_report_page(folder / "report.html", summary, video and video.name, plot)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    return summary


def _missing(
    records: Sequence[TickRecord],
    frames: Sequence[tuple[float, np.ndarray]],
    camera: PinholeCamera | None,
) -> list[str]:
    """What the report cannot show, in sentences."""
    missing = []
    if not records:
        missing.append("no control ticks were recorded, so there are no latencies")
    elif all(record.state == "hold" for record in records):
        missing.append("every tick was a hold, so there are no latencies")
    if not frames:
        missing.append("no camera frames were recorded, so there is no video")
    if camera is None:
        missing.append("no camera model was given, so the video does not show the commanded path")
    return missing


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {f"p{p}": None for p in PERCENTILES}
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in PERCENTILES}


def _missed_ticks(records: Sequence[TickRecord], expected_ticks: int) -> int:
    numbers = {record.tick for record in records}
    gaps = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    return max(expected_ticks - len(numbers), gaps, 0)


def _measured_rate_hz(records: Sequence[TickRecord]) -> float | None:
    if len(records) < 2 or records[-1].wall_s <= records[0].wall_s:
        return None
    return round((len(records) - 1) / (records[-1].wall_s - records[0].wall_s), 3)


def _fresh_image_fraction(records: Sequence[TickRecord]) -> float | None:
    if not records:
        return None
    stamps = {record.image_stamp_ns for record in records if record.image_stamp_ns > 0}
    return round(len(stamps) / len(records), 4)
