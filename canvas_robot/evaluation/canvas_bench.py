"""Timing of a schema's compilation: masks, block form and one attention layer, and of others' ways.

The library that introduced the declarations, canvas-engineering, runs beside ours in one process.
"""

from __future__ import annotations

import gc
import platform
import time
import tracemalloc
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from types import ModuleType

import torch
from torch.nn import functional as F

from canvas_robot.canvas.attention import CanvasAttention
from canvas_robot.canvas.attention.projecting import project
from canvas_robot.schema import CanvasLayout, CanvasSchema, CanvasTopology, compile_plan

OTHER, OTHER_VERSION = "canvas-engineering", "0.1.0"
REPEATS = 7
WARM_UP = 3
TOPOLOGIES = ("dense", "causal_temporal")
MEDIUM = (8, 16, 16, 4)  # T, H, W, regions: 2,048 positions
LARGE = (16, 32, 32, 32)  # 16,384 positions


def striped_schema(size: tuple[int, int, int, int], topology: str, d_model: int) -> CanvasSchema:
    """A grid (T, H, W) cut into equal bands of rows, one region each, under a named topology."""
    T, H, W, count = size
    band = H // count
    regions = {f"region_{i}": (0, T, i * band, (i + 1) * band, 0, W) for i in range(count)}
    layout = CanvasLayout(T, H, W, d_model, regions)
    return CanvasSchema(layout, getattr(CanvasTopology, topology)(list(regions)))


def bench_canvas(threads: int, runs: int = 20, show: Callable[[str], None] = print) -> dict:
    """All figures by name: masks against the other library, block form, attention.

    Args:
        threads: of torch.
        runs: timings of each attention, taken in turns.
        show: is told what is being measured.

    Raises:
        RuntimeError: canvas-engineering 0.1.0 is not installed.
    """
    other = require_other()
    torch.set_num_threads(threads)
    figures: dict = {}
    for topology in TOPOLOGIES:
        show(f"dense mask of {topology}, 2,048 positions: ours, then {OTHER}'s (seconds)")
        figures |= _named(f"mask_{topology}_2048", mask_figures(other, topology))
    for topology in TOPOLOGIES:
        show(f"dense mask and block form of {topology}, 16,384 positions")
        figures |= _named(f"mask_{topology}_16384", large_mask_figures(topology))
        figures |= _named(f"blocks_{topology}_16384", block_figures(topology))
    show("one attention layer, causal_temporal, 2,048 tokens")
    schema = striped_schema(MEDIUM, "causal_temporal", d_model=256)
    figures |= _named("attention", attention_figures(schema, n_heads=8, runs=runs))
    machine = {"threads": threads, "torch": torch.__version__, "processor": platform.machine()}
    return figures | machine


def require_other() -> ModuleType:
    """The other library's module."""
    try:
        found = version(OTHER)
    except PackageNotFoundError:
        found = "none"
    if found != OTHER_VERSION:
        raise RuntimeError(
            f"{OTHER}: expected version {OTHER_VERSION} beside ours, found {found}; "
            f"run: pip install --no-deps {OTHER}=={OTHER_VERSION}"
        )
    return import_module("canvas_engineering")


def mask_figures(other: ModuleType, topology: str) -> dict:
    """Ours once and then REPEATS times, theirs once, and the ratios."""
    schema = striped_schema(MEDIUM, topology, d_model=256)
    layout = schema.layout
    their_layout = other.CanvasLayout(layout.T, layout.H, layout.W, layout.d_model, layout.regions)
    their_topology = getattr(other.CanvasTopology, topology)(list(layout.regions))
    first, mask = _timed(lambda: schema.topology.to_attention_mask(layout))
    later = [_timed(lambda: schema.topology.to_attention_mask(layout))[0] for _ in range(REPEATS)]
    theirs, their_mask = _timed(lambda: their_topology.to_attention_mask(their_layout))
    if not torch.equal(mask, their_mask):
        raise RuntimeError(f"the masks of {topology} differ: nothing to compare")
    return {
        "first_ms": first * 1e3,
        "median_ms": median(later) * 1e3,
        "theirs_ms": theirs * 1e3,
        "ratio_first": theirs / first,
        "ratio_median": theirs / median(later),
    }


def large_mask_figures(topology: str) -> dict:
    """Seconds for the full mask of 16,384 positions, a GiB."""
    schema = striped_schema(LARGE, topology, d_model=256)
    seconds, _ = _timed(lambda: schema.topology.to_attention_mask(schema.layout))
    return {"s": seconds}


def block_figures(topology: str) -> dict:
    """Milliseconds and peak memory of compile_plan with 32 regions on 16,384 positions."""
    schema = striped_schema(LARGE, topology, d_model=256)
    seconds = [_timed(lambda: compile_plan(schema))[0] for _ in range(REPEATS + 1)]
    tracemalloc.start()
    plan = compile_plan(schema)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "first_ms": seconds[0] * 1e3,
        "median_ms": median(seconds[1:]) * 1e3,
        "peak_mib": peak / 2**20,
        "groups": len(plan.groups),
    }


def attention_figures(schema: CanvasSchema, n_heads: int, runs: int) -> dict:
    """CanvasAttention against one fused attention under the dense mask, same weights, in turns."""
    ours, masked = attention_and_masked(schema, n_heads)
    times = alternate({"ours": ours, "masked": masked}, schema, runs)
    return {
        "ours_ms": times["ours"],
        "masked_sdpa_ms": times["masked"],
        "ratio_to_masked_sdpa": times["masked"] / times["ours"],
    }


def attention_and_masked(schema: CanvasSchema, n_heads: int) -> tuple[CanvasAttention, Callable]:
    """The layer, and the same layer as one scaled_dot_product_attention under the dense mask."""
    attention = CanvasAttention(schema, n_heads)
    mask = schema.topology.to_attention_mask(schema.layout) > 0

    def masked(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.transpose(1, 2) for part in attention.project(x))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return project(attention.to_out, out.transpose(1, 2).flatten(2))

    return attention, masked


def alternate(functions: dict[str, Callable], schema: CanvasSchema, runs: int) -> dict[str, float]:
    """Median milliseconds of each function on one random canvas (1, N, d_model), in turns."""
    x = torch.randn(1, schema.layout.num_positions, schema.layout.d_model)
    times: dict[str, list[float]] = {name: [] for name in functions}
    with torch.no_grad():
        for _ in range(runs + WARM_UP):
            for name, function in functions.items():
                times[name].append(_timed(lambda function=function: function(x))[0] * 1e3)
    return {name: median(values[WARM_UP:]) for name, values in times.items()}


def _timed(function: Callable) -> tuple[float, object]:
    """Seconds of one call and what it returned; the garbage collector waits outside."""
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        result = function()
        return time.perf_counter() - started, result
    finally:
        gc.enable()


def _named(prefix: str, figures: dict) -> dict:
    return {f"{prefix}_{name}": value for name, value in figures.items()}
