"""Prints the README's figures of the environment.

Run in the checkout, nothing else running: .venv/bin/python docs/measure.py
"""

from __future__ import annotations

import time

import gymnasium
import numpy as np

import canvas_robot  # noqa: F401  (registers the environment)

STEPS, PICTURES = 2000, 300


def main() -> None:
    """Control steps, each with its 256x256 observation, and pictures alone."""
    env = gymnasium.make("canvas_robot/WidowXReach-v0")
    env.reset(options={"episode_id": 0})
    stay = np.zeros(7, np.float32)
    started = time.perf_counter()
    for _ in range(STEPS):
        *_, terminated, truncated, _ = env.step(stay)
        if terminated or truncated:
            env.reset(options={"episode_id": 0})
    print(f"environment: {STEPS / (time.perf_counter() - started):.0f} control steps per second")
    for width, height in ((256, 256), (640, 480)):
        env.unwrapped.sim.render(width, height)  # the first picture sets the renderer up
        took_ms = []
        for _ in range(PICTURES):
            started = time.perf_counter()
            env.unwrapped.sim.render(width, height)
            took_ms.append((time.perf_counter() - started) * 1e3)
        p50, p95 = np.percentile(took_ms, (50, 95))
        print(f"picture {width}x{height}: {p50:.1f} ms (95%: {p95:.1f} ms)")
    env.close()


if __name__ == "__main__":
    main()
