"""Laws of TickRunner: kept or computed anew, every row is what one joint forward gives."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from canvas_robot.backbone.graft import graft
from canvas_robot.canvas.attention import EdgeOptions
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.policy.ticks import RefreshError, TickRunner, slow_regions
from canvas_robot.schema import (
    ATTENTION_TYPES,
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    RegionSpec,
    closure,
    compile_plan,
    dirty_regions,
)
from tests.policy.test_runner import make_transformer, randomise_loops

WIDTH = 32
TICKS = 13  # all periods that are drawn meet again at tick 12
SMALL = EdgeOptions(
    top_k=2, window=(1, 1, 1), latents=3, random_keys=2, routed_keys=4, state_size=4
)
TYPES = ["cross_attention"] * 6 + sorted(set(ATTENTION_TYPES) - {"copy", "cross_attention"})


@st.composite
def schemas(draw, periods=(1, 2, 3, 4, 6), types=TYPES):
    """Up to four regions on a line, any periods, loop counts, connections and function types."""
    count = draw(st.integers(2, 4))
    regions = {}
    for i in range(count):
        regions[f"r{i}"] = RegionSpec(
            (0, draw(st.integers(1, 2)), i, i + 1, 0, draw(st.integers(1, 2))),
            period=draw(st.sampled_from(periods)),
            stream=draw(st.sampled_from(["video", "video", "text"])),
            timestep=draw(st.sampled_from([0, 999])),
            loops=draw(st.none() | st.integers(1, 2)),
        )
    names = st.sampled_from(list(regions))
    connections = draw(
        st.lists(
            st.builds(
                Connection,
                src=names,
                dst=names,
                weight=st.sampled_from([1.0, 1.0, 0.5]),
                t_src=st.sampled_from([None, None, 0]),
                t_dst=st.sampled_from([None, None, 0, -1]),
                fn=st.sampled_from(types),
            ),
            min_size=1,
            max_size=8,
        )
    )
    return CanvasSchema(CanvasLayout(2, count, 2, WIDTH, regions), CanvasTopology(connections))


def made(schema, loops=2, rotary=False, sharpening=None, seed=0):
    """A runner of the schema with everything away from its start, in float32."""
    torch.manual_seed(seed)
    transformer = make_transformer(use_rotary_positional_embeddings=rotary)
    randomise_loops(graft(transformer, loops))
    plan = compile_plan(schema, loops=loops)
    edges = [
        ResidualEdges(plan, schema.layout, WIDTH, 2, SMALL)
        for _ in (transformer.transformer_blocks if plan.edges else ())
    ]
    for edge in edges:
        torch.nn.init.uniform_(edge.gates, 0.3, 0.9)
    positions = torch.rand(plan.n_rows, 3) * 5 if rotary else None
    return PlanRunner(transformer, plan, edges, positions, sharpening).eval()


def random_tokens(plan, regions, dtype):
    return {
        r.name: torch.randn(1, r.stop - r.start, WIDTH).to(dtype)
        for r in plan.regions
        if r.name in regions
    }


def joint(runner, tokens):
    """All rows computed at once from the tokens as they are."""
    with torch.inference_mode():
        return runner(torch.cat([tokens[r.name] for r in runner.plan.regions], dim=1))


def due(plan, tick):
    return {r.name for r in plan.regions if tick % r.period == 0}


def largest_error(runner, dtype, events=()):
    """Over the ticks, the largest difference from the joint forward relative to its size."""
    ticks, tokens, worst = TickRunner(runner), {}, 0.0
    for tick in range(TICKS):
        fresh = random_tokens(
            runner.plan, due(runner.plan, tick) | {n for t, n in events if t == tick}, dtype
        )
        tokens |= fresh
        expected = joint(runner, tokens)
        error = (ticks.tick(fresh) - expected).abs().max() / expected.abs().max()
        worst = max(worst, error.item())
    return worst


@settings(max_examples=40, deadline=None)
@given(schemas(), st.data())
def test_over_any_periods_and_topologies_every_tick_equals_the_joint_forward(schema, data):
    runner = made(schema)
    events = data.draw(
        st.lists(
            st.tuples(st.integers(1, TICKS - 1), st.sampled_from(list(schema.layout.regions))),
            max_size=3,
        )
    )
    assert largest_error(copy.deepcopy(runner).double(), torch.float64, events) <= 1e-12
    assert largest_error(runner, torch.float32, events) <= 1e-5


@settings(max_examples=10, deadline=None)
@given(schemas(types=["cross_attention"]), st.sampled_from([(1.0, 2.0), None]))
def test_rotary_backbones_and_sharpened_loops_are_cached_as_exactly(schema, sharpening):
    runner = made(schema, rotary=True, sharpening=sharpening).double()
    assert largest_error(runner, torch.float64) <= 1e-12


@settings(max_examples=10, deadline=None)
@given(schemas(types=["cross_attention"]))
def test_in_bfloat16_a_kept_row_is_no_worse_than_a_joint_one(schema):
    exact = made(schema)
    rough = copy.deepcopy(exact).bfloat16()
    ticks, tokens, kept, anew = TickRunner(rough), {}, 0.0, 0.0
    for tick in range(TICKS):
        fresh = random_tokens(exact.plan, due(exact.plan, tick), torch.bfloat16)
        tokens |= fresh
        truth = joint(exact, {name: t.float() for name, t in tokens.items()})
        kept += (ticks.tick(fresh).float() - truth).square().mean().item()
        anew += (joint(rough, tokens).float() - truth).square().mean().item()
    assert kept**0.5 <= 1.1 * anew**0.5 + 1e-6


@settings(max_examples=30, deadline=None)
@given(schemas(), st.integers(0, TICKS))
def test_only_dirty_rows_are_computed_and_what_reads_none_of_them_is_kept(schema, tick):
    plan = compile_plan(schema, loops=2)
    dirty = dirty_regions(plan, tick)
    assert due(plan, tick) <= dirty
    reads = {r.name: set(r.reads) for r in plan.regions}
    for name in reads:
        touched = name in due(plan, tick) or bool(reads[name] & dirty)
        assert (name in dirty) == touched


HELD = {
    "fast": RegionSpec((0, 1, 0, 1, 0, 2)),
    "held": RegionSpec((0, 1, 1, 2, 0, 2), period=3, hold=True),
    "reader": RegionSpec((0, 1, 2, 3, 0, 2)),
}
HELD_SCHEMA = CanvasSchema(
    CanvasLayout(1, 3, 2, WIDTH, HELD),
    CanvasTopology(
        [
            Connection("fast", "fast"),
            Connection("held", "fast"),
            Connection("held", "held"),
            Connection("reader", "held"),
            Connection("reader", "fast"),
        ]
    ),
)


def test_a_region_that_holds_keeps_what_it_was_at_its_own_refresh():
    runner = made(HELD_SCHEMA).double()
    ticks, tokens, rows = TickRunner(runner), {}, {r.name: r for r in runner.plan.regions}
    for tick in range(8):
        fresh = random_tokens(runner.plan, due(runner.plan, tick), torch.float64)
        tokens |= fresh
        out = ticks.tick(fresh).clone()
        if tick % 3 == 0:
            frozen = dict(tokens)
        span = slice(rows["held"].start, rows["held"].stop)
        torch.testing.assert_close(out[:, span], joint(runner, frozen)[:, span])
        span = slice(rows["fast"].start, rows["fast"].stop)
        torch.testing.assert_close(out[:, span], joint(runner, tokens)[:, span])
    assert closure(runner.plan, {"fast"}) == {"fast", "reader"}
    assert closure(runner.plan, {"held"}) == {"held", "reader"}


SLOW_TYPES = ["cross_attention", "cross_attention", "gated", "mamba", "pooling"]


# Most topologies let a slow region read a fast one, which is refused.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(schemas(periods=(1, 3, 4), types=SLOW_TYPES), st.booleans(), st.data())
def test_a_sliced_refresh_acts_on_slow_inputs_of_age_ticks_ago_never_on_a_half_done_pass(
    schema, works, data
):
    runner = made(schema).double()
    try:
        ticks = TickRunner(runner, refresh="sliced")
    except RefreshError:
        assume(False)
    plan, P = runner.plan, ticks.period
    fast = [r for r in plan.regions if r.name not in ticks.slow]
    assume(fast)
    event_tick = data.draw(st.integers(1, 3 * P))
    event = data.draw(st.sampled_from(sorted(ticks.slow)))
    tokens, past = {}, []
    for tick in range(4 * P + 2):
        events = {event} if tick == event_tick else set()
        fresh = random_tokens(plan, due(plan, tick) | events, torch.float64)
        tokens = tokens | fresh
        past.append(tokens)
        out = ticks.tick(fresh, events)
        inline = tick == 0 or tick == event_tick
        assert (ticks.age == 0) == inline
        assert ticks.age <= 2 * P - 1
        if tick >= max(2 * P, event_tick + 2 * P):
            assert ticks.age >= P
        slow_then = {name: past[tick - ticks.age][name] for name in ticks.slow}
        expected = joint(runner, tokens | slow_then)
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
        if works:  # or it is all done at the boundary
            ticks.work()


def test_the_slices_of_a_pass_are_spread_evenly_and_each_is_one_block_and_loop():
    regions = {
        "slow": RegionSpec((0, 1, 0, 1, 0, 2), period=3),
        "fast": RegionSpec((0, 1, 1, 2, 0, 2)),
    }
    topology = CanvasTopology([Connection("slow", "slow"), Connection("fast", "slow")])
    runner = made(CanvasSchema(CanvasLayout(1, 2, 2, WIDTH, regions), topology))
    ticks = TickRunner(runner, refresh="sliced")
    assert (ticks.slices, ticks.period, ticks.slow) == (4, 3, {"slow"})
    runs = []
    inner = runner._loop
    runner._loop = lambda *args: runs.append(args[:2]) or inner(*args)
    for tick in range(7):
        ticks.tick(random_tokens(runner.plan, due(runner.plan, tick), torch.float32))
        before = len(runs)
        ticks.work()
        done = runs[before:]
        if tick >= 3:
            assert len(done) == [2, 1, 1][tick % 3]
        else:
            assert not done, "the first pass was inline; the next begins at the next boundary"


def test_what_cannot_be_refreshed_as_asked_is_refused_by_name():
    runner = made(HELD_SCHEMA)
    with pytest.raises(RefreshError) as error:
        TickRunner(runner, refresh="sliced")
    assert str(error.value) == (
        "refresh 'sliced': region 'held' (period 3) reads ['fast'], which change every tick; "
        "remove the connections, or use refresh 'inline'"
    )
    with pytest.raises(RefreshError, match="expected one of \\('inline', 'sliced'\\), got 'x'"):
        TickRunner(runner, refresh="x")
    ticks = TickRunner(runner)
    with pytest.raises(RefreshError, match=r"missing \['held'\], unknown \['z'\]"):
        tokens = random_tokens(runner.plan, {"fast", "reader"}, torch.float32)
        ticks.tick({**tokens, "z": tokens["fast"]})
    flat = CanvasLayout(1, 1, 2, WIDTH, {"a": (0, 1, 0, 1, 0, 2)})
    with pytest.raises(RefreshError, match="expected a region with a period above 1"):
        slow_regions(compile_plan(CanvasSchema(flat)), ["a"])


def test_a_reset_forgets_everything():
    runner = made(HELD_SCHEMA)
    ticks = TickRunner(runner)
    tokens = random_tokens(runner.plan, set(HELD), torch.float32)
    first = ticks.tick(tokens).clone()
    ticks.tick(random_tokens(runner.plan, {"fast"}, torch.float32))
    ticks.reset()
    with pytest.raises(RefreshError, match="missing"):
        ticks.tick({"fast": tokens["fast"]})
    assert torch.equal(ticks.tick(tokens), first)


def test_the_caches_take_what_the_plan_says_and_twice_that_when_sliced():
    runner = made(
        CanvasSchema(
            CanvasLayout(
                1,
                2,
                2,
                WIDTH,
                {"slow": RegionSpec((0, 1, 0, 1, 0, 2), period=2), "fast": (0, 1, 1, 2, 0, 2)},
            ),
            CanvasTopology.isolated(["slow", "fast"]),
        )
    )
    rows, itemsize, blocks, loops = 4, 4, 2, 2
    keys_and_values = 2 * blocks * loops * rows * WIDTH * itemsize
    hidden, sampled = rows * WIDTH * itemsize, 2 * WIDTH * itemsize
    assert TickRunner(runner).nbytes == keys_and_values + 2 * hidden
    sliced = TickRunner(runner, "sliced")
    assert sliced.nbytes == 2 * (keys_and_values + hidden) + hidden + sampled


@settings(max_examples=10, deadline=None)
@given(schemas())
def test_gradients_are_the_same_with_loops_computed_again_in_the_backward_pass(schema):
    runner = made(schema).double()
    rows = torch.randn(2, runner.plan.n_rows, WIDTH, dtype=torch.float64)
    wanted = [p for p in runner.parameters() if p.requires_grad]
    gradients = []
    for again in (True, False):
        for block in runner.transformer.transformer_blocks:
            block.use_gradient_checkpointing = again
        out = runner(rows)
        gradients.append(
            torch.autograd.grad(
                out.square().mean(), wanted, allow_unused=True, materialize_grads=True
            )
        )
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-14)
    assert any(gradient.abs().max() > 0 for gradient in gradients[0])


@pytest.mark.parametrize("shape", [(1, 1, WIDTH), (), (1, 2, 1)])
def test_tokens_of_another_shape_are_refused_before_any_is_taken(shape):
    regions = {name: RegionSpec((0, 2, i, i + 1, 0, 1)) for i, name in enumerate(("a", "b"))}
    layout = CanvasLayout(2, 2, 1, WIDTH, regions)
    runner = made(CanvasSchema(layout, CanvasTopology.dense(["a", "b"])))
    ticks, tokens = TickRunner(runner), random_tokens(runner.plan, regions, torch.float32)
    with pytest.raises(RefreshError, match="tick: tokens of 'b': expected shape"):
        ticks.tick({**tokens, "b": torch.zeros(shape)})
    assert not ticks.inputs.any()
    ticks.tick(tokens)  # nothing was taken, so this is still the first
