"""Laws of rotary positions: rows turn as diffusers turns a video's patches, text does not turn."""

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb, get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.backbone.graft import graft
from canvas_robot.policy.rotary import rotary_places, rotary_tables, turned
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.schema import CanvasLayout, CanvasSchema, CanvasTopology, RegionSpec, compile_plan
from tests.policy.test_runner import TEXT_TOKENS, make_transformer, randomise_loops

SAMPLE = {"sample_width": 12, "sample_height": 8}  # the grid of the backbone's training: 6 x 4


def schema_of(frames, h, w, timestep):
    rows = -(-TEXT_TOKENS // w)
    regions = {
        "goal": RegionSpec((0, 1, h, h + rows, 0, w), stream="text", timestep=timestep),
        "visual": RegionSpec((0, frames, 0, h, 0, w), timestep=timestep),
        "action": RegionSpec((0, frames, h + rows, h + rows + 1, 0, 1), timestep=timestep),
    }
    layout = CanvasLayout(frames, h + rows + 1, w, 8, regions)
    return CanvasSchema(layout, CanvasTopology.dense(["goal", "visual"]))


def tables_of_diffusers(transformer, frames, h, w):
    """As CogVideoX's pipeline prepares them for a video of that size."""
    config = transformer.config
    base = (config.sample_width // config.patch_size, config.sample_height // config.patch_size)
    return get_3d_rotary_pos_embed(
        embed_dim=config.attention_head_dim,
        crops_coords=get_resize_crop_region_for_grid((h, w), *base),
        grid_size=(h, w),
        temporal_size=frames,
        device=torch.device("cpu"),
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.integers(0, 999),
    st.integers(0, 2**31),
)
def test_with_visual_and_goal_it_equals_the_transformers_own_rotary_forward(
    frames, size, loops, timestep, seed
):
    torch.manual_seed(seed)
    h, w = size
    transformer = make_transformer(use_rotary_positional_embeddings=True, **SAMPLE)
    schema = schema_of(frames, h, w, timestep)
    plan = compile_plan(schema, loops, {"goal": TEXT_TOKENS})
    latents = torch.randn(1, frames, 4, 2 * h, 2 * w)
    prompt = torch.randn(1, TEXT_TOKENS, 12)
    cos, sin = tables_of_diffusers(transformer, frames, h, w)
    with torch.no_grad():
        expected = transformer(
            latents, prompt, torch.tensor([timestep]), image_rotary_emb=(cos, sin)
        ).sample
        graft(transformer, loops)
        places = rotary_places(transformer, schema.layout, plan, ["visual"])
        runner = PlanRunner(transformer, plan, positions=places)
        joint = transformer.patch_embed(prompt, latents)
        tokens = {
            "goal": joint[:, :TEXT_TOKENS],
            "visual": joint[:, TEXT_TOKENS:],
            "action": torch.randn(1, frames, 32),
        }
        out = runner(torch.cat([tokens[r.name] for r in plan.regions], dim=1))
        visual = plan.region("visual")
        patches = transformer.proj_out(
            runner.modulator.finish(out[:, visual.start : visual.stop], timestep)
        )
    patches = patches.reshape(1, frames, h, w, 4, 2, 2)
    actual = patches.permute(0, 1, 4, 2, 5, 3, 6).reshape(latents.shape)
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_a_videos_rows_turn_as_diffusers_tables_say(frames, h, w):
    transformer = make_transformer(use_rotary_positional_embeddings=True, **SAMPLE)
    schema = schema_of(frames, h, w, 0)
    plan = compile_plan(schema, tokens={"goal": TEXT_TOKENS})
    places = rotary_places(transformer, schema.layout, plan, ["visual"])
    cos, sin = rotary_tables(plan, places, 16)
    visual, goal = plan.region("visual"), plan.region("goal")
    expected = tables_of_diffusers(transformer, frames, h, w)
    for ours, theirs in zip((cos, sin), expected, strict=True):
        torch.testing.assert_close(ours[visual.start : visual.stop], theirs, rtol=0, atol=1e-5)
    assert (cos[goal.start : goal.stop] == 1).all() and not sin[goal.start : goal.stop].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turning_is_diffusers_turning_and_keeps_lengths(dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 16).to(dtype)
    cos, sin = torch.rand(2, 5, 16) * 2 - 1
    expected = apply_rotary_emb(x.transpose(1, 2), (cos, sin)).transpose(1, 2)
    torch.testing.assert_close(turned(x, cos, sin), expected, rtol=0, atol=0)
    angle = torch.randn(5, 8).repeat_interleave(2, dim=1)
    kept = turned(x.double(), angle.cos().double(), angle.sin().double()).norm(dim=-1)
    torch.testing.assert_close(kept, x.double().norm(dim=-1))


def test_other_rows_lie_at_their_canvas_cells_counted_from_the_first_video_step():
    transformer = make_transformer(use_rotary_positional_embeddings=True, **SAMPLE)
    regions = {
        "visual": RegionSpec((1, 2, 0, 2, 0, 2)),
        "past": RegionSpec((0, 2, 2, 3, 0, 1)),
        "action": RegionSpec((1, 3, 2, 3, 1, 2)),
    }
    layout = CanvasLayout(3, 3, 2, 8, regions)
    plan = compile_plan(CanvasSchema(layout))
    places = rotary_places(transformer, layout, plan, ["visual"])
    spans = {r.name: places[r.start : r.stop].tolist() for r in plan.regions}
    assert spans["past"] == [[-1, 2, 0], [0, 2, 0]]
    assert spans["action"] == [[0, 2, 1], [1, 2, 1]]
    assert [place[0] for place in spans["visual"]] == [0, 0, 0, 0]
    randomise_loops(graft(transformer, 1))
    PlanRunner(transformer, plan, positions=places)(torch.randn(1, plan.n_rows, 32))
