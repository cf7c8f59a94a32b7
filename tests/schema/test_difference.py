"""Laws of compare: equal means equal, and the verdict is what the model's own weights say."""

import copy
import json
from collections import Counter

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.policy.model import CanvasModel
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.schema.difference import (
    _SHAPING_OPTIONS,
    DOES_NOT_FIT,
    FITS,
    OTHER_FUNCTION,
    Change,
    Difference,
    compare,
)
from canvas_robot.schema.edge_options import EdgeOptions
from canvas_robot.signals import load_binding, load_statistics
from canvas_robot.signals.binding import binding_from_yaml

BASE = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
BINDING = load_binding(config_path("bindings", "widowx.yaml"))
STATISTICS = load_statistics(config_path("statistics", "bridge_v2.json"))


def changed(change, base=BASE):
    data = copy.deepcopy(base)
    change(data)
    return CanvasSchema.from_dict(data)


def set_region(name, **fields):
    return lambda data: data["regions"][name].update(fields)


def set_connection(index, **fields):
    return lambda data: data["topology"][index].update(fields)


def own_shapes(schema, binding=BINDING):
    """What a checkpoint of the schema holds: the shape of each of the model's own weights."""
    torch.set_num_threads(1)
    model = CanvasModel(schema, binding, STATISTICS, load_backbone("tiny"), loops=2)
    return {name: tuple(p.shape) for name, p in model.own_parameters().items()}


@pytest.fixture(scope="module")
def base_shapes():
    return own_shapes(CanvasSchema.from_dict(BASE))


WITH_MODEL = {
    "period": (set_region("visual", period=2), OTHER_FUNCTION),
    "timestep": (set_region("action", timestep=500), OTHER_FUNCTION),
    "tokens of a vector": (set_region("proprio", bounds=[0, 2, 16, 17, 4, 6]), DOES_NOT_FIT),
    "past of a vector": (set_region("proprio", bounds=[1, 2, 16, 17, 0, 1]), OTHER_FUNCTION),
    "tokens of the action": (set_region("action", bounds=[1, 5, 16, 17, 1, 5]), OTHER_FUNCTION),
    "horizon": (set_region("action", bounds=[1, 4, 16, 17, 1, 3]), OTHER_FUNCTION),
    "place": (set_region("action", bounds=[1, 5, 16, 17, 6, 8]), OTHER_FUNCTION),
    "place of the goal": (
        lambda data: (
            data["layout"].update(H=20),
            data["regions"]["goal"].update(bounds=[0, 4, 18, 20, 0, 16]),
        ),
        FITS,
    ),
    "order": (
        lambda data: data.update(regions=dict(reversed(data["regions"].items()))),
        OTHER_FUNCTION,
    ),
    "one connection less": (lambda data: data["topology"].pop(), OTHER_FUNCTION),
    "the same again": (lambda data: data["topology"].append(data["topology"][0]), FITS),
    "weight": (set_connection(5, weight=0.5), OTHER_FUNCTION),
    "another type": (set_connection(6, fn="gated"), DOES_NOT_FIT),
    "an edge more": (
        lambda data: data["topology"].append({"src": "action", "dst": "goal", "fn": "pooling"}),
        DOES_NOT_FIT,
    ),
    "grid": (lambda data: data["layout"].update(T=9, W=32), FITS),
    "loss weight": (set_region("action", loss_weight=2.0), FITS),
    "words": (set_region("proprio", semantic_type="a pose"), FITS),
    "metadata": (lambda data: data["metadata"].update(author="me"), FITS),
}


@pytest.mark.parametrize("change, verdict", WITH_MODEL.values(), ids=WITH_MODEL)
def test_the_verdict_agrees_with_the_shapes_of_the_models_own_weights(change, verdict, base_shapes):
    schema = changed(change)
    difference = compare(CanvasSchema.from_dict(BASE), schema)
    assert difference.verdict == verdict
    assert difference.changes and all(difference.reasons)
    assert (own_shapes(schema) == base_shapes) == (verdict != DOES_NOT_FIT)


def with_codec(region, codec, bounds=None):
    """The binding with another codec for a region, and a schema that has this region."""
    binding = yaml.safe_load(BINDING.to_yaml())
    fields = {"codec": codec}
    if codec == "reward":
        progress = {"kind": "vector", "names": ["progress"], "units": ["1"], "low": [0.0]}
        binding["signals"]["progress"] = {**progress, "high": [1.0], "frame": "task"}
        fields["signal"] = "progress"
    elif codec == "action_diffusion":
        fields["signal"] = "action"
    binding["regions"][region] = fields
    data = copy.deepcopy(BASE)
    if bounds is not None:
        data["regions"][region] = {"bounds": bounds}
        data["topology"].append({"src": region, "dst": "visual"})
    return binding_from_yaml(yaml.safe_dump(binding)), data


