"""What an evaluation comes to, as plain values: report.json; eval_page.py shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from canvas_robot.evaluation.eval_env import OWN, described
from canvas_robot.evaluation.eval_folder import EvalRecord
from canvas_robot.evaluation.eval_outcome import PROTOCOLS
from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_settings import EvalSettings
from canvas_robot.evaluation.eval_statistics import pairs, summarise

FEW = 75  # episodes; with fewer an interval is wider than 20 points
TRAINED_ON = range(24, 10_000)  # ids of this package's demonstrations; below lie published poses


def report_of(
    record: EvalRecord, rows: Sequence[EpisodeRow], checkpoint: Mapping[str, Any]
) -> dict[str, Any]:
    """What report.json holds.

    Of one environment its figures are at the top; of several they are by id under `envs`, with
    their mean, which weighs each environment alike, under `mean`.

    Args:
        rows: all episodes, in order.
        checkpoint: its config.json; empty for a baseline.
    """
    settings = record.settings
    common = {
        "format": 1,
        "policy": settings.policy,
        "trained": checkpoint.get("trained"),
        "checkpoint": _checkpoint(record, checkpoint) if checkpoint else None,
        "settings": _plain(settings),
        "settings_sha256": record.sha256,
        "started": record.started,
        "versions": record.started[-1]["versions"],
    }
    envs = {
        env_id: _env_report(settings, env_id, [row for row in rows if row.env == env_id])
        for env_id in settings.envs
    }
    if len(envs) == 1:
        return {**next(iter(envs.values())), **common}
    return {"envs": envs, "mean": _mean(envs), **common}


def envs_of(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The figures by environment, of one or of several."""
    return dict(report["envs"]) if "envs" in report else {report["env"]: report}


def _env_report(settings: EvalSettings, env_id: str, rows: Sequence[EpisodeRow]) -> dict[str, Any]:
    env = described(env_id, settings.env_kwargs, settings.max_steps)
    return {
        "env": env_id,
        "env_kwargs": _plain(settings.env_kwargs),
        "env_spec": _plain(env),
        "protocol": _protocol(settings, env["max_episode_steps"]),
        **summarise(rows),
        "pairs": pairs(rows),
        "episodes": [_episode(row) for row in rows],
    }


def _plain(value: Any) -> Any:
    """As JSON reads it back; what JSON has no form for in words."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))


def _checkpoint(record: EvalRecord, card: Mapping[str, Any]) -> dict[str, Any]:
    """sha256 of all its files together, of each, and what its config.json says."""
    lines = "".join(f"{digest} {name}\n" for name, digest in sorted(record.files.items()))
    together = hashlib.sha256(lines.encode()).hexdigest()
    return {"sha256": together, "files": record.files, "config": dict(card)}


def _episode(row: EpisodeRow) -> dict[str, Any]:
    plain = msgspec.to_builtins(row)
    times = plain.pop("decision_ms")
    return {**plain, "decision_ms_p50": float(np.median(times))}


def _mean(envs: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """By protocol, over the environments that define it."""
    found = {
        name: [of["success"][name]["rate"] for of in envs.values() if of["success"][name]]
        for name in PROTOCOLS
    }
    return {name: float(np.mean(rates)) if rates else None for name, rates in found.items()}


def _protocol(settings: EvalSettings, limit: int | None) -> str:
    """What was done, in words that can stand beside a published figure."""
    ended = f"or {limit} steps have passed" if limit else "itself"
    lines = [
        f"Each episode runs until the environment ends it {ended}; success does not end it unless "
        "the environment says so.",
        *(f"Success '{name}': {text}." for name, text in PROTOCOLS.items()),
        f"{settings.steps_per_chunk} action(s) of a chunk are executed before the next decision.",
    ]
    if settings.instruction:
        lines.append(f"Every episode is told {settings.instruction!r}.")
    if settings.shuffle_instructions:
        lines.append("Control: the policy is told another episode's instruction that differs.")
    if settings.black_image:
        lines.append("Control: the policy sees black pictures.")
    if settings.compare_instructions:
        lines.append("Each scene is run twice, with its own goal and with another one.")
    return " ".join(lines)


def verdicts(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What a reader must know first: (kind, head, text) each, kind as of page.note."""
    settings, lines = report["settings"], []
    if report["trained"] is False:
        text = "These weights were never trained; the figures are those of random ones."
        lines.append(("bad", "trained: false.", text))
    for key, text in (
        ("shuffle_instructions", "The policy was told other episodes' instructions."),
        ("black_image", "The policy saw black pictures."),
    ):
        if settings[key]:
            lines.append(("warn", "A control.", text))
    numbers, own = settings["episodes"], any(env.startswith(OWN) for env in settings["envs"])
    seen = [number for number in numbers if number in TRAINED_ON]
    if own and report["checkpoint"] and seen:
        text = (
            f"{len(seen)} of {len(numbers)} ids are among those that demonstrations are made of "
            f"({TRAINED_ON.start} to {TRAINED_ON.stop - 1}); unseen ones begin at 90000."
        )
        lines.append(("warn", "Perhaps trained on these episodes.", text))
    if len(numbers) < FEW:
        text = f"{len(numbers)}, so the intervals are wide; see how they overlap before ranking."
        lines.append(("warn", "Few episodes:", text))
    return lines


def share(of: Mapping[str, Any] | None) -> str:
    """A share with its interval, in words."""
    if of is None:
        return "–"
    return f"{of['rate']:.1%} ({100 * of['low']:.1f} to {100 * of['high']:.1f})"
