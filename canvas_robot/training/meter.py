"""Meter: what a run reports of itself, summed up from row to row of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil
import torch
from accelerate import Accelerator


class Sums(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Of one process, since the last row.

    updates: their number. values: by name, summed over them. seconds: how long they took; waited:
    how much of it for data.
    """

    updates: int = 0
    values: dict[str, float] = {}
    seconds: float = 0.0
    waited: float = 0.0


class MetricsRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of metrics.jsonl. Means are over the updates since the row before, all processes.

    step: updates so far. epoch: of the data, from 0. loss, parts: means, in total and by output
    region. lr: learning rate of the last update. grad_norm: mean, before it is cut. loops: of the
    last update. steps_per_s: updates a second; data_wait: share of it, 0 to 1, that waited for
    data. memory_mb: peak of the device where it is CUDA, else what the process holds, in 1e6 bytes.
    time: seconds since 1970.
    held_out, held_out_parts: mean loss on the held-out windows, where they were evaluated.
    """

    step: int
    epoch: int
    loss: float
    parts: dict[str, float]
    lr: float
    loops: int
    grad_norm: float
    steps_per_s: float
    data_wait: float
    memory_mb: float
    time: float
    held_out: float | None = None
    held_out_parts: dict[str, float] = {}

    def scalars(self) -> dict[str, float]:
        """What TensorBoard plots, by tag."""
        flat = msgspec.structs.asdict(self)
        parts = {f"loss/{region}": value for region, value in flat.pop("parts").items()}
        held = {f"held_out/{region}": v for region, v in flat.pop("held_out_parts").items()}
        losses = {"loss/total": flat.pop("loss"), "held_out/total": flat.pop("held_out")}
        for name in ("step", "time"):
            flat.pop(name)
        everything = {**losses, **parts, **held, **flat}
        return {name: float(value) for name, value in everything.items() if value is not None}


class Meter:
    """Sums up updates. `sums` is its state."""

    def __init__(self) -> None:
        self.sums = Sums()

    def add(self, values: Mapping[str, float], seconds: float, waited: float) -> None:
        """One update: its losses by name, "grad_norm" among them, and how long it took."""
        sums = self.sums
        sums.updates += 1
        for name, value in values.items():
            sums.values[name] = sums.values.get(name, 0.0) + value
        sums.seconds += seconds
        sums.waited += waited

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over the updates and all processes since the last call, which all make together.

        "steps_per_s" and "data_wait" are among them.
        """
        sums, self.sums = self.sums, Sums()
        names = sorted(sums.values)
        own = [sums.values[name] / sums.updates for name in names]
        own += [sums.updates / sums.seconds, sums.waited / sums.seconds]
        mean = accelerator.reduce(torch.tensor(own, device=accelerator.device), "mean").tolist()
        return dict(zip([*names, "steps_per_s", "data_wait"], mean, strict=True))


def memory_mb(device: torch.device) -> float:
    """1e6 bytes: the peak that torch held of a CUDA device, else what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return psutil.Process().memory_info().rss / 1e6


def truncate_metrics(path: Path, step: int) -> None:
    """Removes the rows beyond a step, and what a crash left of a last one.

    Raises ValueError for a line that is no row, by its number.
    """
    if not path.is_file():
        return
    kept = []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = msgspec.json.decode(line, type=MetricsRow)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise ValueError(
                f"{path}: line {number}: expected a row of metrics; {error}"
            ) from error
        if row.step <= step:
            kept.append(line)
    part = path.with_suffix(".part")
    part.write_bytes(b"".join(kept))
    part.replace(path)
