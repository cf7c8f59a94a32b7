"""report.html of an evaluation: the figures of report.json for people, and its videos."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from canvas_robot.evaluation.eval_folder import EvalFolder
from canvas_robot.evaluation.eval_outcome import PROTOCOLS, STAGES
from canvas_robot.evaluation.eval_plots import intervals_picture, steps_picture
from canvas_robot.evaluation.eval_report import envs_of, share, verdicts
from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_settings import said_episodes
from canvas_robot.evaluation.page import (
    cards,
    facts,
    note,
    page,
    picture,
    said,
    side_by_side,
    table,
)

LARGEST_EMBEDDED = 12_000_000  # bytes of video in the page; larger ones stay beside it


def write_eval_report(
    run: EvalFolder,
    report: Mapping[str, Any],
    rows: Sequence[EpisodeRow],
    videos: Mapping[str, str],
) -> None:
    """Writes report.json and report.html. videos: file names by environment, in the folder."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    run.write("report.json", f"{text}\n".encode())
    run.write("report.html", _page(run.path, report, rows, videos).encode())


def _page(
    folder: Path,
    report: Mapping[str, Any],
    rows: Sequence[EpisodeRow],
    videos: Mapping[str, str],
) -> str:
    envs = envs_of(report)
    body = [cards(_figures(report, envs)), _success_table(report, envs)]
    body += [_video(folder / name, env_id) for env_id, name in videos.items()]
    pictures = [
        picture(
            intervals_picture({env_id: of["success"] for env_id, of in envs.items()}),
            "Success and its intervals",
            "; ".join(f"{name}: {text}" for name, text in PROTOCOLS.items()) + ".",
        )
    ]
    soon = {env_id: _first_successes(rows, env_id) for env_id in envs}
    if any(values for values, _ in soon.values()):
        pictures.append(
            picture(steps_picture(soon), "Steps to success", "Of episodes that succeeded at all.")
        )
    body += [
        *pictures,
        _failure_table(envs),
        _stage_table(envs),
        _episode_table(rows),
        side_by_side(_settings_tables(report, envs)),
    ]
    heading = f"{report['policy']} in {', '.join(envs)}"
    return page("Evaluation", heading, [note(*line) for line in verdicts(report)], body)


def _figures(
    report: Mapping[str, Any], envs: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    if len(envs) > 1:
        figures = [
            (f"Success ({name})", "–" if rate is None else f"{rate:.1%}", "mean of environments")
            for name, rate in report["mean"].items()
        ]
    else:
        (of,) = envs.values()
        figures = [
            (
                f"Success ({name})",
                f"{found['rate']:.1%}",
                f"{found['k']} of {found['n']}; 95% interval "
                f"{100 * found['low']:.1f} to {100 * found['high']:.1f}",
            )
            for name, found in of["success"].items()
            if found is not None
        ]
        if of["pairs"] is not None:
            both = of["pairs"]
            remark = f"{both['k']} of {both['n']} scenes; {share(both)}"
            figures.append(("Both goals of a scene", f"{both['rate']:.1%}", remark))
    count = sum(len(of["episodes"]) for of in envs.values())
    minutes = sum(of["seconds"] for of in envs.values()) / 60
    figures.append(("Episodes", f"{count:,}", f"{minutes:.1f} minutes of running them"))
    return figures


def _success_table(report: Mapping[str, Any], envs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            env_id,
            str(len(of["episodes"])),
            *(share(of["success"][name]) for name in PROTOCOLS),
            said(of["steps_to_success"]["p50"]),
            said(of["action_change"]["mean"]),
            said(of["decision_ms"]["p50"]),
            said(of["decision_ms"]["p95"]),
        )
        for env_id, of in envs.items()
    ]
    if len(envs) > 1:
        means = report["mean"].values()
        rows.append(("mean", "", *("–" if m is None else f"{m:.1%}" for m in means), *[""] * 4))
    head = (
        "Environment",
        "episodes",
        *PROTOCOLS,
        "steps to success, median",
        "action change",
        "decision ms, median",
        "95%",
    )
    return table(head, rows, numbers=True)


def _failure_table(envs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (failure, env_id, f"{count} of {len(of['episodes'])}")
        for env_id, of in envs.items()
        for failure, count in of["failures"].items()
    ]
    return table(("What failed", "environment", "episodes"), rows)


def _stage_table(envs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (STAGES[stage], env_id, share(found))
        for env_id, of in envs.items()
        for stage, found in of["stages"].items()
    ]
    return table(("On the way", "environment", "episodes in which it did"), rows)


def _episode_table(rows: Sequence[EpisodeRow]) -> str:
    inside = table(
        (
            "Episode",
            "environment",
            "told",
            *PROTOCOLS,
            "steps",
            "first success",
            "action change",
            "what failed",
        ),
        [
            (
                f"{row.number}{'b' * row.variant}",
                row.env,
                row.told or "–",
                *(said(getattr(row, f"success_{name}")) for name in PROTOCOLS),
                str(row.steps),
                said(row.steps_to_success),
                said(row.action_change),
                row.failure or "–",
            )
            for row in rows
        ],
    )
    return f"<details><summary>All {len(rows):,} episodes</summary>{inside}</details>"


def _settings_tables(report: Mapping[str, Any], envs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    settings = {**report["settings"], "episodes": said_episodes(report["settings"]["episodes"])}
    checkpoint = report["checkpoint"]
    return [
        facts("Settings", settings),
        facts("Protocol", {env_id: of["protocol"] for env_id, of in envs.items()}),
        *(facts("Environment", of["env_spec"]) for of in envs.values()),
        *([facts("Checkpoint", checkpoint["config"])] if checkpoint else []),
        *(facts(f"Start {n}", start) for n, start in enumerate(report["started"], start=1)),
        facts("Sha256", {"settings and files": report["settings_sha256"]}),
    ]


def _first_successes(rows: Sequence[EpisodeRow], env_id: str) -> tuple[list[int], int]:
    own = [row for row in rows if row.env == env_id]
    found = [row.steps_to_success for row in own if row.steps_to_success is not None]
    return found, max(row.steps for row in own)


def _video(path: Path, env_id: str) -> str:
    """The video, in the page where it is small enough, else beside it."""
    source = escape(path.name)
    if path.stat().st_size <= LARGEST_EMBEDDED:
        source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    return (
        '<figure class="panel"><video style="display:block;width:100%" controls muted loop '
        f'playsinline src="{source}"></video><figcaption>{escape(env_id)}: as many failures as '
        f"successes where there are; also in {escape(path.name)}.</figcaption></figure>"
    )
