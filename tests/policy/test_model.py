"""Laws of CanvasModel: native rows are the backbone's own; nothing leaks; misfits are refused."""

import msgspec
import pytest
import torch
import yaml

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.policy.model import CanvasModel, ModelError, ModelInputs
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import StatisticsError, binding_from_yaml

TINY = config_path("schemas", "widowx_tiny.json")


@pytest.fixture(scope="module")
def model(widowx, bridge):
    """widowx_tiny, with loop parameters as training might leave them."""
    model = CanvasPolicy.untrained(CanvasSchema.from_json(TINY), widowx, bridge, loops=3).model
    torch.manual_seed(0)
    with torch.no_grad():
        for block in model.runner.transformer.transformer_blocks:
            block.loop_gate.uniform_(0.2, 1.0)
            block.loop_emb.normal_(std=0.1)
            block.loop_emb_enc.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    return ModelInputs(
        latents={"visual": torch.randn(1, 1, 8, 32, 32)},
        vectors={"proprio": torch.randn(1, 2, 8)},
        prompt=torch.randn(1, 128, 64),
    )


def rows_of(model, region):
    placed = model.plan.region(region)
    return slice(placed.start, placed.stop)


def test_visual_and_goal_rows_are_exactly_what_the_backbones_own_embedding_gives(model, inputs):
    with torch.no_grad():
        rows = model.rows(inputs)
        joint = model.runner.transformer.patch_embed(inputs.prompt, inputs.latents["visual"])
    assert rows.shape == (1, model.plan.n_rows, 128)
    assert torch.equal(rows[:, rows_of(model, "goal")], joint[:, :128])
    assert torch.equal(rows[:, rows_of(model, "visual")], joint[:, 128:])


def test_the_other_rows_lie_on_empty_token_position_and_modality(model, inputs):
    with torch.no_grad():
        rows, canvas = model.rows(inputs), model.canvas
        below = canvas.empty_token + canvas.positions
        for region, embedded in (
            ("proprio", model.vector_codec("proprio")(inputs.vectors["proprio"])),
            ("action", torch.zeros(1, 8, 128)),
        ):
            cells = list(model.plan.region(region).cells)
            modality = canvas.modality[list(canvas.layout.regions).index(region)]
            expected = below[cells] + embedded + modality
            torch.testing.assert_close(rows[:, rows_of(model, region)], expected)


@pytest.mark.parametrize("region", ["proprio", "action"])
def test_rows_that_visual_and_goal_do_not_read_leave_them_unchanged(model, inputs, region):
    with torch.no_grad():
        rows = model.rows(inputs)
        other = rows.clone()
        other[:, rows_of(model, region)] = torch.randn_like(other[:, rows_of(model, region)])
        before, after = model.runner(rows), model.runner(other)
    for kept in ("visual", "goal"):
        assert torch.equal(before[:, rows_of(model, kept)], after[:, rows_of(model, kept)])
    action = rows_of(model, "action")
    assert not torch.equal(before[:, action], after[:, action])


@pytest.mark.parametrize("region", ["visual", "goal", "proprio", "action"])
def test_the_action_depends_on_every_region_that_it_reads(model, inputs, region):
    with torch.no_grad():
        rows = model.rows(inputs)
        other = rows.clone()
        other[:, rows_of(model, region)] *= 0.5
        assert not torch.equal(model(rows), model(other))


def test_the_action_is_read_after_the_backbones_final_norms_at_its_own_timestep(model, inputs):
    transformer = model.runner.transformer
    with torch.no_grad():
        rows = model.rows(inputs)
        out = model.runner(rows)[:, rows_of(model, "action")]
        embedding = transformer.time_embedding(transformer.time_proj(torch.tensor([999])))
        tokens = transformer.norm_out(transformer.norm_final(out), temb=embedding)
        steps = tokens.unflatten(1, (4, 2)).mean(dim=2)
        torch.testing.assert_close(model(rows), model.action.head.net(steps))


