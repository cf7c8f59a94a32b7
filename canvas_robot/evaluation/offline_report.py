"""The report folder of an offline evaluation: report.json, three pictures, report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from canvas_robot.evaluation.offline import POLICY, PREVIOUS, ZERO, Evaluation, Recording
from canvas_robot.evaluation.offline_errors import (
    CONFIDENCE,
    RESAMPLES,
    Measures,
    Sums,
    estimate,
    measured,
)
from canvas_robot.evaluation.offline_plots import write_curves, write_errors, write_horizon
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

WORST = 10
ACTIONS = {
    "recorded": "as recorded: the commands that were given",
    "composed": "made from states by composing rotations: the motion that the arm achieved",
    "naive": "differences of the stored states, angles included: the motion that was achieved",
}


def summarise(evaluation: Evaluation, components: Mapping[str, str], scale: np.ndarray) -> dict:
    """The evaluation in numbers, ready for JSON; None for what cannot be told.

    Every measure is {"value", "low", "high"}: of all windows, and where CONFIDENCE of RESAMPLES
    draws of the episodes lie. One episode alone has no interval.

    Args:
        components: units of the action's components by name.
        scale: (7,), units for 1 of the normalised action.
    """
    of = measured(evaluation.sums, scale)
    return {
        "horizon": evaluation.sums[POLICY].counts.shape[1],
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "components": dict(components),
        "predictors": {
            name: _measures(each, evaluation.sums[name], list(components), scale)
            for name, each in of.items()
        },
        "better_than": {
            name: {
                "motion": estimate(of[name].motion() - of[POLICY].motion()),
                "gripper": estimate(of[POLICY].gripper() - of[name].gripper()),
            }
            for name in (PREVIOUS, ZERO)
        },
        "worst_episodes": _worst(evaluation, scale),
        "seconds": evaluation.seconds,
    }


def _measures(of: Measures, sums: Sums, components: Sequence[str], scale: np.ndarray) -> dict:
    absolute, square = of.mean_absolute(), of.root_mean_square()
    grips = sums.grips.sum((0, 1, 2)).astype(int)
    names = ("closed", "open")
    return {
        "motion": estimate(of.motion()),
        "components": {
            name: {
                "mean_absolute": estimate(absolute[:, k]),
                "root_mean_square": estimate(square[:, k]),
                "normalised_mean_absolute": estimate(absolute[:, k] / scale[k]),
                "normalised_root_mean_square": estimate(square[:, k] / scale[k]),
            }
            for k, name in enumerate(components)
        },
        "gripper": {
            "accuracy": estimate(of.gripper()),
            "balanced": estimate(of.gripper_balanced()),
            "at_changes": estimate(of.gripper_changes()),
            "counts": {
                f"{wanted} taken for {got}" if i != j else f"{wanted}, right": int(grips[i, j])
                for i, wanted in enumerate(names)
                for j, got in enumerate(names)
            },
            "changes": int(sums.grips.sum((0, 1))[1].sum()),
        },
        "by_step": {
            "motion": [estimate(column) for column in of.motion_by_step().T],
            "gripper": [estimate(column) for column in of.gripper_by_step().T],
            "mean_absolute": (sums.absolute.sum(0) / sums.counts.sum(0)[:, None]).tolist(),
        },
    }


def motion_errors(evaluation: Evaluation, scale: np.ndarray) -> np.ndarray:
    """(E,): the policy's `Measures.motion` of each episode by itself."""
    return Measures(evaluation.sums[POLICY], scale).motion()


def _worst(evaluation: Evaluation, scale: np.ndarray) -> list[dict]:
    motion = motion_errors(evaluation, scale)
    gripper = Measures(evaluation.sums[POLICY], scale).gripper()
    return [
        {
            "episode": evaluation.episodes[place].name,
            "number": evaluation.episodes[place].number,
            "instruction": evaluation.episodes[place].instruction,
            "windows": evaluation.episodes[place].windows,
            "motion": float(motion[place]),
            "gripper": float(gripper[place]),
        }
        for place in np.argsort(-motion, kind="stable")[:WORST]
    ]


def write_offline_report(
    folder: Path, report: Mapping, recordings: Sequence[tuple[str, Recording]], scale: np.ndarray
) -> None:
    """Writes the folder, which there is.

    Args:
        report: what `summarise` gives, and what was judged, as offline_run.py adds it.
        recordings: episodes to draw, each with what is said of it.
    """
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    write_errors(folder / "errors.png", report)
    write_horizon(folder / "horizon.png", report)
    write_curves(folder / "episodes.png", recordings, report, scale)
    (folder / "report.html").write_text(_page(folder, report), encoding="utf-8")


def verdicts(report: Mapping) -> list[tuple[str, str, str]]:
    """What a reader must know first: (kind, head, text) each, kind as of page.note."""
    lines = []
    if not report["trained"]:
        text = "These weights were never trained; the figures are those of random ones."
        lines.append(("bad", "trained: false.", text))
    seen = report["trained_on"]
    kinds = {"no": "good", "yes": "bad", "unknown": "warn"}
    heads = {
        "no": "Held out.",
        "yes": "Trained on these episodes.",
        "unknown": "Not known whether these episodes were trained on.",
    }
    if report["trained"]:
        lines.append((kinds[seen["answer"]], heads[seen["answer"]], f"{_sentence(seen['text'])}"))
    lines += [("warn", head, text) for head, text in report["remarks"].items()]
    for name, of in report["better_than"].items():
        kind, text = _compared(of["motion"])
        lines.append((kind, f"Beside {name}:", text))
    return lines


