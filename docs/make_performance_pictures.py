"""Draws the pictures of docs/performance.md, docs/img/performance_*.png, from what runners do.

Small random transformers run tick by tick; hooks on their feed-forwards tell which rows were
computed and when. Nothing is drawn that did not happen.

Run in the checkout: .venv/bin/python docs/make_performance_pictures.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from canvas_robot.backbone.graft import graft
from canvas_robot.evaluation.schema_picture import INK, LINE, PALETTE, PAPER, QUIET
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    RegionSpec,
    compile_plan,
    dirty_regions,
)

IMAGES = Path(__file__).resolve().parent / "img"
HEADS, HEAD_WIDTH, BLOCKS, LOOPS = 2, 16, 2, 3
WIDTH = HEADS * HEAD_WIDTH
SLATE = "#475569"


def schema_of(
    regions: Mapping[str, tuple[int, int]], reads: Mapping[str, tuple[str, ...]], hold: bool = False
) -> CanvasSchema:
    """Regions by name as (tokens, period), on a line each; `hold`: those with a period above 1."""
    layout = CanvasLayout(
        1,
        len(regions),
        max(tokens for tokens, _ in regions.values()),
        WIDTH,
        {
            name: RegionSpec(
                (0, 1, i, i + 1, 0, tokens),
                period=period,
                stream="text" if name == "goal" else "video",
                hold=hold and period > 1,
            )
            for i, (name, (tokens, period)) in enumerate(regions.items())
        },
    )
    edges = [Connection(name, dst) for name, dsts in reads.items() for dst in dsts]
    return CanvasSchema(layout, CanvasTopology(edges))


def runner_of(schema: CanvasSchema) -> PlanRunner:
    """A random looped transformer under the schema's plan, in float64."""
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_layers=BLOCKS, num_attention_heads=HEADS, attention_head_dim=HEAD_WIDTH
    )
    for block in graft(transformer, LOOPS):
        torch.nn.init.uniform_(block.loop_gate, 0.5, 1.0)
    return PlanRunner(transformer, compile_plan(schema, LOOPS)).double().eval()


