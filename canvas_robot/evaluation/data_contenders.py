"""Loaders that deliver windows, each in a process of its own, measured from outside.

A `Contender` starts one, lets it run for some seconds at a time, holds it still in between, and
reads what its processes took. Which loaders are compared is data_bench.py's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import psutil

from canvas_robot.data.helper_process import HelperProcess
from canvas_robot.data.latent_files import LatentKey
from canvas_robot.data.latents import LatentCache
from canvas_robot.data.tf_windows import (
    OCTO_BUFFER,
    OCTO_FRAMES,
    RULES,
    Order,
    WindowShape,
    octo_batches,
    tfds_windows,
)
from canvas_robot.resources import resolve_config, schema_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, load_binding

if TYPE_CHECKING:
    from canvas_robot.data.batches import WindowLoader

SAMPLE_S = 0.2  # between two looks at a process's memory
_SEED = 0


@dataclass(frozen=True)
class Setting:
    """What all contenders of a run share.

    folder: version folder of the data.
    part: of data of which there are latents, in the folder `latents`; latent_keys: by region, what
        they are.
    cores: how many a contender may use. workers: processes of our loader; 0: it reads in its own.
    """

    folder: Path
    schema: str
    binding: str
    batch_size: int
    cores: int
    workers: int
    part: Path | None = None
    latents: Path | None = None
    latent_keys: dict[str, LatentKey] = field(default_factory=dict)


class Delivered(NamedTuple):
    """Windows that were handed out, and how long that took, in seconds."""

    windows: int
    seconds: float


class Round(NamedTuple):
    """One turn: what was delivered, processor time in seconds and memory in bytes.

    anonymous, shared: medians over the turn, of all processes together; the second is memory that
    processes share, counted in each. peak: the most anonymous memory at any time.
    """

    windows: int
    seconds: float
    cpu_seconds: float
    anonymous: int
    shared: int
    peak: int


class Contender:
    """A loader in a process of its own, pinned to the first cores that this process may use.

    A context: leaving it ends the process.

    make: called there once with the setting; gives an endless iterator over the numbers of windows
        that are handed out at a time. It is importable.
    """

    def __init__(
        self, make: Callable[..., Iterator[int]], setting: Setting, *arguments: object
    ) -> None:
        self._helper = HelperProcess()
        pid = self._helper.call(_start, make, setting, arguments)
        self._process = psutil.Process(pid)

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.resume()
        self._helper.close()

    def run(self, seconds: float) -> Round:
        """Goes on for some seconds, and takes what it delivers. It must not be held still."""
        return self._measured(_run, seconds)

    def run_windows(self, windows: int) -> Round:
        """Goes on for at least so many windows."""
        return self._measured(_run_windows, windows)

    def hold(self) -> None:
        """Stops all its processes where they are, and returns when they have."""
        held = self._processes()
        for process in held:
            process.suspend()
        still = psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE
        while any(process.status() not in still for process in held):
            time.sleep(0.001)

    def resume(self) -> None:
        """Lets them go on."""
        for process in self._processes():
            process.resume()

    def _measured(self, function: Callable[..., Delivered], amount: float) -> Round:
        before = self._cpu_seconds()
        with _Memory(self._processes) as memory:
            delivered = self._helper.call(function, amount)
        return Round(
            *delivered,
            cpu_seconds=self._cpu_seconds() - before,
            anonymous=round(median(memory.anonymous)),
            shared=round(median(memory.shared)),
            peak=max(memory.anonymous),
        )

    def _cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._processes()]
        return sum(each.user + each.system for each in times)

    def _processes(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


class _Memory:
    """Looks at the memory of some processes again and again. A context."""

    def __init__(self, processes: Callable[[], list[psutil.Process]]) -> None:
        self._of, self._done = processes, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.anonymous: list[int] = []
        self.shared: list[int] = []

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            rows = [_resident(process.pid) for process in self._of()]
            self.anonymous.append(sum(anonymous for anonymous, _ in rows))
            self.shared.append(sum(shared for _, shared in rows))
            if self._done.wait(SAMPLE_S):
                return


def _resident(pid: int) -> tuple[int, int]:
    """Bytes of a process's anonymous and shared memory; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    stated = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    kilobytes = [int(stated.get(key, "0 kB").split()[0]) for key in ("RssAnon", "RssShmem")]
    return kilobytes[0] * 1024, kilobytes[1] * 1024


