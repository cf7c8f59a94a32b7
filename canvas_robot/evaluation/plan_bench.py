"""Timing of a plan's ticks: the real CogVideoX block at a given size, random weights.

What is compared: a full pass (the faster of diffusers' own blocks and ours), a tick that computes
the fast rows only, and ticks between which the slow pass is computed in slices. On a CUDA device
ours are replayed graphs, and the same with every kernel launched is timed beside them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from canvas_robot.backbone.graft import graft
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    RegionSpec,
    compile_plan,
)

TEXT_TOKENS = 226
ERROR_TICKS = 4
WARM_UP_TICKS = 5
SLOW, FAST = ("goal", "visual"), "fast"

# Peak figures of a few cards: dense bfloat16 FLOP/s and bytes/s of memory, from their data sheets.
CARDS = {
    "H100": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
    "RTX 4090": (165e12, 1.008e12),
    "Orin": (42.5e12, 0.2048e12),
    "Thor": (259e12, 0.273e12),
}


@dataclass(frozen=True)
class PlanSize:
    """What is timed: blocks of `width` with `heads`, `loops` each; slow and fast tokens.

    fuse: torch.compile fuses our elementwise parts; diffusers' blocks stay as they are.
    """

    width: int = 1920
    heads: int = 30
    blocks: int = 3
    loops: int = 3
    slow: int = 1506
    fast: int = 30
    dtype: str = "bfloat16"
    device: str = "cpu"
    threads: int = 2
    fuse: bool = False

    def __post_init__(self) -> None:
        if self.width % (8 * self.heads):
            raise ValueError(
                f"width: expected a multiple of 8 x {self.heads} heads, got {self.width}"
            )
        if self.slow < 2 or self.dtype not in ("bfloat16", "float32"):
            raise ValueError(
                f"size: expected at least 2 slow tokens and dtype bfloat16 or float32, got {self}"
            )
        if self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f"device: expected cpu or cuda, got {self.device!r}")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise ValueError(
                f"device: expected cpu, as torch sees no CUDA device here; got {self.device!r}"
            )


def bench_plan(
    size: PlanSize,
    pairs: int = 5,
    ticks: int = 100,
    sliced_ticks: int = 300,
    show: Callable[[str], None] = print,
) -> dict:
    """All figures, times in milliseconds.

    Args:
        size: what is timed.
        pairs: full passes of each kind, between which the ticks are spread evenly.
        ticks: cached ticks in all.
        sliced_ticks: ticks with slices between them.
        show: is told what is being measured.
    """
    torch.set_num_threads(size.threads)
    torch.manual_seed(0)
    device, dtype = torch.device(size.device), getattr(torch, size.dtype)
    transformer = random_transformer(size, device, dtype)
    show(f"{size.blocks} blocks x {size.loops} loops, {size.width} wide, {size.dtype}")
    period = max(2, size.blocks * size.loops)  # a slice each tick
    schema = bench_schema(size, period)
    runner = PlanRunner(transformer, compile_plan(schema, loops=size.loops)).eval()
    if size.fuse:
        runner.fuse()
    inline = TickRunner(runner)
    with torch.inference_mode():
        show("full passes (diffusers' and ours) and cached ticks, in turns")
        figures = _full_and_ticks(runner, inline, size, pairs, ticks, device, dtype)
        show(f"largest difference from the joint pass over {ERROR_TICKS} ticks")
        figures["max_rel_err"] = _largest_error(runner, inline, device, dtype)
        show(f"{sliced_ticks} ticks with a slice of the slow pass after each")
        figures |= _sliced(runner, sliced_ticks, device, dtype)
    figures |= _limits(size, runner, device)
    return figures | {
        "cache_mib": inline.nbytes / 2**20,
        "rows": runner.plan.n_rows,
        "threads": torch.get_num_threads(),
        "fuse": size.fuse,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def random_transformer(
    size: PlanSize, device: torch.device, dtype: torch.dtype
) -> CogVideoXTransformer3DModel:
    """A grafted transformer of that size, made in its precision, without initialising twice."""
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel(
            num_layers=size.blocks,
            num_attention_heads=size.heads,
            attention_head_dim=size.width // size.heads,
        )
    nn.Module.to(transformer, dtype)  # diffusers' own warns of modules that it does not have
    transformer = transformer.to_empty(device=device).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.normal_(std=0.02)
        for module in transformer.modules():
            if isinstance(module, nn.LayerNorm) and module.weight is not None:
                module.weight.add_(1.0)
    for block in graft(transformer, size.loops):
        nn.init.uniform_(block.loop_gate, 0.5, 1.0)
    return transformer


def bench_schema(size: PlanSize, period: int) -> CanvasSchema:
    """Goal and visual see each other, every `period` ticks; fast tokens read all, every tick."""
    text = min(TEXT_TOKENS, size.slow // 2)
    lengths = {"goal": text, "visual": size.slow - text, FAST: size.fast}
    regions = {
        name: RegionSpec(
            (0, 1, i, i + 1, 0, length),
            period=1 if name == FAST else period,
            stream="text" if name == "goal" else "video",
            timestep=999 if name == FAST else 0,
        )
        for i, (name, length) in enumerate(lengths.items())
    }
    edges = [Connection(a, b) for a in SLOW for b in SLOW]
    edges += [Connection(FAST, name) for name in lengths]
    layout = CanvasLayout(1, len(regions), max(lengths.values()), size.width, regions)
    return CanvasSchema(layout, CanvasTopology(edges))


def _full_and_ticks(
    runner: PlanRunner,
    inline: TickRunner,
    size: PlanSize,
    pairs: int,
    ticks: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict:
    tokens = _tokens(runner, device, dtype)
    stock = _stock_pass(runner, size, device, dtype)
    times: dict[str, list[float]] = {"stock": []}
    ours, fast = {"": inline}, {FAST: tokens[FAST]}
    if inline.graphs:
        ours["_launched"] = TickRunner(runner, graphs=False)
    times |= {f"{name}{how}": [] for how in ours for name in ("ours", "tick")}
    stock()
    for runs in ours.values():
        runs.tick(tokens)
        for _ in range(WARM_UP_TICKS):
            runs.tick(fast)
    for _ in range(pairs):
        times["stock"].append(_timed(stock, device))
        for how, runs in ours.items():
            times[f"ours{how}"].append(_timed(lambda runs=runs: runs.tick(tokens), device))
            for _ in range(-(-ticks // pairs)):
                times[f"tick{how}"].append(_timed(lambda runs=runs: runs.tick(fast), device))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    full = min(medians["stock"], medians["ours"])
    launched = {}
    if inline.graphs:
        launched = {
            "full_launched_ms": medians["ours_launched"],
            "tick_launched_ms": medians["tick_launched"],
        }
    return launched | {
        "full_ms": full,
        "full_stock_ms": medians["stock"],
        "full_ours_ms": medians["ours"],
        "tick_ms": medians["tick"],
        "tick_p99_ms": float(np.percentile(times["tick"], 99)),
        "ratio": full / medians["tick"],
    }


def _stock_pass(
    runner: PlanRunner, size: PlanSize, device: torch.device, dtype: torch.dtype
) -> Callable[[], None]:
    """diffusers' own blocks over as many tokens, one timestep for all, looped."""
    text = min(TEXT_TOKENS, size.slow // 2)
    video = torch.randn(1, size.slow - text + size.fast, size.width, device=device, dtype=dtype)
    prompt = torch.randn(1, text, size.width, device=device, dtype=dtype)
    temb = torch.randn(1, runner.transformer.config.time_embed_dim, device=device, dtype=dtype)
    blocks = runner.transformer.transformer_blocks

    def run() -> None:
        hidden = (video, prompt)
        for block in blocks:
            for _ in range(size.loops):
                hidden = block.original(*hidden, temb)

    return run


def _largest_error(
    runner: PlanRunner, inline: TickRunner, device: torch.device, dtype: torch.dtype
) -> float:
    tokens, worst = _tokens(runner, device, dtype), 0.0
    inline.tick(tokens)
    for _ in range(ERROR_TICKS):
        tokens[FAST] = torch.randn_like(tokens[FAST])
        kept = inline.tick({FAST: tokens[FAST]}).float()
        joint = runner(torch.cat([tokens[r.name] for r in runner.plan.regions], dim=1)).float()
        error = ((kept - joint).abs().max() / joint.abs().max()).item()
        if not math.isfinite(error):
            raise ArithmeticError("plan: random weights of this size gave numbers beyond range")
        worst = max(worst, error)
    return worst


def _sliced(runner: PlanRunner, ticks: int, device: torch.device, dtype: torch.dtype) -> dict:
    """Ticks whose slow pass is spread between them, beside bare ticks of the same run."""
    sliced = TickRunner(runner, refresh="sliced")
    tokens = _tokens(runner, device, dtype)
    sliced.tick(tokens)
    slow_pass = [_timed(lambda: sliced.tick(tokens, events=SLOW), device) for _ in range(3)]
    bare, slices, whole = [], [], []
    for number in range(len(slow_pass) + 1, len(slow_pass) + 1 + ticks):
        due = tokens if number % sliced.period == 0 else {FAST: tokens[FAST]}
        bare.append(_timed(lambda due=due: sliced.tick(due), device))
        slices.append(_timed(sliced.work, device))
        whole.append(bare[-1] + slices[-1])
    fast = float(np.median(bare))
    per_pass = float(np.median(slices)) * sliced.period
    return {
        "sliced_p50_ms": float(np.percentile(whole, 50)),
        "sliced_p99_ms": float(np.percentile(whole, 99)),
        "bare_tick_p99_ms": float(np.percentile(bare, 99)),
        "slice_p99_ms": float(np.percentile(slices, 99)),
        "sliced_p99_ratio": float(
            np.percentile(whole, 99) / (np.percentile(bare, 99) + np.percentile(slices, 99))
        ),
        "slices_total_ms": per_pass,
        "slow_pass_ms": float(np.median(slow_pass)) - fast,
        "slices_to_slow_pass": per_pass / (float(np.median(slow_pass)) - fast),
        "refresh_period_ticks": sliced.period,
        "largest_age_ticks": 2 * sliced.period - 1,
        "cuda_graphs": sliced.graphs,
    }


def _limits(size: PlanSize, runner: PlanRunner, device: torch.device) -> dict:
    """Bytes and FLOPs that a tick cannot do without, and on a known card the time they take."""
    itemsize = 2 if size.dtype == "bfloat16" else 4
    block = runner.transformer.transformer_blocks[0].original
    core = sum(p.numel() for name, p in block.named_parameters() if not name.startswith("norm"))
    runs = size.blocks * size.loops
    weights = runs * core * itemsize
    cache = runs * 2 * size.slow * size.width * itemsize
    flops = runs * 2 * size.fast * (core + 2 * (size.slow + size.fast) * size.width)
    result = {
        "tick_weights_mib": weights / 2**20,
        "tick_cache_mib": cache / 2**20,
        "tick_gflop": flops / 1e9,
    }
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        card = next((peaks for known, peaks in CARDS.items() if known in name), None)
        if card is not None:
            result["tick_limit_ms"] = max(flops / card[0], (weights + cache) / card[1]) * 1e3
    return result


def _tokens(
    runner: PlanRunner, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    width = runner.transformer.config.num_attention_heads * (
        runner.transformer.config.attention_head_dim
    )
    return {
        r.name: torch.randn(1, r.stop - r.start, width, device=device, dtype=dtype)
        for r in runner.plan.regions
    }


def _timed(function: Callable, device: torch.device) -> float:
    """Milliseconds of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) * 1e3
