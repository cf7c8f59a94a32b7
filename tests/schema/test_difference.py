"""Laws of compare: equal means equal, and the verdict is what the model's own weights say."""

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.canvas.attention.functions.interface import EdgeOptions
from canvas_robot.policy.model import CanvasModel
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.schema.difference import (
    _SHAPING_OPTIONS,
    DOES_NOT_FIT,
    FITS,
    OTHER_FUNCTION,
    compare,
)
from canvas_robot.signals import load_binding, load_statistics

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


def own_shapes(schema):
    """What a checkpoint of the schema holds: the shape of each of the model's own weights."""
    torch.set_num_threads(1)
    model = CanvasModel(schema, BINDING, STATISTICS, load_backbone("tiny"), loops=2)
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


def test_the_defaults_of_those_options_are_the_functions_own():
    options = EdgeOptions()
    for name, (_, default) in _SHAPING_OPTIONS.items():
        assert getattr(options, name) == default


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
