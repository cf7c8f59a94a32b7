"""Prints the README's figures of the environment and of one decision.

Run in the checkout, nothing else running: .venv/bin/python docs/measure.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import gymnasium
import numpy as np

import canvas_robot  # noqa: F401  (registers the environments)
from canvas_robot import PolicySettings, assemble_policy

STEPS, PICTURES, DECISIONS, WARM_UP = 2000, 300, 100, 10


def milliseconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def middle(values: list[float]) -> str:
    """Median and 95th percentile, the first few left out."""
    p50, p95 = np.percentile(values[WARM_UP:], (50, 95))
    return f"{p50:.1f} ms (p95 {p95:.1f} ms)"


def measure_environment() -> None:
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
        render = partial(env.unwrapped.sim.render, width, height)
        took = [milliseconds(render) for _ in range(PICTURES)]
        print(f"picture {width}x{height}: {middle(took)}")
    env.close()


def measure_policy() -> None:
    """Decisions of the untrained policy on new 640x480 images, nothing else running."""
    policy = assemble_policy(PolicySettings())
    policy.reset("touch the red cube")
    random = np.random.default_rng(0)
    state = np.array([0.3, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0], np.float32)
    took: dict[str, list[float]] = {"codec": [], "forward": []}
    for _ in range(DECISIONS):
        image = random.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        chunk = policy.act({"image": image, "state": state})
        for stage, times in took.items():
            times.append(chunk.timings_ms[stage])
    for stage, times in took.items():
        print(f"decision, {stage}: {middle(times)}")


if __name__ == "__main__":
    measure_environment()
    measure_policy()
