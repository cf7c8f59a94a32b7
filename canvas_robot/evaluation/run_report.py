"""The report folder of one run: report.json, episode.mp4, latency.png, report.html.

`summarise` turns records into numbers, `write_report` writes the folder. The records are declared
in `records`; the drawing lives in `episode_video`, `latency_plot` and `report_page`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from canvas_robot.evaluation.camera import BRIDGE_TABLE_CAMERA, PinholeCamera
from canvas_robot.evaluation.episode_video import write_episode_video
from canvas_robot.evaluation.latency_plot import write_latency_plot
from canvas_robot.evaluation.records import STAGES, RunMeta, TickRecord
from canvas_robot.evaluation.report_page import write_report_page

__all__ = [
    "BRIDGE_TABLE_CAMERA",
    "PinholeCamera",
    "RunMeta",
    "TickRecord",
    "summarise",
    "write_report",
]

PERCENTILES = (50, 95, 99)
# Frames and ticks that start further apart than this were not stamped by the same clock.
_CLOCKS_APART_S = 3600.0


def summarise(records: Sequence[TickRecord], meta: RunMeta) -> dict:
    """The run in numbers, ready for JSON; None for what these records cannot tell.

    ticks: recorded ones; active_ticks and hold_ticks add up to it.
    missed_ticks: expected ticks not recorded, or gaps in the tick numbers if those are more.
    slow_ticks: active ticks whose work (assembly, model, publish) took over a control period.
    fresh_image_fraction: share of ticks that used an image no earlier tick had used.
    latency_ms: p50, p95 and p99 over active ticks, of the total from image stamp to command and
        of each stage.
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

    frames: camera pictures (time_s, (H, W, 3) uint8 RGB), on the clock of `TickRecord.wall_s`.
    camera: projects commanded positions into the pictures; None leaves the path out.

    Few or no records or frames are no error: what could not be made is named under "missing" in
    report.json and on the page. Raises ValueError for a frame that is not an RGB picture, or
    frames on another clock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = sorted(records, key=lambda record: record.tick)
    frames = sorted(frames, key=lambda frame: frame[0])
    _check_pictures(frames, records)
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


def _check_pictures(
    frames: Sequence[tuple[float, np.ndarray]], records: Sequence[TickRecord]
) -> None:
    for time_s, image in frames:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"frame at {time_s:.3f} s: expected (H, W, 3) uint8 RGB, "
                f"got {image.shape} {image.dtype}"
            )
    if frames and records and abs(frames[0][0] - records[0].wall_s) > _CLOCKS_APART_S:
        raise ValueError(
            f"frames: expected times on the ticks' clock, got {frames[0][0]:.0f} s for the first "
            f"frame and {records[0].wall_s:.0f} s for the first tick; give both since the start"
        )


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
