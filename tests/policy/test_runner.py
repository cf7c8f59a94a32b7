"""Laws of PlanRunner: groups compute what a dense mask says, and what diffusers does."""

import copy
import itertools
import math

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.backbone.graft import graft
from canvas_robot.canvas.attention import EdgeOptions
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    Plan,
    RegionRows,
    RegionSpec,
    RowGroup,
    compile_plan,
)

TEXT_TOKENS = 5


def make_transformer(heads=2, head_dim=16, layers=2, **changes) -> CogVideoXTransformer3DModel:
    config = {
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "num_layers": layers,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": 12,
        "max_text_seq_length": TEXT_TOKENS,
        "sample_width": 4,
        "sample_height": 4,
        "sample_frames": 1,
        "use_rotary_positional_embeddings": False,
    }
    transformer = CogVideoXTransformer3DModel(**{**config, **changes}).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():  # norms start as 1 and 0, which hides mistakes
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return transformer


def randomise_loops(blocks) -> None:
    """Loop parameters as training might leave them."""
    with torch.no_grad():
        for block in blocks:
            block.loop_gate.uniform_(0.2, 1.2)
            block.loop_emb.normal_(std=0.5)
            block.loop_emb_enc.normal_(std=0.5)


shapes = st.fixed_dictionaries(
    {
        "heads": st.integers(1, 4),
        "head_dim": st.sampled_from([16, 32]),
        "layers": st.integers(1, 3),
        "time_embed_dim": st.sampled_from([8, 32]),
        "attention_bias": st.booleans(),
        "norm_elementwise_affine": st.booleans(),
    }
)


# ---------------------------------------------------------------- visual and goal alone


