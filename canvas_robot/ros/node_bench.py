"""What the policy node costs, from a picture's stamp to its command, beside bare processes."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from canvas_robot.ros import process_tree
from canvas_robot.ros.monitor import Monitor, Status
from canvas_robot.ros.process import PARENT_VARIABLE
from canvas_robot.ros.processes import NodeProcesses, free_domain_id, node_environment

SCHEMA, BINDING = "widowx_two_cameras_tiny.json", "widowx_two_cameras.yaml"
START_TIMEOUT_S = 120.0
SETTLED_TICKS = 10  # decisions before the measurement begins
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(RuntimeError):
    """The node did not start; the text says what it printed."""


@dataclass(frozen=True, eq=False)
class _Phase:
    """What one run of the node was seen to do, and what its peers saw meanwhile."""

    statuses: list[Status]
    motions: list[dict]
    seconds: float
    cpu_s: float
    grown_mb: float
    stop_s: float
    peers: dict[str, list[dict]]


def bench_node(
    seconds: float, say: Callable[[str], None], checkpoint: str = "", device: str = "cpu"
) -> dict:
    """Measures the node with a stand-in that decides at once, then with a model.

    Two cameras of 640x480 at 30 Hz and joint states at 100 Hz come in; decisions at 5 Hz, commands
    at 50 Hz. Milliseconds; `model` says whose, `stand_in` has the same figures without one.

    Args:
        seconds: of each of the two.
        checkpoint: of a policy of one camera; "": an untrained one of two.
        device: of the model.
    """
    figures = {}
    for kind in ("stand_in", "model"):
        say(f"the node with {'a stand-in' if kind == 'stand_in' else 'the model'}, {seconds:g} s")
        policy = (
            {"checkpoint": checkpoint} if checkpoint else {"schema": SCHEMA, "binding": BINDING}
        )
        if kind == "stand_in":
            policy = {"schema": SCHEMA, "binding": BINDING, "stand_in": "constant"}
            policy["stand_in_ms"] = 0.0
        else:
            policy["device"] = device
        figures[kind] = measure_node(policy, seconds)
    model, stand_in = figures["model"], figures["stand_in"]
    return {
        **model,
        "idle_cpu": stand_in["cpu"],
        "lost": model["lost"] + stand_in["lost"],
        "seconds": seconds,
        "model": checkpoint or f"untrained, {SCHEMA}",
        "device": device,
        "processor": platform.processor() or platform.machine(),
        "stand_in": stand_in,
    }


def measure_node(policy: dict, seconds: float) -> dict:
    """The figures of a node with these parameters, as of `bench_node`."""
    return _figures(_run(policy, seconds))


def _run(policy: dict, seconds: float) -> _Phase:
    domain = free_domain_id()
    environment = node_environment(domain)
    with (
        NodeProcesses(environment) as nodes,
        Monitor(domain) as monitor,
        _peers(environment) as ended,
    ):
        nodes.start("policy", {"autostart": True, "instruction": "touch the red cube", **policy})
        if (
            not monitor.wait_for(
                lambda: (
                    sum(s.active for s in monitor.statuses) >= SETTLED_TICKS
                    or nodes.died() is not None
                ),
                START_TIMEOUT_S,
            )
            or nodes.died()
        ):
            raise BenchError(f"the node did not decide; it printed:\n{nodes.log('policy')[-2000:]}")
        pid = nodes.pid("policy")
        began, motions = len(monitor.statuses), len(monitor.motions)
        running = process_tree.family(pid)
        started, cpu_s, memory_mb = time.monotonic(), _cpu_s(running), _memory_mb(running)
        while time.monotonic() - started < seconds:
            monitor.spin_once(0.05)
        cpu_s, elapsed = _cpu_s(running) - cpu_s, time.monotonic() - started
        grown_mb = _memory_mb(running) - memory_mb
        statuses, commanded = monitor.statuses[began:], monitor.motions[motions:]
        stopping = time.monotonic()
        nodes.stop("policy", signal.SIGTERM)
        stop_s = time.monotonic() - stopping
        peers = {
            name: [one for one in seen if 0.0 <= one["at_s"] - started <= elapsed]
            for name, seen in ended().items()
        }
    return _Phase(statuses, commanded, elapsed, cpu_s, grown_mb, stop_s, peers)


@contextmanager
def _peers(environment: dict[str, str]) -> Iterator[Callable[[], dict[str, list[dict]]]]:
    """Feed, probe and sleeper; calling what this gives ends them and tells what they saw."""
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "canvas_robot.ros.bench_peers", name],
            env={**environment, PARENT_VARIABLE: str(os.getpid())},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for name in ("feed", "probe", "sleeper")
    }

    def ended() -> dict[str, list[dict]]:
        told = {}
        for name in ("probe", "feed", "sleeper"):
            started[name].terminate()
            told[name] = json.loads(started[name].communicate(timeout=30)[0])
        return told

    try:
        yield ended
    finally:
        for process in started.values():
            process.kill()
            process.wait()
            process.stdout.close()


def _figures(phase: _Phase) -> dict:
    active = [status.values for status in phase.statuses if status.active]
    overhead = [
        v["poll_ms"] + v["assembly_ms"] + v["follow_ms"] + v["publish_ms"]
        + v["model_ms"] - v["codec_ms"] - v["forward_ms"]
        for v in active
    ]  # fmt: skip
    transport = [
        (arrival - v[f"stamp_ns.{region}"]) / 1e6
        for v in active
        for region, arrival in _arrivals(v)
    ]
    latency = [
        (v["command_stamp_ns"] - v["image_stamp_ns"]) / 1e6 + v["publish_ms"] for v in active
    ]
    late = [motion["late_ms"] for motion in phase.motions if motion["late_ms"] is not None]
    holds = [status for status in phase.statuses if not status.active]
    probe = phase.peers["probe"]
    ages = [one["age_ms"] for one in probe]
    bare_late = [one["late_ms"] for one in phase.peers["sleeper"]]

    def median(name: str) -> float:
        return float(np.median([v.get(name, 0.0) for v in active]))

    return {
        "overhead_p50_ms": _share(overhead, 50),
        "overhead_p99_ms": _share(overhead, 99),
        "poll_ms": median("poll_ms"),
        "assembly_ms": median("assembly_ms"),
        "exchange_ms": float(
            np.median([v["model_ms"] - v["codec_ms"] - v["forward_ms"] for v in active])
        ),
        "follow_ms": median("follow_ms"),
        "publish_ms": median("publish_ms"),
        "squash_ms": median("squash_ms"),
        "squash_ahead_ms": median("squash_ahead_ms"),
        "codec_ms": median("codec_ms"),
        "forward_ms": median("forward_ms"),
        "image_to_command_p50_ms": _share(latency, 50),
        "image_to_command_p99_ms": _share(latency, 99),
        "loopback_p50_ms": _share(transport, 50),
        "loopback_p99_ms": _share(transport, 99),
        "bare_p50_ms": _share(ages, 50),
        "bare_p99_ms": _share(ages, 99),
        "command_late_p50_ms": _share(late, 50),
        "command_late_p99_ms": _share(late, 99),
        "bare_late_p99_ms": _share(bare_late, 99),
        "cpu": phase.cpu_s / phase.seconds,
        "lost": sum(one["lost"] for one in probe),
        "pictures": len(probe),
        "decisions": len(active),
        "holds": len(holds),
        "missed_ticks": phase.statuses[-1].values["missed_ticks"]
        - phase.statuses[0].values["missed_ticks"],
        "unaccounted_ticks": unaccounted(phase.statuses),
        "commands": len(phase.motions),
        "memory_growth_mb": phase.grown_mb,
        "stop_s": phase.stop_s,
    }


def unaccounted(statuses: list[Status]) -> int:
    """Ticks of the grid, first to last, that were neither told of nor counted as missed."""
    told = [status.values for status in statuses if status.values["index"] >= 0]
    if not told:
        return 0
    first, last = told[0], told[-1]
    missed = last["missed_ticks"] - first["missed_ticks"]
    grid = last["index"] - first["index"] + 1
    return grid - len({values["index"] for values in told}) - missed


def _arrivals(values: dict) -> list[tuple[str, int]]:
    prefix = "arrival_ns."
    regions = [key.removeprefix(prefix) for key in values if key.startswith(prefix)]
    return [(r, values[prefix + r]) for r in regions if r in ("visual", "wrist")]


def _share(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


def _cpu_s(family: set[int]) -> float:
    """Processor time of processes so far."""
    total = 0.0
    for pid in family:
        fields = process_tree.stat(pid)
        total += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0
    return total


def _memory_mb(family: set[int]) -> float:
    """What processes hold, what they share counted for each."""
    pages = 0
    for pid in family:
        fields = process_tree.stat(pid)
        pages += int(fields[21]) if fields else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
