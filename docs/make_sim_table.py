"""Prints the success table of docs/simulation.md from what `canvas-robot eval --json` wrote.

Run in the checkout: .venv/bin/python docs/make_sim_table.py expert.json zero.json random.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from canvas_robot.evaluation.eval_outcome import PROTOCOLS
from canvas_robot.evaluation.eval_report import envs_of

PUBLISHED = range(24)


def counts(rows: Sequence[dict]) -> list[str]:
    """Successes by protocol; a dash where the task does not have it."""
    found = ([row[f"success_{protocol}"] for row in rows] for protocol in PROTOCOLS)
    return ["–" if None in each else str(sum(each)) for each in found]


def main() -> None:
    """A row for each policy and environment."""
    heads = [f"{protocol}, of {{}}" for protocol in PROTOCOLS]
    reports = {path: json.loads(path.read_text("utf-8")) for path in map(Path, sys.argv[1:])}
    rows, sizes = [], set()
    for path, report in reports.items():
        for env_id, of in envs_of(report).items():
            first = [row for row in of["episodes"] if row["number"] in PUBLISHED]
            rest = [row for row in of["episodes"] if row["number"] not in PUBLISHED]
            sizes.add((len(first), len(rest)))
            name = env_id.removeprefix("canvas_robot/")
            rows.append([path.stem, f"`{name}`", *counts(first), *counts(rest)])
    ((first_size, rest_size),) = sizes
    columns = ["policy", "environment"]
    columns += [head.format(size) for size in (first_size, rest_size) for head in heads]
    for row in (columns, ["---"] * len(columns), *rows):
        print("|", " | ".join(row), "|")


if __name__ == "__main__":
    main()
