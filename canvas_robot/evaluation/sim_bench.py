"""Speed of the simulated tasks: control steps on one core, without a picture; and pictures alone.

A scripted expert drives the arm, so that inverse kinematics and contacts are at work. Its actions
are recorded first and then executed again for the clock, which repeats the episode exactly: the
time in which the expert decides is not counted, nor are resets.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from statistics import median
from typing import Any

import gymnasium
import numpy as np

from canvas_robot.sim.experts import expert_for
from canvas_robot.sim.registration import ENV_IDS, register
from canvas_robot.sim.scene import PHYSICS_HZ
from canvas_robot.sim.tasks import TASK_NAMES

FIRST_EPISODE, TAPES = 90_000, 5  # of the expert: as many different episodes are executed in turn
SIZES = ((256, 256), (480, 640), (96, 96))  # (height, width)
WORKING, EPISODE, NULL = "expert", "episode", "null"
# How a picture is drawn, by name: settings of the environments.
LOOKS: dict[str, dict[str, Any]] = {
    "no shadows": {},
    "shadows": {"shadows": True},
    "shadows, 4 samples": {"shadows": True, "multisamples": 4},
}
# What is to be reached, by physics steps a second and by look of a 256x256 picture.
LEAST_STEPS_PER_S = {"500 Hz": 500, "250 Hz": 900}
MOST_MS = {"no shadows": 3, "shadows": 12, "shadows, 4 samples": 12}

Show = Callable[[str], None]
Tape = Sequence[np.ndarray]


def bench_sim(
    tasks: Sequence[str] = TASK_NAMES, steps: int = 500, pictures: int = 20, show: Show = print
) -> dict:
    """All figures by name. Steps are timed on one core, pictures on all that this process may use.

    tasks: their names. steps: control steps of each timing, rounded up to whole episodes.
    pictures: of each timing, at most as many as the expert's first episode has steps.

    speed: by task, physics steps a second ("500 Hz"), and what is executed: "expert", the recorded
        expert until it has done the task; "episode", the same to the end of the episode, as an
        evaluation runs it; "null", as many actions 0. Of each, medians of episodes: steps_per_s by
        the clock and cpu_steps_per_s by this process's own time, which differ where other programs
        take the core; reset_ms.
    picture_ms: by task, look and size ("256x256", width first), medians: ms and cpu_ms, likewise.
    targets: which are met by all these tasks, by the clock. load: of the machine in the last
        minute.

    Raises ValueError for a name that is no task's.
    """
    unknown = sorted(set(tasks) - set(TASK_NAMES))
    if unknown or not tasks:
        raise ValueError(f"tasks: expected some of {list(TASK_NAMES)}, got {unknown or 'none'}")
    register()
    speed, picture_ms = {}, {}
    for task in tasks:
        show(f"{task}: control steps")
        with one_core():
            speed[task] = {f"{hz} Hz": speeds(task, steps, hz) for hz in PHYSICS_HZ}
        show(f"{task}: pictures")
        tape, _ = record(task, FIRST_EPISODE)
        picture_ms[task] = {
            name: picture_times(task, tape, pictures, look) for name, look in LOOKS.items()
        }
    return {
        "speed": speed,
        "picture_ms": picture_ms,
        "targets": targets_met(speed, picture_ms),
        "cores_of_steps": 1,
        "cores_of_pictures": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "mujoco": metadata.version("mujoco"),
        "processor": platform.processor() or platform.machine(),
    }


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this thread, and those that it starts, on one of the cores that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def _made(task: str, **settings: Any) -> Iterator[gymnasium.Env]:
    """The task's environment as `gymnasium.make` gives it, drawing nothing of its own accord."""
    env = gymnasium.make(ENV_IDS[task], obs="state", **settings)
    try:
        yield env
    finally:
        env.close()


def record(task: str, episode_id: int, **settings: Any) -> tuple[list[np.ndarray], int]:
    """The expert's actions (7,) in a whole episode, and after how many it has done the task."""
    expert, tape, ended, done = expert_for(task), [], False, 0
    with _made(task, **settings) as env:
        env.reset(options={"episode_id": episode_id})
        while not ended:
            tape.append(expert(env))
            *_, terminated, truncated, info = env.step(tape[-1])
            ended = terminated or truncated
            if not done and (ended or info.get("success_held", False)):
                done = len(tape)
    return tape, done


def speeds(task: str, steps: int, physics_hz: int) -> dict[str, dict[str, float]]:
    """`speed_of` by what is executed: see `bench_sim`."""
    recorded = [record(task, FIRST_EPISODE + k, physics_hz=physics_hz) for k in range(TAPES)]
    tapes = {
        WORKING: [tape[:done] for tape, done in recorded],
        EPISODE: [tape for tape, _ in recorded],
        NULL: [[np.zeros(7, np.float32)] * done for _, done in recorded],
    }
    with _made(task, physics_hz=physics_hz) as env:
        return {what: speed_of(env, of, steps) for what, of in tapes.items()}


def speed_of(env: gymnasium.Env, tapes: Sequence[Tape], steps: int) -> dict[str, float]:
    """Executes tapes in turn, each in its own episode, until so many steps were timed."""
    by_clock, by_cpu, reset_ms, done = [], [], [], 0
    for k, tape in itertools.cycle(enumerate(tapes)):
        began = time.perf_counter()
        env.reset(options={"episode_id": FIRST_EPISODE + k})
        reset_ms.append((time.perf_counter() - began) * 1e3)
        began, began_cpu = time.perf_counter(), time.process_time()
        for action in tape:
            env.step(action)
        by_clock.append(len(tape) / (time.perf_counter() - began))
        by_cpu.append(len(tape) / (time.process_time() - began_cpu))
        done += len(tape)
        if done >= steps:
            return {
                "steps_per_s": median(by_clock),
                "cpu_steps_per_s": median(by_cpu),
                "reset_ms": median(reset_ms),
            }


def picture_times(
    task: str, tape: Tape, pictures: int, look: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Milliseconds of a picture of each size, along a tape; setting up is not counted."""
    ms: dict[str, list[float]] = {f"{width}x{height}": [] for height, width in SIZES}
    cpu_ms: dict[str, list[float]] = {size: [] for size in ms}
    with _made(task, **look) as env:
        sim = env.unwrapped.sim
        env.reset(options={"episode_id": FIRST_EPISODE})
        for height, width in SIZES:
            sim.render(width, height)
        for action in itertools.islice(tape, pictures):
            env.step(action)
            for size, (height, width) in zip(ms, SIZES, strict=True):
                began, began_cpu = time.perf_counter(), time.process_time()
                sim.render(width, height)
                ms[size].append((time.perf_counter() - began) * 1e3)
                cpu_ms[size].append((time.process_time() - began_cpu) * 1e3)
    return {size: {"ms": median(ms[size]), "cpu_ms": median(cpu_ms[size])} for size in ms}


def targets_met(speed: Mapping[str, Mapping], picture_ms: Mapping[str, Mapping]) -> dict[str, bool]:
    """Which targets every task meets."""
    met = {}
    for rate, least in LEAST_STEPS_PER_S.items():
        for what in (WORKING, EPISODE):
            reached = [of[rate][what]["steps_per_s"] for of in speed.values()]
            met[f"{least} control steps/s at {rate}, {what}"] = min(reached) >= least
    for look, most in MOST_MS.items():
        took = [of[look]["256x256"]["ms"] for of in picture_ms.values()]
        met[f"a 256x256 picture in {most} ms, {look}"] = max(took) <= most
    return met