THOUGHT = with_codec("plan", "thought", bounds=[1, 2, 16, 17, 4, 8])
REWARD = with_codec("progress", "reward", bounds=[1, 5, 16, 17, 4, 5])
DIFFUSED = with_codec("action", "action_diffusion")
THOUGHT_PLAN, PROGRESS, CHUNK = (THOUGHT, "plan"), (REWARD, "progress"), (DIFFUSED, "action")
WITH_CODECS = {
    "tokens of a thought": (*THOUGHT_PLAN, [1, 2, 16, 17, 4, 9], DOES_NOT_FIT),
    "steps of a thought": (*THOUGHT_PLAN, [0, 2, 16, 17, 4, 8], DOES_NOT_FIT),
    "form of a thought": (*THOUGHT_PLAN, [0, 2, 16, 17, 4, 6], OTHER_FUNCTION),
    "place of a thought": (*THOUGHT_PLAN, [2, 3, 16, 17, 4, 8], OTHER_FUNCTION),
    "tokens of a reward": (*PROGRESS, [1, 5, 16, 17, 4, 6], DOES_NOT_FIT),
    "steps of a reward": (*PROGRESS, [1, 4, 16, 17, 4, 5], DOES_NOT_FIT),
    "place of a reward": (*PROGRESS, [1, 5, 16, 17, 9, 10], OTHER_FUNCTION),
    "steps of a diffused action": (*CHUNK, [1, 4, 16, 17, 1, 3], DOES_NOT_FIT),
    "tokens of a diffused step": (*CHUNK, [1, 5, 16, 17, 1, 5], OTHER_FUNCTION),
}


@pytest.mark.parametrize("base, region, bounds, verdict", WITH_CODECS.values(), ids=WITH_CODECS)
def test_the_verdict_knows_what_each_codecs_weights_fix(base, region, bounds, verdict):
    binding, data = base
    first = CanvasSchema.from_dict(data)
    second = changed(set_region(region, bounds=bounds), data)
    codecs = {name: bound.codec for name, bound in binding.regions.items()}
    assert compare(first, second, codecs).verdict == verdict
    same = own_shapes(first, binding) == own_shapes(second, binding)
    assert same == (verdict != DOES_NOT_FIT)


WITHOUT_MODEL = {
    "width": (lambda data: data["layout"].update(d_model=64), DOES_NOT_FIT),
    "now": (lambda data: data["layout"].update(t_current=2), OTHER_FUNCTION),
    "framing": (lambda data: data["metadata"].update(framing="causal"), OTHER_FUNCTION),
    "framing spelled out": (lambda data: data["metadata"].pop("framing"), FITS),
    "stream": (set_region("goal", stream="video"), OTHER_FUNCTION),
    "default type, named everywhere": (set_region("goal", default_attn="cross_attention"), None),
    "default type": (set_region("proprio", default_attn="mamba"), DOES_NOT_FIT),
    "region more": (
        lambda data: data["regions"].update(reward={"bounds": [1, 2, 16, 17, 8, 9]}),
        DOES_NOT_FIT,
    ),
    "region less": (
        lambda data: (
            data["regions"].pop("proprio"),
            data.update(topology=[c for c in data["topology"] if "proprio" not in c.values()]),
        ),
        DOES_NOT_FIT,
    ),
    "overlap": (set_region("proprio", bounds=[0, 2, 0, 1, 0, 1]), DOES_NOT_FIT),
}


@pytest.mark.parametrize("change, verdict", WITHOUT_MODEL.values(), ids=WITHOUT_MODEL)
def test_the_verdict_says_what_a_change_means(change, verdict):
    difference = compare(CanvasSchema.from_dict(BASE), changed(change))
    assert difference.verdict == (verdict or FITS)
    assert bool(difference.changes) == (verdict is not None)


@given(st.data())
def test_a_schema_equals_itself_and_its_copy_from_json(strategies, data):
    schema = data.draw(strategies["any_schemas"])
    again = CanvasSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    overlaps = [c for c in compare(schema, again).changes if c.where == "plan"]
    assert compare(schema, again).changes == tuple(overlaps)


