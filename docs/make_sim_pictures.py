"""Draws the pictures of docs/simulation.md: docs/img/tasks.png, and replay_tracking.png from data.

Run in the checkout: .venv/bin/python docs/make_sim_pictures.py [FOLDER OF BRIDGE V2]
Without a folder only the tasks are drawn.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium
import numpy as np
from matplotlib.figure import Figure

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.evaluation.page import INK, QUIET
from canvas_robot.evaluation.replay_figures import tracking_figures
from canvas_robot.evaluation.replay_plot import write_replay
from canvas_robot.evaluation.replay_tracking import numbers_of, replay_episodes
from canvas_robot.sim.experts import expert_for
from canvas_robot.sim.registration import ENV_IDS, register

IMAGES = Path(__file__).resolve().parent / "img"
EPISODE_ID = 2
COLUMNS, ROWS = 3, 2
DPI, CELL_INCHES = 100, (5.3, 2.62)


def first_and_last(task: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Pictures (480, 640, 3) at the start and when the expert has done it, and the instruction."""
    env = gymnasium.make(
        ENV_IDS[task],
        render_mode="rgb_array",
        obs="state",
        stop="held",
        shadows=True,
        multisamples=8,
    )
    expert = expert_for(task)
    _, info = env.reset(options={"episode_id": EPISODE_ID})
    first, ended = env.render(), False
    while not ended:
        *_, terminated, truncated, info = env.step(expert(env))
        ended = terminated or truncated
    last = env.render()
    env.close()
    return first, last, info["instruction"]


def draw_tasks(path: Path) -> None:
    """Each task before and after, with its words and its id."""
    figure = Figure(figsize=(COLUMNS * CELL_INCHES[0], ROWS * CELL_INCHES[1]), dpi=DPI)
    figure.set_facecolor("white")
    for cell, (task, env_id) in enumerate(ENV_IDS.items()):
        row, column = divmod(cell, COLUMNS)
        *pictures, instruction = first_and_last(task)
        left, top = column / COLUMNS, 1 - row / ROWS
        for k, picture in enumerate(pictures):
            bounds = (left + (0.01 + 0.49 * k) / COLUMNS, top - 0.975 / ROWS)
            axes = figure.add_axes((*bounds, 0.475 / COLUMNS, 0.76 / ROWS))
            axes.imshow(picture, interpolation="antialiased")
            axes.axis("off")
        x = left + 0.01 / COLUMNS
        figure.text(x, top - 0.095 / ROWS, f"“{instruction}”", fontsize=12.5, color=INK)
        figure.text(x, top - 0.185 / ROWS, env_id, fontsize=9.5, color=QUIET)
    figure.savefig(path, pil_kwargs={"optimize": True})


def draw_replay(path: Path, folder: Path) -> None:
    """What `canvas-robot replay-sim FOLDER` draws."""
    dataset = BridgeV2(folder)
    replayed = replay_episodes(dataset, numbers_of(dataset, -1, 200))
    write_replay(path, replayed, tracking_figures(dataset, replayed))


def main() -> None:
    """The tasks; the replay too where there are data."""
    register()
    draw_tasks(IMAGES / "tasks.png")
    for folder in sys.argv[1:2]:
        draw_replay(IMAGES / "replay_tracking.png", Path(folder))


if __name__ == "__main__":
    main()