def test_a_batch_decides_as_its_samples_do_alone(model, inputs):
    torch.manual_seed(2)
    second = ModelInputs(
        latents={"visual": torch.randn(1, 1, 8, 32, 32)},
        vectors={"proprio": torch.randn(1, 2, 8)},
        prompt=torch.randn(1, 128, 64),
    )
    both = ModelInputs(
        *(
            {r: torch.cat([getattr(inputs, field)[r], getattr(second, field)[r]]) for r in regions}
            for field, regions in (("latents", ["visual"]), ("vectors", ["proprio"]))
        ),
        torch.cat([inputs.prompt, second.prompt]),
    )
    with torch.no_grad():
        together = model(model.rows(both))
        alone = torch.cat([model(model.rows(each)) for each in (inputs, second)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_holds_everything_that_is_not_the_frozen_backbone(model):
    own = model.own_parameters()
    prefixes = {name.split(".")[0] for name in own}
    assert prefixes == {"vector", "action", "canvas", "runner"}
    assert {name.rsplit(".", 1)[1] for name in own if name.startswith("runner")} == {
        "loop_emb",
        "loop_emb_enc",
        "loop_gate",
    }
    assert all(p.dtype == torch.float32 for p in own.values())


def test_every_weight_is_reached_by_the_action_but_modality_vectors_of_native_rows(model, inputs):
    model.zero_grad()
    model(model.rows(inputs)).square().sum().backward()
    unreached = {
        name for name, p in model.own_parameters().items() if p.grad is None or not p.grad.any()
    }
    backbones_own = [list(model.canvas.layout.regions).index(r) for r in ("visual", "goal")]
    assert unreached == {f"canvas.modality.{i}" for i in backbones_own}
    model.zero_grad()


def build(schema, binding, statistics) -> CanvasModel:
    return CanvasModel(schema, binding, statistics, load_backbone("tiny"), loops=1)


def test_region_names_may_hold_any_characters(small_schema, widowx, bridge):
    data = small_schema().to_dict()
    renamed = {"visual": "arm.eye", "proprio": "arm.state é", "action": "arm.do", "goal": "a/b"}
    data["regions"] = {renamed[name]: region for name, region in data["regions"].items()}
    data["topology"] = [{end: renamed[c[end]] for end in ("src", "dst")} for c in data["topology"]]
    binding = msgspec.to_builtins(widowx)
    binding["regions"] = {renamed[name]: region for name, region in binding["regions"].items()}
    named = binding_from_yaml(yaml.safe_dump(binding))
    model = build(CanvasSchema.from_dict(data), named, bridge)
    inputs = ModelInputs(
        {"arm.eye": torch.zeros(1, 1, 8, 8, 8)},
        {"arm.state é": torch.zeros(1, 2, 8)},
        torch.zeros(1, 128, 64),
    )
    with torch.no_grad():
        assert model(model.rows(inputs)).shape == (1, 4, 7)


def test_a_schema_of_another_width_is_refused(small_schema, widowx, bridge):
    data = small_schema().to_dict()
    data["layout"]["d_model"] = 64
    with pytest.raises(ModelError) as error:
        build(CanvasSchema.from_dict(data), widowx, bridge)
    assert str(error.value) == (
        "schema: expected d_model 128, the width of backbone 'tiny', got 64; "
        "choose the schema made for this backbone"
    )


def test_another_framing_is_refused(small_schema, widowx, bridge):
    data = small_schema().to_dict()
    data["metadata"]["framing"] = "causal"
    with pytest.raises(ModelError) as error:
        build(CanvasSchema.from_dict(data), widowx, bridge)
    assert str(error.value) == ("schema: metadata.framing: this version runs 'image', got 'causal'")


def test_missing_statistics_and_those_of_another_size_are_refused(small_schema, widowx, bridge):
    with pytest.raises(StatisticsError) as error:
        build(small_schema(), widowx, {"action": bridge["action"]})
    assert str(error.value) == (
        "statistics: region 'proprio' needs those of signal 'state'; there are ['action']"
    )
    six = type(bridge["state"])(
        **{field: getattr(bridge["state"], field)[:6] for field in ("mean", "std", "q01", "q99")}
    )
    with pytest.raises(StatisticsError) as error:
        build(small_schema(), widowx, {**bridge, "state": six})
    assert str(error.value) == "statistics of 'state': expected 7 components, got 6"