class Watch:
    """Counts the rows that each run of a block computes: its feed-forward sees exactly those."""

    def __init__(self, runner: PlanRunner) -> None:
        self._seen: list[int] = []
        for block in runner.transformer.transformer_blocks:
            block.original.ff.register_forward_hook(self._note)

    def _note(self, module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        self._seen.append(inputs[0].shape[1])

    def since(self) -> list[int]:
        """Rows of each run since the last question."""
        seen, self._seen = self._seen, []
        return seen


def tokens_of(runner: PlanRunner, names: set[str]) -> dict[str, torch.Tensor]:
    """New random tokens of these regions."""
    return {
        r.name: torch.randn(1, r.stop - r.start, WIDTH, dtype=torch.float64)
        for r in runner.plan.regions
        if r.name in names
    }


# Inline: what a tick computes.

REGIONS = {"goal": (8, 8), "camera": (24, 4), "wrist": (12, 2), "joints": (2, 1), "action": (4, 1)}
READS = {
    "goal": ("goal", "camera"),
    "camera": ("goal", "camera"),
    "wrist": ("wrist", "camera"),
    "joints": ("joints",),
    "action": tuple(REGIONS),
}
OBSERVED, RECOMPUTED, KEPT = "takes new inputs", "recomputed: reads one that changed", "kept"
STATE_KEY = (
    Patch(fc=SLATE, label=OBSERVED),
    Patch(fc="white", ec=SLATE, hatch="/////", label=RECOMPUTED),
    Patch(fc=PAPER, ec=LINE, label="keys and values kept"),
)


@dataclass(frozen=True)
class Inline:
    """By region a state for each tick, and of each tick the rows that its blocks computed."""

    states: dict[str, list[str]]
    computed: list[int]
    rows: int


def watch_inline(schema: CanvasSchema, ticks: int) -> Inline:
    """Runs the ticks; what the schedule says must be what was computed."""
    runner = runner_of(schema)
    watch, tick_runner, plan = Watch(runner), TickRunner(runner), runner.plan
    states, computed = {r.name: [] for r in plan.regions}, []
    for tick in range(ticks):
        due, dirty = set(plan.refreshed(tick)), dirty_regions(plan, tick)
        tick_runner.tick(tokens_of(runner, due))
        (rows,) = set(watch.since())
        if rows != sum(r.stop - r.start for r in plan.regions if r.name in dirty):
            raise RuntimeError(f"tick {tick}: {rows} rows were computed, not those of {dirty}")
        computed.append(rows)
        for name, of_region in states.items():
            of_region.append(OBSERVED if name in due else RECOMPUTED if name in dirty else KEPT)
    return Inline(states, computed, plan.n_rows)


def draw_states(axes: Axes, schema: CanvasSchema, states: Mapping[str, list[str]]) -> None:
    """A row of boxes for each region, a column for each tick."""
    for row, (name, of_region) in enumerate(states.items()):
        spec = schema.layout.region_spec(name)
        colour = PALETTE[row]
        note(axes, -0.25, row + 0.5, f"{name}, period {spec.period}", ha="right")
        for tick, state in enumerate(of_region):
            style = {"fc": PAPER, "ec": LINE}
            if state == OBSERVED:
                style = {"fc": colour, "ec": "white"}
            elif state == RECOMPUTED:
                style = {"fc": "white", "ec": colour, "hatch": "/////"}
            axes.add_patch(Rectangle((tick + 0.05, row + 0.14), 0.9, 0.72, lw=0.8, **style))


def inline_figure() -> Figure:
    """What 16 ticks of the example compute, and how many of its rows that is."""
    schema, ticks = schema_of(REGIONS, READS), 16
    seen = watch_inline(schema, ticks)
    figure, axes = blank(ticks, len(REGIONS) + 1.5)
    draw_states(axes, schema, seen.states)
    at = len(REGIONS)
    note(axes, -0.25, at + 0.5, f"rows of {seen.rows} computed", ha="right", color=QUIET)
    for tick, rows in enumerate(seen.computed):
        note(axes, tick + 0.5, at + 0.5, str(rows), ha="center", color=QUIET)
    number_ticks(axes, ticks, at + 1.1)
    key(axes, *STATE_KEY)
    return figure


# Propagation: goal 6, camera 4, action 1, which see one another.

SIX_FOUR_ONE = {"goal": (8, 6), "camera": (24, 4), "action": (4, 1)}
ALL_READ = {"goal": ("goal", "camera"), "camera": ("goal", "camera"), "action": tuple(SIX_FOUR_ONE)}


def errors(schema: CanvasSchema, ticks: int) -> list[float]:
    """Of each tick the largest difference from one joint pass over the newest inputs, relative."""
    runner = runner_of(schema)
    tick_runner, newest, found = TickRunner(runner), {}, []
    torch.manual_seed(1)
    for tick in range(ticks):
        fresh = tokens_of(runner, set(runner.plan.refreshed(tick)))
        newest |= fresh
        kept = tick_runner.tick(fresh)
        with torch.inference_mode():
            joint = runner(torch.cat([newest[r.name] for r in runner.plan.regions], dim=1))
        found.append(((kept - joint).abs().max() / joint.abs().max()).item())
    return found


def propagation_figure() -> Figure:
    """The states with dirtiness propagated, and the errors with it and without."""
    ticks = 16
    schema, held = (schema_of(SIX_FOUR_ONE, ALL_READ, hold) for hold in (False, True))
    figure, axes = blank(ticks, 7.6)
    draw_states(axes, schema, watch_inline(schema, ticks).states)
    number_ticks(axes, ticks, 3.1)
    top, zero = 4.6, 6.9
    results = (
        ("only what is due", errors(held, ticks), PALETTE[7]),
        ("what is due and all that reads it", errors(schema, ticks), PALETTE[2]),
    )
    largest = max(max(values) for _, values, _ in results)
    axes.plot([0, ticks], [zero, zero], color=LINE, lw=0.8)
    for (label, values, colour), y in zip(results, (top - 0.35, zero + 0.4), strict=True):
        heights = [zero - (zero - top) * value / largest for value in values]
        axes.plot([tick + 0.5 for tick in range(ticks)], heights, "o-", ms=5, lw=1.2, color=colour)
        worst = f"up to {max(values):.1%}" if max(values) > 1e-12 else "below 1e-12"
        note(axes, ticks / 2, y, f"{label}: {worst}", ha="center", color=colour)
    note(axes, -0.25, (top + zero) / 2, "difference from\none joint pass", ha="right", color=QUIET)
    key(axes, *STATE_KEY)
    return figure


# Sliced: two halves of the caches.


@dataclass(frozen=True)
class SlicedTick:
    """What one tick did: the half it read, the tick of its slow inputs, rows, slices after it."""

    half: int
    sampled: int
    age: int
    rows: int
    slices: int


def watch_sliced(schema: CanvasSchema, ticks: int, event_tick: int) -> list[SlicedTick]:
    """Runs ticks with a new goal at `event_tick`; a half is told by where its output lies."""
    runner = runner_of(schema)
    watch, tick_runner = Watch(runner), TickRunner(runner, refresh="sliced")
    halves: dict[int, int] = {}
    seen = []
    for tick in range(ticks):
        events = {"goal"} if tick == event_tick else set()
        fresh = tokens_of(runner, set(runner.plan.refreshed(tick)) | events)
        watch.since()
        out = tick_runner.tick(fresh, events)
        rows = watch.since()[-1]
        tick_runner.work()
        slices = len(watch.since())
        half = halves.setdefault(out.data_ptr(), len(halves))
        seen.append(SlicedTick(half, tick - tick_runner.age, tick_runner.age, rows, slices))
    return seen


def sliced_figure() -> Figure:
    """Ticks of a sliced refresh with a period of 4: who fills and who reads which half."""
    ticks, event_tick, period = 20, 14, 4
    regions = {"goal": (8, period), "camera": (24, period), "joints": (2, 1), "action": (4, 1)}
    reads = {name: READS[name] for name in ("goal", "camera", "joints")} | {"action": (*regions,)}
    seen = watch_sliced(schema_of(regions, reads), ticks, event_tick)
    figure, axes = blank(ticks, 5.6)
    total = sum(tokens for tokens, _ in regions.values())
    note(axes, -0.25, 0.5, f"rows of {total} in the tick", ha="right")
    note(axes, -0.25, 1.5, "cache half A", ha="right")
    note(axes, -0.25, 2.5, "cache half B", ha="right")
    note(axes, -0.25, 3.5, "slices after the tick", ha="right")
    note(axes, -0.25, 4.5, "age of the slow inputs", ha="right")
    begun = 0
    for tick, now in enumerate(seen):
        whole = now.rows == total
        if tick % period == 0 and not whole:
            begun = tick
        box(axes, tick, 0, fc=colour_of(tick, seen) if whole else "#e2e8f0", ec="white")
        note(axes, tick + 0.5, 0.5, str(now.rows), ha="center", color="white" if whole else INK)
        box(axes, tick, 1 + now.half, fc=colour_of(now.sampled, seen), ec="white")
        note(axes, tick + 0.5, 1.5 + now.half, str(now.sampled), ha="center", color="white")
        if now.slices:
            colour = colour_of(begun, seen)
            box(axes, tick, 2 - now.half, fc="white", ec=colour, hatch="/////")
        note(axes, tick + 0.5, 3.5, str(now.slices), ha="center", color=QUIET)
        note(axes, tick + 0.5, 4.5, str(now.age), ha="center", weight="bold")
    note(axes, event_tick + 0.5, -0.1, "new goal", ha="center", color=QUIET)
    number_ticks(axes, ticks, 5.1)
    key(
        axes,
        Patch(fc=SLATE, label="read by the tick; the number: the tick of the slow inputs"),
        Patch(fc="white", ec=SLATE, hatch="/////", label="being filled, from the inputs of a tick"),
    )
    return figure


def colour_of(tick: int, seen: list[SlicedTick]) -> str:
    """One colour for each tick whose slow inputs were ever taken, in order."""
    taken = sorted({now.sampled for now in seen} | set(range(0, len(seen), 4)))
    return [PALETTE[i] for i in (0, 3, 2, 8, 4, 6, 7)][taken.index(tick)]


def box(axes: Axes, tick: int, row: int, **style) -> None:
    """One cell of a timeline."""
    axes.add_patch(Rectangle((tick + 0.05, row + 0.14), 0.9, 0.72, lw=0.8, **style))


def blank(ticks: int, rows: float) -> tuple[Figure, Axes]:
    """Axes with a column for each tick, y down."""
    height = 0.36 * rows + 0.6
    figure = Figure(figsize=(10.5, height), facecolor="white")
    bottom = 0.35 / height
    axes = figure.add_axes((0.01, bottom, 0.98, 1 - bottom - 0.2 / height))
    axes.set(xlim=(-0.27 * ticks, 1.02 * ticks), ylim=(rows, -0.1))
    axes.axis("off")
    return figure, axes


def note(axes: Axes, x: float, y: float, text: str, **style) -> None:
    """A few words, centred in height."""
    axes.text(x, y, text, **({"size": 10, "color": INK, "va": "center"} | style))


def number_ticks(axes: Axes, ticks: int, y: float) -> None:
    """Numbers of the ticks under their columns."""
    note(axes, -0.25, y + 0.15, "tick", ha="right", color=QUIET, size=9)
    for tick in range(ticks):
        note(axes, tick + 0.5, y + 0.15, str(tick), ha="center", color=QUIET, size=9)


def key(axes: Axes, *handles: Patch) -> None:
    """The legend, under the axes."""
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=len(handles),
        frameon=False, fontsize=9, labelcolor=INK, handlelength=2.4, columnspacing=1.4,
    )  # fmt: skip


def save(figure: Figure, name: str) -> None:
    """Writes docs/img/performance_<name>.png with a palette: a small file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    picture = Image.open(buffer).convert("RGB")
    picture = picture.quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    picture.save(IMAGES / f"performance_{name}.png", optimize=True)


def main() -> None:
    """All pictures of the page."""
    torch.set_num_threads(1)
    save(inline_figure(), "inline")
    save(propagation_figure(), "propagation")
    save(sliced_figure(), "sliced")


if __name__ == "__main__":
    main()
