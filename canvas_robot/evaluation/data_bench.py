"""Timing and memory of reading training data: our loader beside TFDS and an Octo-style pipeline.

All read one synthetic copy of Bridge V2 and deliver the same windows: same cameras, same frames,
same types. Each runs in a process of its own on the same cores, in turns; while one runs, the
others are held still. What runs in these processes is data_contenders.py's.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.data.batches import Batch, WindowLoader
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.encode_dataset import encode_dataset
from canvas_robot.data.encoding import latent_keys, plan_encoding
from canvas_robot.data.latent_files import LatentKey, Recipe
from canvas_robot.data.synthetic import SyntheticCopy, link_part, write_synthetic
from canvas_robot.data.tf_windows import RULES
from canvas_robot.data.transitions import count_of
from canvas_robot.data.video import read_video
from canvas_robot.evaluation.data_contenders import (
    Contender,
    Round,
    Setting,
    by_octo,
    by_tfds,
    by_us,
    declarations,
    make_loader,
)

SCHEMA, BINDING, BACKBONE = "widowx_tiny.json", "widowx.yaml", "tiny"
RENDERED_EPISODES = 3
RESUMED_AFTER, COMPARED = 5, 20  # batches
_MIB = 2**20

# What each contender is. The first is TFDS as its own examples iterate RLDS, the second the fastest
# way through it that we know. Octo keeps pictures encoded in its buffer and resamples them to the
# size that they are to have, which they have here; "octo" decodes first, as the target lists it.
CONTENDERS = {
    "tfds": "TFDS as_dataset, its steps iterated",
    "tfds_episodes": "TFDS as_dataset, steps gathered to episodes",
    "octo": "Octo-style: decode, window, buffer",
    "octo_encoded": "Octo-style: window, buffer, decode",
    "octo_resized": "Octo-style: window, buffer, decode, resize",
    "jpeg": "ours, from JPEG",
    "latents": "ours, from the latent cache",
}

Show = Callable[[str], None]


@dataclass(frozen=True)
class DataBench:
    """What to measure.

    folder: where the synthetic copy is made, once, and kept.
    episodes: of the copy; latent_episodes: of those, about, that are encoded.
    clip: video whose frames the pictures are made from; None: frames of the simulator.
    rounds: turns of each contender, behind one that only warms it up; seconds: of a turn.
    epochs: over which memory is to stay flat.
    """

    folder: Path
    episodes: int = 2000
    latent_episodes: int = 120
    clip: Path | None = None
    rounds: int = 3
    seconds: float = 10.0
    cores: int = 1
    workers: int = 0
    batch_size: int = 32
    epochs: int = 10


@dataclass(frozen=True)
class Target:
    """What a figure is to reach, at least or at most."""

    figure: str
    limit: float
    at_least: bool = True

    def met(self, figures: Mapping[str, float]) -> bool:
        value = figures[self.figure]
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{self.figure} {'>=' if self.at_least else '<='} {self.limit:g}"


TARGETS = (
    Target("jpeg_to_tfds", 1.5),
    Target("jpeg_to_octo", 3.0),
    Target("jpeg_memory_to_octo", 0.2, at_least=False),
    Target("latents_to_tfds", 20.0),
    Target("memory_over_epochs", 1.05, at_least=False),
    Target("resumed_batches_differing", 0, at_least=False),
)


def bench_data(bench: DataBench, show: Show = print) -> dict:
    """All figures by name.

    gigabytes, episodes, steps: of the copy. index_s_per_gigabyte: of making its index, the files in
    the page cache.
    contenders: by name, see `contender_figures`. `x_to_y`: windows a second of x by those of y;
    `x_memory_to_y`: anonymous memory, likewise.
    memory_of_epochs_mib, memory_over_epochs: see `epoch_figures`; resumed_batches_differing: of
    `resumed_batches`, between a run and one that was ended and resumed.
    targets: which are met.
    """
    setting = prepare(bench, show)
    contenders = contender_figures(bench, setting, show)
    figures = {
        **index_figures(setting.folder, show),
        "contenders": contenders,
        **ratios(contenders),
        **epoch_figures(bench, setting, show),
        **resume_figures(setting, show),
    }
    return {
        **figures,
        "targets": {str(target): target.met(figures) for target in TARGETS},
        "cores": bench.cores,
        "workers": bench.workers,
        "batch_size": bench.batch_size,
        "processor": platform.processor() or platform.machine(),
    }


def prepare(bench: DataBench, show: Show) -> Setting:
    """Makes the copy and the latents of a part of it, or what is missing of them."""
    folder = synthetic_folder(bench.folder / "copy", bench.episodes, show, bench.clip, bench.cores)
    copy = SyntheticCopy(episodes=bench.episodes)
    shards = max(1, round(bench.latent_episodes * copy.shards / bench.episodes))
    part = link_part(folder, bench.folder / "part" / "bridge_dataset" / "1.0.0", shards)
    setting = Setting(
        folder=folder,
        schema=SCHEMA,
        binding=BINDING,
        batch_size=bench.batch_size,
        cores=bench.cores,
        workers=bench.workers,
        part=part,
        latents=bench.folder / "latents",
    )
    return replace(setting, latent_keys=_encode(setting, show))


def synthetic_folder(
    folder: Path, episodes: int, show: Show, clip: Path | None = None, threads: int = 1
) -> Path:
    """A synthetic copy in a folder, made if need be; its version folder."""
    frames = _frames(clip, show)
    show(f"synthetic copy of {episodes:,} episodes in {folder}")
    copy = SyntheticCopy(episodes=episodes)
    return write_synthetic(folder, copy, frames, threads, _tenths("written", show))


def index_figures(folder: Path, show: Show) -> dict:
    """What the copy holds, and what an index of it takes to make; that one is thrown away."""
    show("making an index")
    with tempfile.TemporaryDirectory() as index_dir:
        index = BridgeV2(folder, index_dir=index_dir).index
    return {
        "gigabytes": index.gigabytes,
        "episodes": len(index),
        "steps": int(index.steps.sum()),
        "index_s_per_gigabyte": index.seconds / index.gigabytes,
    }


def contender_figures(bench: DataBench, setting: Setting, show: Show) -> dict[str, dict]:
    """By contender, medians over its turns.

    steps_per_s: windows delivered a second, steps_per_s_per_core; spread: of the fastest turn to
    the slowest. cpu_ms: processor time for a window. anonymous_mib: memory of all its processes,
    peak_mib: at most; shared_mib: what they share, counted in each.
    """
    frames = _windows_of(setting)
    contenders = {
        "tfds": (by_tfds, False),
        "tfds_episodes": (by_tfds, True),
        "octo": (by_octo, "decode_first", frames),
        "octo_encoded": (by_octo, "decode_last", frames),
        "octo_resized": (by_octo, "decode_last_and_resize", frames),
        "jpeg": (by_us, False),
        "latents": (by_us, True),
    }
    figures = {}
    for name, turns in _in_turns(contenders, bench, setting, show).items():
        speeds = [turn.windows / turn.seconds for turn in turns]
        figures[name] = {
            "steps_per_s": median(speeds),
            "steps_per_s_per_core": median(speeds) / bench.cores,
            "spread": max(speeds) / min(speeds),
            "cpu_ms": median([1e3 * turn.cpu_seconds / turn.windows for turn in turns]),
            "anonymous_mib": median([turn.anonymous for turn in turns]) / _MIB,
            "peak_mib": max(turn.peak for turn in turns) / _MIB,
            "shared_mib": median([turn.shared for turn in turns]) / _MIB,
        }
    return figures


def ratios(contenders: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Of our speed and memory to that of each other contender."""
    found = {}
    for ours in ("jpeg", "latents"):
        for other in contenders.keys() - {"jpeg", "latents"}:
            for figure, name in (("steps_per_s", "to"), ("anonymous_mib", "memory_to")):
                found[f"{ours}_{name}_{other}"] = (
                    contenders[ours][figure] / contenders[other][figure]
                )
    return dict(sorted(found.items()))