def two_regions(frames: int, h: int, w: int, timestep: int, goal_first: bool) -> CanvasSchema:
    """Only visual and goal, who see each other: what CogVideoX was trained as."""
    rows = -(-TEXT_TOKENS // w)
    regions = {
        "visual": RegionSpec((0, frames, 0, h, 0, w), timestep=timestep),
        "goal": RegionSpec((0, 1, h, h + rows, 0, w), stream="text", timestep=timestep),
    }
    if goal_first:
        regions = {name: regions[name] for name in ("goal", "visual")}
    layout = CanvasLayout(frames, h + rows, w, 8, regions)
    return CanvasSchema(layout, CanvasTopology.dense(list(regions)))


def run(transformer, schema, loops, latents, prompt) -> torch.Tensor:
    """Predicted noise by the plan: embed, run, finish, project, unpatchify."""
    plan = compile_plan(schema, loops, {"goal": TEXT_TOKENS})
    runner = PlanRunner(transformer, plan)
    joint = transformer.patch_embed(prompt, latents)
    tokens = {"goal": joint[:, :TEXT_TOKENS], "visual": joint[:, TEXT_TOKENS:]}
    out = runner(torch.cat([tokens[r.name] for r in plan.regions], dim=1))
    visual = plan.region("visual")
    timestep = schema.layout.region_spec("visual").timestep
    patches = transformer.proj_out(
        runner.modulator.finish(out[:, visual.start : visual.stop], timestep)
    )
    batch, frames, channels, height, width = latents.shape
    patches = patches.reshape(batch, frames, height // 2, width // 2, channels, 2, 2)
    return patches.permute(0, 1, 4, 2, 5, 3, 6).reshape(latents.shape)


@settings(max_examples=25, deadline=None)
@given(
    shapes,
    st.integers(1, 2),
    st.integers(1, 3),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 999),
    st.sampled_from([1, 1, 3]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_with_visual_and_goal_alone_it_equals_the_transformers_own_forward(
    shape, batch, frames, size, timestep, loops, goal_first, seed
):
    torch.manual_seed(seed)
    transformer = make_transformer(**shape)
    h, w = size
    latents = torch.randn(batch, frames, 4, 2 * h, 2 * w)
    prompt = torch.randn(batch, TEXT_TOKENS, 12)
    arguments = {"hidden_states": latents, "encoder_hidden_states": prompt}
    with torch.no_grad():
        expected = transformer(**arguments, timestep=torch.full((batch,), timestep)).sample
        blocks = graft(transformer, loops)
        if loops > 1:  # then the reference is the grafted transformer's own forward
            randomise_loops(blocks)
            expected = transformer(**arguments, timestep=torch.full((batch,), timestep)).sample
        result = run(
            transformer, two_regions(frames, h, w, timestep, goal_first), loops, latents, prompt
        )
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 1e-5 * expected.abs().max()


# ---------------------------------------------------------------- any readable sets


@st.composite
def plans(draw):
    """Plans of up to 12 rows: groups of either stream and two timesteps, any rows and weights."""
    n = draw(st.integers(2, 12))
    cuts = [0, *sorted(draw(st.sets(st.integers(1, n - 1), max_size=4))), n]
    groups = []
    for start, stop in itertools.pairwise(cuts):
        readable = draw(st.lists(st.booleans(), min_size=n, max_size=n))
        stream = draw(st.sampled_from(["video", "text"]))
        timestep = draw(st.sampled_from([0, 999]))
        runs = runs_of(readable)
        weights = tuple(draw(st.sampled_from([1.0, 1.0, 0.25, 3.0])) for _ in runs)
        groups.append(RowGroup(start, stop, stream, timestep, runs, weights))
    return whole_plan(groups, draw(st.integers(1, 3)))


def whole_plan(groups, loops):
    """A plan of these groups, a region for each."""
    regions = tuple(
        RegionRows(f"r{i}", g.start, g.stop, 1, g.stream, tuple(range(g.start, g.stop)), loops)
        for i, g in enumerate(groups)
    )
    return Plan(groups[-1].stop, loops, regions, tuple(g._replace(loops=loops) for g in groups))


def runs_of(readable: list[bool]) -> tuple[tuple[int, int], ...]:
    edges = [
        i for i in range(len(readable) + 1) if [False, *readable, False][i : i + 2].count(True) == 1
    ]
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def dense_reference(transformer, plan: Plan, rows: torch.Tensor) -> torch.Tensor:
    """The looped blocks over all rows at once, under a dense mask, row by row modulated."""
    mask = torch.full((plan.n_rows, plan.n_rows), -math.inf, dtype=rows.dtype)
    group_of_row = [group for group in plan.groups for _ in range(group.start, group.stop)]
    for row, group in enumerate(group_of_row):
        for (start, stop), weight in zip(group.reads, group.weights, strict=True):
            mask[row, start:stop] = math.log(weight)
    text = torch.tensor([group.stream == "text" for group in group_of_row])[:, None]
    times = torch.tensor([group.timestep for group in group_of_row])
    embedding = transformer.time_embedding(transformer.time_proj(times).to(rows.dtype))
    for block in transformer.transformer_blocks:
        for loop in range(plan.loops):
            shift = torch.where(text, block.loop_emb_enc[loop], block.loop_emb[loop])
            new = dense_block(block.original, rows + shift.to(rows.dtype), mask, text, embedding)
            rows = rows + block.loop_gate[loop].to(rows.dtype) * (new - rows)
    return rows


def dense_block(block, rows, mask, text, embedding):
    def modulated(norm, x):
        parts = norm.linear(norm.silu(embedding)).chunk(6, dim=1)
        shift, scale, gate = (torch.where(text, parts[i + 3], parts[i]) for i in range(3))
        return norm.norm(x) * (1 + scale) + shift, gate

    attn = block.attn1
    x, gate = modulated(block.norm1, rows)
    q, k, v = (
        project(x).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        for project in (attn.to_q, attn.to_k, attn.to_v)
    )
    q, k = attn.norm_q(q), attn.norm_k(k)
    logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    weights = (logits + mask).softmax(dim=3).nan_to_num(0.0)
    attended = attn.to_out[0]((weights @ v).transpose(1, 2).flatten(2))
    speaks = mask.isfinite().any(dim=1, keepdim=True)
    rows = rows + gate * attended * speaks
    x, gate = modulated(block.norm2, rows)
    return rows + gate * block.ff(x)


def test_the_runs_of_a_readable_set_are_its_stretches():
    assert runs_of([True, True, False, True]) == ((0, 2), (3, 4))
    assert runs_of([False, False]) == ()


@settings(max_examples=40, deadline=None)
@given(plans(), st.integers(1, 2), st.integers(0, 2**31))
def test_groups_compute_what_the_dense_mask_says(plan, batch, seed):
    torch.manual_seed(seed)
    transformer = make_transformer(layers=2)
    randomise_loops(graft(transformer, plan.loops))
    exact = copy.deepcopy(transformer).double()
    rows = torch.randn(batch, plan.n_rows, 32)
    with torch.no_grad():
        expected = dense_reference(exact, plan, rows.double())
        in_double = PlanRunner(exact, plan)(rows.double())
        in_float = PlanRunner(transformer, plan)(rows)
    assert (in_double - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (in_float - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_row_that_reads_nothing_gets_attention_0_and_its_feed_forward_still_runs():
    torch.manual_seed(0)
    transformer = make_transformer(layers=1)
    (looped,) = graft(transformer, 1)
    block = looped.original
    reader = RowGroup(0, 3, "video", 0, ((0, 5),), (1.0,))
    plan = whole_plan([reader, RowGroup(3, 5, "video", 0, (), ())], 1)
    rows = torch.randn(1, 5, 32)
    with torch.no_grad():
        runner = PlanRunner(transformer, plan)
        alone = runner(rows)[:, 3:]
        embedding = transformer.time_embedding(transformer.time_proj(torch.zeros(1)))
        shift, scale, gate, *_ = block.norm2.linear(block.norm2.silu(embedding)).chunk(6, dim=1)
        fed = block.ff(block.norm2.norm(rows[:, 3:]) * (1 + scale) + shift)
        torch.testing.assert_close(alone, rows[:, 3:] + gate * fed)
        assert (gate * fed).abs().max() > 0
        others = rows.clone()
        others[:, :3] = 0
        assert torch.equal(runner(others)[:, 3:], alone)


@settings(max_examples=20, deadline=None)
@given(plans(), st.data())
def test_a_row_that_nobody_reads_moves_no_other_row(plan, data):
    torch.manual_seed(0)
    transformer = make_transformer(layers=2)
    randomise_loops(graft(transformer, plan.loops))
    changed = data.draw(st.integers(0, plan.n_rows - 1))
    rows = torch.randn(1, plan.n_rows, 32)
    other = rows.clone()
    other[:, changed] = 0.0
    touched = {changed}
    for _ in range(plan.n_rows):  # read directly or through others
        touched |= {
            row
            for g in plan.groups
            for row in range(g.start, g.stop)
            if any(start <= t < stop for start, stop in g.reads for t in touched)
        }
    runner = PlanRunner(transformer, plan)
    with torch.no_grad():
        before, after = runner(rows), runner(other)
    untouched = sorted(set(range(plan.n_rows)) - touched)
    assert torch.equal(before[:, untouched], after[:, untouched])


def test_samples_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    transformer = make_transformer()
    randomise_loops(graft(transformer, 2))
    plan = whole_plan([RowGroup(0, 4, "video", 7, ((0, 4),), (1.0,))], 2)
    first, second = torch.randn(2, 1, 4, 32)
    runner = PlanRunner(transformer, plan)
    with torch.no_grad():
        together = runner(torch.cat([first, second]))
        torch.testing.assert_close(together, torch.cat([runner(first), runner(second)]))


def test_positions_go_with_backbones_that_have_rotary_embeddings_and_with_no_other():
    plan = whole_plan([RowGroup(0, 4, "video", 7, ((0, 4),), (1.0,))], 1)
    for rotary, positions, expected in ((True, None, (4, 3)), (False, torch.zeros(4, 3), None)):
        transformer = make_transformer(use_rotary_positional_embeddings=rotary)
        graft(transformer, 1)
        with pytest.raises(ValueError) as error:
            PlanRunner(transformer, plan, positions=positions)
        got = None if positions is None else (4, 3)
        assert str(error.value) == (
            f"positions: expected {expected}, one place for each row where the backbone has rotary "
            f"position embeddings, got {got}"
        )


def edges_of(plan, layout, transformer):
    heads, width = transformer.config.num_attention_heads, layout.d_model
    return [
        ResidualEdges(plan, layout, width, heads, EdgeOptions())
        for _ in transformer.transformer_blocks
    ]


def test_residual_edges_change_nothing_at_first_and_add_beside_attention_in_every_loop():
    torch.manual_seed(0)
    transformer = make_transformer(layers=1)
    (block,) = graft(transformer, 2)
    randomise_loops([block])
    layout = CanvasLayout(1, 1, 4, 32, {"a": (0, 1, 0, 1, 0, 2), "b": (0, 1, 0, 1, 2, 4)})
    plain = CanvasTopology.dense(["a", "b"])
    pooled = CanvasTopology([*plain.connections, Connection("a", "b", weight=2.0, fn="pooling")])
    plan = compile_plan(CanvasSchema(layout, pooled), loops=2)
    (edges,) = edges_of(plan, layout, transformer)
    rows = torch.randn(1, 4, 32)
    without = PlanRunner(transformer, compile_plan(CanvasSchema(layout, plain), loops=2))
    runner = PlanRunner(transformer, plan, [edges])
    assert torch.equal(runner(rows), without(rows))
    with torch.no_grad():
        edges.gates.fill_(0.5)
    gains = []
    edges.register_forward_hook(lambda module, inputs, out: gains.append((inputs[0], out)))
    runner(rows)
    assert len(gains) == 2, "once in each loop"
    for normed, gain in gains:
        mean = normed[:, 2:].mean(dim=1, keepdim=True)
        torch.testing.assert_close(gain[:, :2], (0.5 * 2.0 * mean).expand(-1, 2, -1))
        assert not gain[:, 2:].any()


def test_a_plan_with_residual_edges_needs_their_modules_for_every_block():
    transformer = make_transformer(layers=2)
    graft(transformer, 1)
    layout = CanvasLayout(1, 1, 1, 32, {"a": (0, 1, 0, 1, 0, 1)})
    topology = CanvasTopology([Connection("a", "a", fn="gated")])
    plan = compile_plan(CanvasSchema(layout, topology))
    with pytest.raises(ValueError) as error:
        PlanRunner(transformer, plan)
    assert str(error.value) == (
        "edges: expected one ResidualEdges for each of 2 blocks because the plan has 1 residual "
        "edges, got 0"
    )


@pytest.mark.parametrize("loops, found", [(0, "0 grafted with 0"), (2, "2 grafted with 2")])
def test_a_plan_of_more_loops_than_were_grafted_is_refused(loops, found):
    transformer = make_transformer(layers=2)
    if loops:
        graft(transformer, loops)
    layout = CanvasLayout(1, 1, 1, 32, {"a": (0, 1, 0, 1, 0, 1)})
    with pytest.raises(ValueError, match=f"at least the plan's 3 loops, got {found}"):
        PlanRunner(transformer, compile_plan(CanvasSchema(layout), loops=3))
