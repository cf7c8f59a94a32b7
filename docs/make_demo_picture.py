"""Draws docs/img/demo_policy.png: the shipped policy in three episodes of its two tasks.

Run in the checkout: MUJOCO_GL=egl .venv/bin/python docs/make_demo_picture.py [CHECKPOINT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium
import numpy as np
from matplotlib.figure import Figure

from canvas_robot.evaluation.actors import PolicyActor
from canvas_robot.evaluation.page import INK, QUIET
from canvas_robot.policy.loading import load_policy
from canvas_robot.policy.protocol import Policy
from canvas_robot.resources import DEMO
from canvas_robot.sim.canvas_wrapper import CanvasWrapper
from canvas_robot.sim.registration import ENV_IDS, register

IMAGES = Path(__file__).resolve().parent / "img"
EPISODE_ID = 90_000
# Task, and the goal it is told in place of the episode's own.
ROWS = (("cube_on_plate", None), ("reach", "red"), ("reach", "blue"))
FRAMES = 6
DPI, WIDTH, ROW = 100, 12.0, 1.85


def run(policy: Policy, task: str, target: str | None) -> tuple[list[np.ndarray], str, str]:
    """Pictures (480, 640, 3) of each step, the goal, and how it went."""
    held = {"stop": "held"} if task != "reach" else {}
    env = gymnasium.make(ENV_IDS[task], render_mode="rgb_array", **held)
    env = CanvasWrapper(env, policy.binding, policy.schema)
    chosen = {} if target is None else {"target": target}
    _, info = env.reset(options={"episode_id": EPISODE_ID, **chosen})
    actor, pictures, ended = PolicyActor(policy), [env.render()], False
    actor.reset(env, info["instruction"])
    while not ended:
        *_, terminated, truncated, info = env.step(actor.act(env))
        pictures.append(env.render())
        ended = terminated or truncated
    env.close()
    went = "done" if info.get("success_held", info["success"]) else "not done"
    return pictures, info["instruction"], f"{went} after {(len(pictures) - 1) / 5:.1f} s"


def main() -> None:
    register()
    policy = load_policy(sys.argv[1] if len(sys.argv) > 1 else DEMO)
    figure = Figure(figsize=(WIDTH, ROW * len(ROWS)), dpi=DPI)
    figure.set_facecolor("white")
    for row, (task, target) in enumerate(ROWS):
        pictures, instruction, went = run(policy, task, target)
        top = 1 - row / len(ROWS)
        figure.text(0.004, top - 0.03, f"“{instruction}”", color=INK, size=11, va="top")
        figure.text(0.996, top - 0.03, went, color=QUIET, size=10, va="top", ha="right")
        shown = np.linspace(0, len(pictures) - 1, FRAMES).round().astype(int)
        for column, step in enumerate(shown):
            width = 1 / FRAMES
            place = (
                column * width + 0.003,
                top - 0.98 / len(ROWS),
                width - 0.006,
                0.75 / len(ROWS),
            )
            axes = figure.add_axes(place)
            axes.imshow(pictures[step], aspect="auto")
            axes.set_axis_off()
    figure.savefig(IMAGES / "demo_policy.png")


if __name__ == "__main__":
    main()
