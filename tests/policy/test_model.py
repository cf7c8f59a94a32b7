"""Laws of CanvasModel: native rows are the backbone's own; nothing leaks; misfits are refused."""

from typing import ClassVar

import msgspec
import numpy as np
import pytest
import torch
import yaml

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.policy.checkpoint import load_checkpoint, save_checkpoint
from canvas_robot.policy.codecs.codec import Codec
from canvas_robot.policy.codecs.registry import CODECS
from canvas_robot.policy.model import CanvasModel, ModelError, ModelInputs
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import (
    GoingOn,
    History,
    StatisticsError,
    VectorSignal,
    binding_from_yaml,
)
from canvas_robot.signals.codecs import CODEC_DECLARATIONS, RegionBinding

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
    return random_inputs()


def random_inputs() -> ModelInputs:
    return {
        "visual": torch.randn(1, 1, 8, 32, 32),
        "proprio": torch.randn(1, 2, 8),
        "goal": torch.randn(1, 128, 64),
        "action": torch.empty(1, 0),
    }


def rows_of(model, region):
    placed = model.plan.region(region)
    return slice(placed.start, placed.stop)


def test_visual_and_goal_rows_are_exactly_what_the_backbones_own_embedding_gives(model, inputs):
    with torch.no_grad():
        rows = model.rows(inputs)
        joint = model.runner.transformer.patch_embed(inputs["goal"], inputs["visual"])
    assert rows.shape == (1, model.plan.n_rows, 128)
    assert torch.equal(rows[:, rows_of(model, "goal")], joint[:, :128])
    assert torch.equal(rows[:, rows_of(model, "visual")], joint[:, 128:])


def test_the_other_rows_lie_on_empty_token_position_and_modality(model, inputs):
    with torch.no_grad():
        rows, canvas = model.rows(inputs), model.canvas
        below = canvas.empty_token + canvas.positions
        for region, embedded in (
            ("proprio", model.codec("proprio").embed(inputs["proprio"])),
            ("action", torch.zeros(1, 8, 128)),
        ):
            cells = list(model.plan.region(region).cells)
            modality = canvas.modality[list(canvas.layout.regions).index(region)]
            expected = below[cells] + embedded + modality
            torch.testing.assert_close(rows[:, rows_of(model, region)], expected)