def _compared(lower: Mapping[str, float | None]) -> tuple[str, str]:
    """What the interval says of how much lower the policy's motion error is: kind and text."""
    if lower["low"] is None:
        return "warn", "one episode does not tell."
    if lower["low"] > 0:
        return "good", f"the policy's motion error is lower by {interval(lower)}."
    if lower["high"] < 0:
        higher = {"value": -lower["value"], "low": -lower["high"], "high": -lower["low"]}
        return "bad", f"the policy's motion error is higher by {interval(higher)}."
    return "warn", f"no difference that these episodes show: lower by {interval(lower)}."


def _page(folder: Path, report: Mapping) -> str:
    of, data = report["predictors"], report["data"]
    gripper = of[POLICY]["gripper"]
    figures = [
        (
            "Motion error",
            said(of[POLICY]["motion"]["value"]),
            f"normalised, mean absolute; {_range(of[POLICY]['motion'])}",
        ),
        (
            PREVIOUS.capitalize(),
            said(of[PREVIOUS]["motion"]["value"]),
            "the last action repeated",
        ),
        (ZERO.capitalize(), said(of[ZERO]["motion"]["value"]), "no motion, gripper kept"),
        (
            "Gripper",
            share(gripper["accuracy"]),
            f"right; balanced {share(gripper['balanced'])}, "
            f"at its {gripper['changes']:,} changes {share(gripper['at_changes'])}",
        ),
        ("Episodes", f"{data['episodes']:,}", f"{data['windows']:,} windows, each once"),
        ("Actions", report["actions"], ACTIONS[report["actions"]]),
    ]
    body = [
        cards(figures),
        picture(
            (folder / "errors.png").read_bytes(),
            "Error of each component",
            "Normalised: in the units of the policy's own action, so that components compare. "
            "Thin lines: the interval.",
        ),
        picture(
            (folder / "horizon.png").read_bytes(),
            "Error by step of the chunk",
            "Bands: the interval. Steps beyond an episode's end count nothing.",
        ),
        picture(
            (folder / "episodes.png").read_bytes(),
            "Recorded and predicted curves",
            "At every tick the first action of the chunk decided then; and, every "
            f"{report['horizon']} ticks, the whole chunk. Across: ticks.",
        ),
        _component_table(report),
        _gripper_table(report),
        table(
            ("Worst episodes", "number", "instruction", "windows", "motion error", "gripper"),
            [
                (
                    worst["episode"],
                    str(worst["number"]),
                    worst["instruction"] or "(blank)",
                    str(worst["windows"]),
                    said(worst["motion"]),
                    f"{worst['gripper']:.1%}",
                )
                for worst in report["worst_episodes"]
            ],
        ),
        side_by_side(
            [
                facts("Checkpoint", report["checkpoint"]),
                facts("Data", {**data, "rules": report["rules"]}),
            ]
        ),
    ]
    heading = f"{data['dataset']}/{data['split']}: {data['episodes']:,} episodes"
    return page("Offline evaluation", heading, [note(*line) for line in verdicts(report)], body)


def _component_table(report: Mapping) -> str:
    of = report["predictors"]
    rows = []
    for name, unit in report["components"].items():
        own = of[POLICY]["components"][name]
        rows.append(
            (
                name if unit == "1" else f"{name} ({unit})",
                said(own["mean_absolute"]["value"]),
                _range(own["mean_absolute"]),
                said(own["root_mean_square"]["value"]),
                said(own["normalised_mean_absolute"]["value"]),
                said(own["normalised_root_mean_square"]["value"]),
                *(
                    said(of[baseline]["components"][name]["mean_absolute"]["value"])
                    for baseline in (PREVIOUS, ZERO)
                ),
            )
        )
    head = (
        "Component",
        "mean absolute",
        "interval",
        "root mean square",
        "normalised",
        "normalised rms",
        PREVIOUS,
        ZERO,
    )
    return table(head, rows, numbers=True)


def _gripper_table(report: Mapping) -> str:
    rows = []
    for name, of in report["predictors"].items():
        gripper = of["gripper"]
        shares = [gripper[key] for key in ("accuracy", "balanced", "at_changes")]
        counts = [f"{count:,}" for count in gripper["counts"].values()]
        rows.append((name, *(share(each) for each in shares), *counts))
    counts = list(report["predictors"][POLICY]["gripper"]["counts"])
    return table(("Gripper", "accuracy", "balanced", "at changes", *counts), rows, numbers=True)


def share(of: Mapping[str, float | None]) -> str:
    """A measure that is a share."""
    return "–" if of["value"] is None else f"{of['value']:.1%}"


def interval(of: Mapping[str, float | None]) -> str:
    """A measure with its interval."""
    return f"{said(of['value'])} ({_range(of)})"


def _range(of: Mapping[str, float | None]) -> str:
    return "no interval" if of["low"] is None else f"{of['low']:.4g} to {of['high']:.4g}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
