"""evaluate: an evaluation from settings to report; alone, or one process of several."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from canvas_robot.evaluation.eval_env import find_spec
from canvas_robot.evaluation.eval_folder import EvalFolder
from canvas_robot.evaluation.eval_page import write_eval_report
from canvas_robot.evaluation.eval_policy import checkpoint_card, files_of
from canvas_robot.evaluation.eval_report import report_of
from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_settings import EvalSettings
from canvas_robot.evaluation.eval_video import FILMED, write_videos
from canvas_robot.evaluation.eval_workers import Job, run_jobs

PACKAGES = ("canvas_robot", "gymnasium", "mujoco", "numpy", "torch")
LONGEST_WAIT = timedelta(hours=24)  # of processes for the slowest one

Told = Callable[[Sequence[EpisodeRow], int], None]
"""Told after each episode which ones are done, and of how many."""


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many that share the episodes; the first one reports.

    wait: returns once every process has called it. agree: the first process's value, in each.
    """

    index: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None
    agree: Callable[[Any], Any] = field(default=lambda value: value)

    @property
    def first(self) -> bool:
        return self.index == 0


@contextmanager
def launched() -> Iterator[Share]:
    """The share of this process: all, or what `accelerate launch` or torchrun gave it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Share()
        return

    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    # They only wait for one another, which needs no GPU.
    process = PartialState(cpu=True, timeout=LONGEST_WAIT)
    try:
        yield Share(
            process.process_index,
            process.num_processes,
            process.wait_for_everyone,
            lambda value: broadcast_object_list([value])[0],
        )
    finally:
        process.destroy_process_group()


def evaluate(
    settings: EvalSettings,
    folder: Path,
    workers: int = 1,
    video: bool = True,
    resume: bool = False,
    told: Told | None = None,
    share: Share | None = None,
) -> dict | None:
    """Runs the episodes that are missing and writes the report.

    Args:
        folder: of the run; made if there is none.
        workers: processes that run episodes, of each share.
        video: whether some of the episodes are filmed.
        resume: whether to go on with what the folder holds.
        told: see Told; of a share, its own episodes.
    Returns:
        What report.json holds; None in all processes but the first.
    Raises:
        EvalFolderError for a folder that does not fit; EvalEnvError, EvalPolicyError and the like
        for what cannot be made; EpisodeError or EvalWorkerError for an episode that could not be
        run to its end. The episodes until then stay.
    """
    share = share or Share()
    run = EvalFolder(folder)
    for env_id in settings.envs:
        find_spec(env_id)
    with run.alone() if share.first else nullcontext():
        if share.first:
            start = _start_record(share.count, workers)
            run.begin(settings, files_of(settings), start, resume)
        share.wait()
        there = run.rows()
        _run_missing(run, settings, there, workers, video, told, share)
        share.wait()
        return _finished(run, settings, video) if share.first else None


def _run_missing(
    run: EvalFolder,
    settings: EvalSettings,
    there: dict[tuple[str, int, int], EpisodeRow],
    workers: int,
    video: bool,
    told: Told | None,
    share: Share,
) -> None:
    """Runs what is not there of this process's share, which is the same whatever is there."""
    filmed = set(settings.episodes[:FILMED]) if video else set()
    own = {
        (settings.envs[start.env], start.number, start.variant): Job(start, start.number in filmed)
        for start in settings.starts[share.index :: share.count]
    }
    missing = [job for key, job in own.items() if key not in there]
    done = [row for key, row in there.items() if key in own]
    with run.appending(share.index, share.count) as append:
        for row, film in run_jobs(settings, missing, workers):
            if film is not None:
                run.save_film(row, film)
            append(row)
            done.append(row)
            if told is not None:
                told(done, len(own))


def _finished(run: EvalFolder, settings: EvalSettings, video: bool) -> dict:
    """Merges what all processes ran, and writes the report."""
    found = run.rows()
    rows = [
        found[settings.envs[start.env], start.number, start.variant] for start in settings.starts
    ]
    run.merge(rows)
    videos = write_videos(run, settings, rows) if video else {}
    report = report_of(run.record(), rows, checkpoint_card(settings.policy))
    write_eval_report(run, report, rows, videos)
    run.forget_films()
    return report


def _start_record(processes: int, workers: int) -> dict[str, Any]:
    """What settings.json keeps of a start."""
    from canvas_robot.training.run_folder import git_state  # brings torch, which is loaded once

    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "processes": processes,
        "workers": workers,
        "git": git_state(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