# ---------------------------------------------------------------- in the contender's process

_delivering: Iterator[int] = iter(())


def _start(make: Callable[..., Iterator[int]], setting: Setting, arguments: tuple) -> int:
    """Makes a contender and takes its first windows; returns this process's number."""
    global _delivering
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.cores])
    windows = make(setting, *arguments)
    _delivering = chain([next(windows)], windows)
    return os.getpid()


def _run(seconds: float) -> Delivered:
    started, windows = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        windows += next(_delivering)
    return Delivered(windows, time.perf_counter() - started)


def _run_windows(count: int) -> Delivered:
    started, windows = time.perf_counter(), 0
    while windows < count:
        windows += next(_delivering)
    return Delivered(windows, time.perf_counter() - started)


def by_tfds(setting: Setting, whole_episodes: bool) -> Iterator[int]:
    """`as_dataset`, iterated."""
    shape = window_shape(setting)
    for _ in tfds_windows(setting.folder, shape, setting.cores, whole_episodes=whole_episodes):
        yield 1


def by_octo(setting: Setting, order: Order, frames: int) -> Iterator[int]:
    """A tf.data pipeline of Octo's design; its buffer is to `frames` as Octo's is to Bridge V2."""
    buffer = max(setting.batch_size, OCTO_BUFFER * frames // OCTO_FRAMES)
    for batch in octo_batches(
        setting.folder,
        window_shape(setting),
        setting.batch_size,
        buffer,
        setting.cores,
        order=order,
        seed=_SEED,
    ):
        yield len(batch["state"])


def by_us(setting: Setting, from_latents: bool) -> Iterator[int]:
    """WindowLoader as `canvas-robot train` uses it, from pictures or from latents."""
    import cv2
    import torch

    torch.set_num_threads(setting.cores)
    cv2.setNumThreads(setting.cores)
    loader = make_loader(setting, from_latents)
    while True:
        for batch in loader:
            yield len(batch)


def make_loader(setting: Setting, from_latents: bool = False) -> WindowLoader:
    """Our loader of a setting, at the start of its first epoch."""
    from canvas_robot.data.batches import WindowLoader  # torch, which others do not load
    from canvas_robot.data.bridge import BridgeV2
    from canvas_robot.data.sampling import WindowSampler
    from canvas_robot.data.transitions import chosen
    from canvas_robot.data.windows import WindowReader

    schema, binding = declarations(setting)
    dataset, latents = BridgeV2(setting.part if from_latents else setting.folder), None
    if from_latents:
        latents = {
            region: LatentCache.open(setting.latents, key)
            for region, key in setting.latent_keys.items()
        }
    reader = WindowReader(dataset, schema, binding, RULES, latents)
    kept = chosen(dataset, RULES, reader.cameras)
    sampler = WindowSampler(kept.counts, kept.episodes, setting.batch_size, seed=_SEED)
    return WindowLoader(reader, sampler, setting.workers)


def window_shape(setting: Setting) -> WindowShape:
    """What a window of the setting's schema holds; raises ValueError for what others cannot give.

    That is one camera, one state, both with period 1.
    """
    schema, binding = declarations(setting)
    layout, shown = schema.layout, {}
    for region in binding.observed_regions():
        key = binding.sources.dataset[binding.regions[region].signal]
        if layout.region_spec(region).period != 1:
            raise ValueError(f"region {region!r}: expected period 1 to compare loaders with")
        shown["state" if key == "state" else "picture"] = key, layout.region_size(region)[0]
    if len(shown) != len(binding.observed_regions()) or set(shown) != {"state", "picture"}:
        raise ValueError(
            "schema: expected one camera and one state region to compare loaders with, got "
            f"{list(binding.observed_regions())}"
        )
    (camera, pictures), (_, states) = shown["picture"], shown["state"]
    return WindowShape(camera, pictures, states, layout.region_size(binding.action_region())[0])


def declarations(setting: Setting) -> tuple[CanvasSchema, Binding]:
    """The schema and the binding of a setting."""
    schema = CanvasSchema.from_json(schema_path(setting.schema))
    return schema, load_binding(resolve_config("bindings", setting.binding))