def epoch_figures(bench: DataBench, setting: Setting, show: Show) -> dict:
    """Anonymous memory of our loader, from pictures, over whole epochs in one process."""
    windows, held = _windows_of(setting), []
    with Contender(by_us, setting, False) as contender:
        for epoch in range(bench.epochs):
            turn = contender.run_windows(windows // setting.batch_size * setting.batch_size)
            held.append(turn.anonymous / _MIB)
            show(f"epoch {epoch + 1} of {bench.epochs}: {held[-1]:,.1f} MiB anonymous")
    return {"memory_over_epochs": max(held) / min(held), "memory_of_epochs_mib": held}


def resume_figures(setting: Setting, show: Show) -> dict:
    """How many batches differ between a run and one that was ended and resumed."""
    show(f"resuming after {RESUMED_AFTER} batches, comparing {COMPARED}")
    unbroken = make_loader(setting)
    batches = _endless(unbroken)
    for _ in range(RESUMED_AFTER):
        next(batches)
    state = json.loads(json.dumps(unbroken.state_dict()))
    expected = [_digest(next(batches)) for _ in range(COMPARED)]
    resumed = make_loader(setting)
    resumed.load_state_dict(state)
    batches = _endless(resumed)
    found = [_digest(next(batches)) for _ in range(COMPARED)]
    differing = sum(a != b for a, b in zip(expected, found, strict=True))
    return {"resumed_batches": COMPARED, "resumed_batches_differing": differing}


def _endless(loader: WindowLoader) -> Iterator[Batch]:
    """Epoch after epoch, from where the loader is."""
    while True:
        yield from loader


def _windows_of(setting: Setting) -> int:
    """Windows of an epoch."""
    return int(count_of(BridgeV2(setting.folder).steps, RULES).sum())


def _in_turns(
    contenders: dict[str, tuple], bench: DataBench, setting: Setting, show: Show
) -> dict[str, list[Round]]:
    """The rounds of each contender, without the one that warms it up."""
    rounds: dict[str, list[Round]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        started = {}
        for name, (make, *arguments) in contenders.items():
            show(f"starting {name}")
            started[name] = stack.enter_context(Contender(make, setting, *arguments))
            started[name].run(bench.seconds)
            started[name].hold()
        for turn in range(bench.rounds):
            for name, contender in started.items():
                contender.resume()
                measured = contender.run(bench.seconds)
                contender.hold()
                rounds[name].append(measured)
                show(
                    f"round {turn + 1} of {bench.rounds}, {name}: "
                    f"{measured.windows / measured.seconds:,.0f} steps/s, "
                    f"{1e3 * measured.cpu_seconds / measured.windows:.3f} ms of processor time, "
                    f"{measured.anonymous / _MIB:,.0f} MiB"
                )
    return rounds


def _encode(setting: Setting, show: Show) -> dict[str, LatentKey]:
    """Makes the latents that are missing; by region, their keys."""
    schema, binding = declarations(setting)
    recipe = Recipe(data=str(setting.part), backbone=BACKBONE, schema=SCHEMA, binding=BINDING)
    dataset, backbone = BridgeV2(setting.part), load_backbone(BACKBONE)
    show(f"latents of {len(dataset):,} episodes, by the {BACKBONE} backbone")
    plan = plan_encoding(dataset, setting.latents, schema, binding, backbone, recipe)
    encode_dataset(plan, progress=_tenths("encoded", show))
    return latent_keys(dataset, schema, binding, backbone)


def _frames(clip: Path | None, show: Show) -> np.ndarray:
    """(n, H, W, 3) uint8 RGB to make pictures from."""
    if clip is not None:
        return read_video(clip)[0]
    show("rendering frames in the simulator")
    from canvas_robot.evaluation.rollouts import record_rollouts
    from canvas_robot.sim.experts import ReachExpert
    from canvas_robot.sim.registration import REACH_ID

    rollouts = record_rollouts(REACH_ID, ReachExpert(), range(RENDERED_EPISODES))
    return np.concatenate([rollout.episode.images for rollout in rollouts])


def _digest(batch: Batch) -> str:
    """Of every number and text of a batch."""
    digest = hashlib.sha256(repr((batch.names, batch.instructions)).encode())
    for regions in (batch.frames, batch.targets, batch.past):
        for name in sorted(regions):
            for tensor in regions[name]:
                digest.update(name.encode() + tensor.numpy().tobytes())
    digest.update(batch.steps.numpy().tobytes() + batch.phases.numpy().tobytes())
    return digest.hexdigest()


def _tenths(what: str, show: Show) -> Callable[[int, int], None]:
    """Shows every tenth of some work."""
    shown = 0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if 10 * done // max(1, total) > shown:
            shown = 10 * done // total
            show(f"{what}: {10 * shown}%")

    return progress