@pytest.mark.parametrize("regions", [["action"], ["visual", "proprio"], ["goal"], []])
def test_tokens_of_some_regions_are_those_of_the_whole_canvas(model, inputs, regions):
    with torch.no_grad():
        rows = model.rows(inputs)
        some = model.tokens({region: inputs[region] for region in regions})
    assert list(some) == regions
    for region in regions:
        assert torch.equal(some[region], rows[:, rows_of(model, region)])


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
    second = random_inputs()
    both = {region: torch.cat([inputs[region], second[region]]) for region in inputs}
    with torch.no_grad():
        together = model(model.rows(both))
        alone = torch.cat([model(model.rows(each)) for each in (inputs, second)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def first_frames(policy, samples):
    """What the history shows at the first tick."""
    history = History(policy.schema, policy.binding)
    for signal in history.signals:
        history.push(signal, 1, samples(0)[signal])
    return history.observe(0, 1).frames


def test_some_regions_are_encoded_as_all_are(make_policy, samples):
    policy = make_policy(visual_steps=2)
    model, frames = policy.model, first_frames(policy, samples)
    whole = model.encode(frames, "lift")
    assert {name: tuple(value.shape) for name, value in whole.items()} == {
        "visual": (1, 2, 8, 8, 8),
        "goal": (1, 128, 64),
        "proprio": (1, 2, 8),
        "action": (1, 0),
    }
    some = model.encode({"proprio": frames["proprio"]}, "lift", regions=["action", "proprio"])
    assert list(some) == ["action", "proprio"]
    assert all(torch.equal(some[region], whole[region]) for region in some)


def test_a_checkpoint_holds_everything_that_is_not_the_frozen_backbone(model):
    own = model.own_parameters()
    prefixes = {name.split(".")[0] for name in own}
    assert prefixes == {"codecs", "canvas", "runner"}
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
    assert not any(model.own_parameters()[name].requires_grad for name in unreached)
    model.zero_grad()


def build(schema, binding, statistics) -> CanvasModel:
    return CanvasModel(schema, binding, statistics, load_backbone("tiny"), loops=1)


def with_second_camera(schema: CanvasSchema, binding, **options):
    """The two, with a region `wrist` that shows the same camera's picture in 2 x 4 patches."""
    data, bound = schema.to_dict(), msgspec.to_builtins(binding)
    data["layout"]["H"] += 2
    h = data["layout"]["H"]
    data["regions"]["wrist"] = {"bounds": [1, 2, h - 2, h, 0, 4]}
    data["topology"].append({"src": "action", "dst": "wrist"})
    bound["regions"]["wrist"] = {"signal": "image", "codec": "visual"}
    for region, given in options.items():
        bound["regions"][region] |= given
    return CanvasSchema.from_dict(data), binding_from_yaml(yaml.safe_dump(bound))


def test_each_camera_is_embedded_as_a_video_of_its_own(small_schema, widowx, bridge):
    model = build(*with_second_camera(small_schema(), widowx), bridge)
    inputs = {
        "visual": torch.randn(2, 1, 8, 8, 8),
        "wrist": torch.randn(2, 1, 8, 4, 8),
        "goal": torch.randn(2, 128, 64),
        "proprio": torch.randn(2, 2, 8),
        "action": torch.empty(2, 0),
    }
    embed = model.runner.transformer.patch_embed
    with torch.no_grad():
        tokens = model.tokens(inputs)
        for camera in ("visual", "wrist"):
            joint = embed(inputs["goal"], inputs[camera])
            assert torch.equal(tokens["goal"], joint[:, :128])
            assert torch.equal(tokens[camera], joint[:, 128:])
        assert model(model.rows(inputs)).shape == (2, 4, 7)


def test_regions_that_show_one_camera_at_one_size_share_its_encoded_frames(
    small_schema, widowx, bridge, samples
):
    schema, binding = with_second_camera(small_schema(), widowx)
    data = schema.to_dict()
    data["layout"]["H"] += 2
    data["regions"]["wrist"]["bounds"] = [1, 2, 7, 11, 0, 4]  # now as large as `visual`
    policies = [
        CanvasPolicy.untrained(one, binding, bridge, loops=1)
        for one in (schema, CanvasSchema.from_dict(data))
    ]
    calls = []
    for policy, encoded in zip(policies, (4, 2), strict=True):
        calls.clear()
        encoder = policy.model.codec("visual").encoder
        assert policy.model.codec("wrist").encoder is encoder, "one for all cameras"
        encoder.register_forward_hook(lambda *_: calls.append(1))
        policy.reset("lift")
        for tick in range(2):
            policy.act(samples(tick))
        assert len(calls) == encoded


class EchoBinding(
    RegionBinding,
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="codec",
    tag="echo",
):
    """Declaration of a codec that this file adds; it makes fewer tokens than its region holds."""

    signal: str
    tokens: int = 1
    signal_kind: ClassVar = VectorSignal
    role: ClassVar = "frames"


class EchoCodec(Codec):
    """Repeats the mean of the newest frame in each token."""

    def __init__(self, token_count: int, width: int) -> None:
        super().__init__()
        self.token_count, self.width = token_count, width

    @classmethod
    def build(cls, site):
        return cls(site.bound.tokens, site.width)

    def encode(self, sample, cache=None):
        return torch.from_numpy(sample.values[-1]).mean()[None]

    def embed(self, inputs):
        return inputs[:, :, None].expand(-1, self.token_count, self.width)


def test_a_codec_is_a_class_and_a_declaration_and_no_edit_of_the_model(
    small_schema, widowx, bridge, samples, monkeypatch
):
    monkeypatch.setitem(CODECS, "echo", EchoCodec)
    monkeypatch.setitem(CODEC_DECLARATIONS, "echo", EchoBinding)
    echo = {"codec": "echo", "tokens": 3, "signal": "state"}
    schema, binding = with_second_camera(small_schema(), widowx, wrist=echo)
    assert set(binding.observed_regions()) == {"visual", "proprio", "wrist"}
    policy = CanvasPolicy.untrained(schema, binding, bridge, loops=1)
    wrist = policy.model.plan.region("wrist")
    assert wrist.stop - wrist.start == len(wrist.cells) == 3
    policy.reset("lift")
    first = policy.act(samples(0)).values
    policy.reset("lift")
    assert not np.array_equal(
        policy.act({**samples(0), "state": samples(1)["state"]}).values, first
    )


def with_more_outputs(schema: CanvasSchema, binding):
    """The two, with a thought and a reward that the action reads, and a diffusion head."""
    data, bound = schema.to_dict(), msgspec.to_builtins(binding)
    data["regions"]["thought"] = {"bounds": [0, 2, 4, 5, 4, 6]}
    data["regions"]["reward"] = {"bounds": [1, 5, 4, 5, 6, 7], "timestep": 999}
    data["topology"] += [
        {"src": src, "dst": dst}
        for src, dst in (
            ("action", "thought"),
            ("thought", "thought"),
            ("thought", "visual"),
            ("reward", "visual"),
            ("reward", "reward"),
        )
    ]
    numbers = {"names": ["reward"], "units": ["1"], "low": [0.0], "high": [1.0]}
    bound["signals"]["reward"] = {"kind": "vector", "frame": "none", **numbers}
    bound["regions"]["reward"] = {"codec": "reward", "signal": "reward"}
    bound["regions"]["thought"] = {"codec": "thought"}
    bound["regions"]["action"] |= {"codec": "action_diffusion", "hidden": 16, "steps": 2}
    return CanvasSchema.from_dict(data), binding_from_yaml(yaml.safe_dump(bound))


def test_every_codec_runs_trains_and_comes_back_from_a_checkpoint(
    small_schema, widowx, bridge, samples, tmp_path
):
    schema, binding = with_more_outputs(small_schema(), widowx)
    policy = CanvasPolicy.untrained(schema, binding, bridge, loops=1)
    policy.reset("lift")
    values = policy.act(samples(0)).values
    assert values.shape == (4, 7) and np.isfinite(values).all()

    model = policy.model
    inputs = model.encode(first_frames(policy, samples), "lift")
    out = model.runner(model.rows(inputs))
    for region, targets in (("action", torch.zeros(1, 4, 7)), ("reward", torch.zeros(1, 4, 1))):
        loss = model.codec(region).loss(model.output_tokens(out, region), targets)
        assert loss.shape == (1, 4)
        loss.sum().backward(retain_graph=True)
    codecs = {name: p for name, p in model.own_parameters().items() if name.startswith("codecs.")}
    assert {name.split(".")[1] for name in codecs} == {
        "vector_0",
        "action_diffusion_0",
        "reward_0",
        "thought_0",
    }
    assert all(p.grad.any() for p in codecs.values())

    loaded = load_checkpoint(save_checkpoint(policy, tmp_path / "checkpoint"))
    loaded.reset("lift")
    assert np.array_equal(loaded.act(samples(0)).values, values)


def test_a_diffusion_head_goes_on_with_what_is_carried_out_and_a_regression_passes_it_over(
    small_schema, widowx, bridge, samples
):
    going_on = GoingOn(np.full((2, 7), 0.01, np.float32), 1)
    drawing = CanvasPolicy.untrained(*with_more_outputs(small_schema(), widowx), bridge, loops=1)
    regression = CanvasPolicy.untrained(small_schema(), widowx, bridge, loops=1)

    def decided(policy, *given):
        policy.reset("lift")
        return policy.act(samples(0), *given)

    chunk, again = decided(drawing, going_on), decided(drawing, going_on)
    alone = decided(drawing)
    assert chunk.continues is going_on and alone.continues is None
    assert np.array_equal(chunk.values, again.values)
    assert not np.allclose(chunk.values[0], alone.values[0])
    assert all(p.grad is None for p in drawing.model.parameters())
    passed_over = decided(regression, going_on)
    assert passed_over.continues is None
    assert np.array_equal(passed_over.values, decided(regression).values)


def test_weights_stay_with_their_region_whatever_the_bindings_order(small_schema, widowx, bridge):
    turned = dict(reversed(widowx.regions.items()))
    models = [
        build(small_schema(), msgspec.structs.replace(widowx, regions=regions), bridge)
        for regions in (widowx.regions, turned)
    ]
    names = [set(model.own_parameters()) for model in models]
    assert names[0] == names[1]
    assert [model.codec("proprio") is model.codecs["vector_0"] for model in models] == [True, True]


def test_a_backbone_in_bfloat16_is_given_its_own_precision(small_schema, widowx, bridge):
    backbone = load_backbone("tiny", torch.bfloat16)
    model = CanvasModel(small_schema(), widowx, bridge, backbone, loops=1)
    inputs = random_inputs() | {"visual": torch.randn(1, 1, 8, 8, 8)}
    with torch.no_grad():
        tokens = model.tokens(inputs)
        joint = model.runner.transformer.patch_embed(
            inputs["goal"].bfloat16(), inputs["visual"].bfloat16()
        )
    assert {value.dtype for value in tokens.values()} == {torch.bfloat16}
    assert torch.equal(tokens["goal"], joint[:, :128])
    assert torch.equal(tokens["visual"], joint[:, 128:])


def test_region_names_may_hold_any_characters(small_schema, widowx, bridge):
    data = small_schema().to_dict()
    renamed = {"visual": "arm.eye", "proprio": "arm.state é", "action": "arm.do", "goal": "a/b"}
    data["regions"] = {renamed[name]: region for name, region in data["regions"].items()}
    data["topology"] = [{end: renamed[c[end]] for end in ("src", "dst")} for c in data["topology"]]
    binding = msgspec.to_builtins(widowx)
    binding["regions"] = {renamed[name]: region for name, region in binding["regions"].items()}
    named = binding_from_yaml(yaml.safe_dump(binding))
    model = build(CanvasSchema.from_dict(data), named, bridge)
    inputs = {
        "arm.eye": torch.zeros(1, 1, 8, 8, 8),
        "arm.state é": torch.zeros(1, 2, 8),
        "a/b": torch.zeros(1, 128, 64),
        "arm.do": torch.empty(1, 0),
    }
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
