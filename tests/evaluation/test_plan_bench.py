"""Laws of the bench of plans: its schema, exact ticks, figures that fit together; no timings."""

import json

import pytest
import torch

from canvas_robot.evaluation import plan_bench
from canvas_robot.evaluation.plan_bench import (
    FAST,
    SLOW,
    TEXT_TOKENS,
    PlanSize,
    bench_plan,
    bench_schema,
    random_transformer,
)
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.schema import closure, compile_plan, dirty_regions, distinct_passes

TINY = PlanSize(width=16, heads=2, blocks=2, loops=3, slow=11, fast=3, dtype="float32", threads=1)
ASKED = ("full_ms", "tick_ms", "ratio", "sliced_p50_ms", "sliced_p99_ms", "max_rel_err")


@pytest.fixture(scope="module")
def figures():
    return bench_plan(TINY, pairs=2, ticks=4, sliced_ticks=26, show=lambda _: None)


def test_the_figures_have_their_names_and_are_written_as_json(figures):
    read = json.loads(json.dumps(figures))
    assert read == figures
    assert all(read[name] > 0 for name in ASKED if name != "max_rel_err")


def quick(size):
    return bench_plan(size, pairs=1, ticks=1, sliced_ticks=1, show=lambda _: None)


def test_a_kept_tick_is_as_exact_as_its_precision(figures):
    assert figures["max_rel_err"] <= 1e-5
    rough = PlanSize(16, 2, 2, 3, 11, 3, "bfloat16", threads=1)
    assert quick(rough)["max_rel_err"] <= 0.05


def test_a_tick_that_ignores_its_fast_tokens_shows_in_the_error(monkeypatch):
    class Stale(TickRunner):
        def _take(self, tokens, *rest):
            if set(tokens) != {FAST}:
                super()._take(tokens, *rest)

    monkeypatch.setattr(plan_bench, "TickRunner", Stale)
    assert quick(TINY)["max_rel_err"] > 0.05


def test_the_full_pass_is_the_faster_of_the_two_and_the_ratio_is_of_it(figures):
    assert figures["full_ms"] == min(figures["full_stock_ms"], figures["full_ours_ms"])
    assert figures["ratio"] == pytest.approx(figures["full_ms"] / figures["tick_ms"])
    assert figures["tick_ms"] <= figures["tick_p99_ms"]
    assert figures["sliced_p50_ms"] <= figures["sliced_p99_ms"]


def test_a_slow_pass_takes_one_slice_for_each_block_and_loop_and_as_many_ticks(figures):
    period = TINY.blocks * TINY.loops
    assert figures["refresh_period_ticks"] == period
    assert figures["largest_age_ticks"] == 2 * period - 1
    assert figures["rows"] == TINY.slow + TINY.fast


def test_what_a_tick_must_read_is_counted_from_the_real_block(figures):
    width, runs, mib = TINY.width, TINY.blocks * TINY.loops, 2**20
    attention, feed_forward = 4 * width * width, 8 * width * width
    weights = attention + feed_forward + 4 * width + 5 * width
    weights += 4 * (width // TINY.heads)  # norms of queries and keys
    assert figures["tick_weights_mib"] * mib == pytest.approx(4 * runs * weights)
    assert figures["tick_cache_mib"] * mib == pytest.approx(4 * runs * 2 * TINY.slow * width)
    least = 2 * 4 * runs * (TINY.slow + TINY.fast) * width
    assert figures["cache_mib"] * mib > least
    assert "tick_limit_ms" not in figures, "no known card here"


@pytest.mark.parametrize("size", [TINY, PlanSize()])
def test_goal_and_visual_are_refreshed_together_and_the_fast_tokens_read_all(size):
    period = size.blocks * size.loops
    plan = compile_plan(bench_schema(size, period), loops=size.loops)
    regions = {r.name: r for r in plan.regions}
    assert set(regions) == {*SLOW, FAST}
    assert {name: regions[name].period for name in regions} == {
        "goal": period,
        "visual": period,
        FAST: 1,
    }
    assert set(regions[FAST].reads) == set(regions)
    for name in SLOW:
        assert set(regions[name].reads) == set(SLOW)
        assert closure(plan, {name}) == set(regions)
    assert dirty_regions(plan, 0) == dirty_regions(plan, period) == set(regions)
    assert all(dirty_regions(plan, tick) == {FAST} for tick in range(1, period))
    assert len(distinct_passes(plan)) == 2
    lengths = {name: r.stop - r.start for name, r in regions.items()}
    assert lengths["goal"] + lengths["visual"] == size.slow and lengths[FAST] == size.fast
    assert lengths["goal"] == min(TEXT_TOKENS, size.slow // 2)
    assert regions["goal"].stream == "text" and regions["visual"].stream == "video"


def test_the_transformer_is_the_real_block_at_that_size_and_its_loops_count():
    transformer = random_transformer(TINY, torch.device("cpu"), torch.bfloat16)
    assert len(transformer.transformer_blocks) == TINY.blocks
    for block in transformer.transformer_blocks:
        assert block.original.attn1.to_q.weight.dtype == torch.bfloat16
        assert block.loop_gate.dtype == torch.float32
        assert block.loop_gate.min() >= 0.5, "no loop is switched off"
        assert all(p.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize(
    "bad, text",
    [
        ({"width": 17}, "width: expected a multiple of 8 x 2 heads, got 17"),
        ({"width": 16, "heads": 3}, "width: expected a multiple of 8 x 3 heads, got 16"),
        ({"slow": 1}, "size: expected at least 2 slow tokens"),
        ({"dtype": "float64"}, "size: expected at least 2 slow tokens and dtype bfloat16"),
        ({"device": "mps"}, "device: expected cpu or cuda, got 'mps'"),
    ],
)
def test_sizes_that_cannot_be_timed_are_refused(bad, text):
    with pytest.raises(ValueError, match=text):
        PlanSize(**({"width": 16, "heads": 2, "slow": 11, "fast": 3} | bad))