def test_a_pure_renaming_fits_and_says_what_else_to_rename():
    text = json.dumps(BASE).replace('"proprio"', '"arm.state"')
    difference = compare(CanvasSchema.from_dict(BASE), CanvasSchema.from_dict(json.loads(text)))
    assert difference.verdict == FITS
    assert [(c.where, c.what) for c in difference.changes] == [
        ("region 'proprio'", "renamed to 'arm.state'")
    ]
    assert "binding" in difference.reasons[0]


def test_a_binding_tells_a_camera_from_a_vector():
    first = CanvasSchema.from_dict(BASE)
    second = changed(set_region("visual", bounds=[1, 2, 0, 8, 0, 16]))
    codecs = {name: bound.codec for name, bound in BINDING.regions.items()}
    guessed, known = compare(first, second), compare(first, second, codecs)
    assert guessed.verdict == DOES_NOT_FIT and "unless a camera fills it" in guessed.reasons[0]
    assert known.verdict == OTHER_FUNCTION
    second = changed(set_region("proprio", bounds=[0, 2, 16, 17, 4, 6]))
    assert compare(first, second, codecs).verdict == DOES_NOT_FIT


def with_edges(*edges, **metadata):
    def change(data):
        data["topology"] += [{"src": "action", "dst": dst, "fn": fn} for dst, fn in edges]
        data["metadata"].update(metadata)

    return changed(change)


def test_residual_edges_in_another_order_get_one_anothers_weights():
    first = with_edges(("goal", "gated"), ("proprio", "gated"))
    assert compare(first, with_edges(("proprio", "gated"), ("goal", "gated"))).verdict == (
        OTHER_FUNCTION
    )
    first = with_edges(("goal", "gated"), ("proprio", "pooling"))
    assert compare(first, with_edges(("proprio", "pooling"), ("goal", "gated"))).verdict == (
        DOES_NOT_FIT
    )


def test_options_that_size_weights_decide_only_where_their_type_is_used():
    plain, perceiver = with_edges(), with_edges(("goal", "perceiver"))
    few = {"attention": {"latents": 8}}
    assert compare(perceiver, with_edges(("goal", "perceiver"), **few)).verdict == DOES_NOT_FIT
    assert compare(plain, with_edges(**few)).verdict == FITS
    other = {"attention": {"top_k": 8}}
    assert compare(perceiver, with_edges(("goal", "perceiver"), **other)).verdict == OTHER_FUNCTION
    default = {"attention": {"latents": 32}}
    assert compare(perceiver, with_edges(("goal", "perceiver"), **default)).verdict != DOES_NOT_FIT


def test_an_option_that_is_written_down_with_its_default_changes_nothing():
    for name, fn in _SHAPING_OPTIONS.items():
        plain, written = with_edges(("goal", fn)), with_edges(("goal", fn))
        written.metadata["attention"] = {name: getattr(EdgeOptions(), name)}
        assert compare(plain, written).verdict == FITS


def test_another_sharpening_is_another_function():
    sharper = with_edges(sharpening={"beta_max": 2.0})
    assert compare(with_edges(), sharper).verdict == OTHER_FUNCTION


def test_ten_thousand_connections_are_compared_with_one_look_at_each(monkeypatch):
    looks = Counter()
    reading = Difference.verdict.fget
    monkeypatch.setattr(
        Difference, "verdict", property(lambda self: looks.update(["verdict"]) or reading(self))
    )
    changes = tuple(Change("connection", "removed", FITS, str(i)) for i in range(10_000))
    assert len(Difference(changes).reasons) == 10_000
    assert looks["verdict"] == 1


def test_a_schema_that_does_not_compile_is_named_as_the_first_or_the_second():
    twice = changed(set_region("proprio", bounds=BASE["regions"]["action"]["bounds"]))
    for pair, which in (((twice, with_edges()), "first"), ((with_edges(), twice), "second")):
        (plan,) = [c for c in compare(*pair).changes if c.where == "plan"]
        assert plan.reason.startswith(f"the {which} schema: regions ")


def test_time_offsets_reach_other_steps_on_a_longer_canvas():
    def offset(data):
        data["topology"].append({"src": "action", "dst": "proprio", "t_src": 4, "t_dst": 0})

    def longer(data):
        offset(data)
        data["layout"]["T"] = 5

    assert compare(changed(offset), changed(longer)).changes == ()

    def longest(data):
        offset(data)
        data["layout"]["T"] = 9

    difference = compare(changed(offset), changed(longest))
    assert {c.where for c in difference.changes} == {"layout"}
