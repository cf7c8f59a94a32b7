"""Laws of RegionSpec and the function types: a wrong declaration is refused, and says why."""

import dataclasses
import math

import numpy as np
import pytest

from canvas_robot.schema import (
    ATTENTION_TYPES,
    CanvasLayout,
    CanvasTopology,
    Connection,
    RegionError,
    RegionSpec,
    TopologyError,
    UnknownAttentionTypeError,
)

BOX = (0, 2, 0, 3, 0, 4)


def test_size_and_number_of_cells_follow_the_bounds():
    region = RegionSpec((1, 3, 2, 5, 0, 4))
    assert region.size == (2, 3, 4)
    assert region.numel == 24


def test_lists_become_tuples_so_that_a_region_is_a_value():
    region = RegionSpec([0, 2, 0, 3, 0, 4], semantic_embedding=[0.5, 1.0])
    assert region == RegionSpec(BOX, semantic_embedding=(0.5, 1.0))
    assert hash(region) == hash(RegionSpec(BOX, semantic_embedding=(0.5, 1.0)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        region.period = 2


@pytest.mark.parametrize(
    "bounds, text",
    [
        (
            (0, 1, 0, 1),
            "bounds: expected six ints (t0, t1, h0, h1, w0, w1), got (0, 1, 0, 1)",
        ),
        (
            (0, 1.0, 0, 1, 0, 1),
            "bounds: expected six ints (t0, t1, h0, h1, w0, w1), got (0, 1.0, 0, 1, 0, 1)",
        ),
        (
            (0, True, 0, 1, 0, 1),
            "bounds: expected six ints (t0, t1, h0, h1, w0, w1), got (0, True, 0, 1, 0, 1)",
        ),
        ((1, 1, 0, 1, 0, 1), "bounds: expected 0 <= t0 < t1 (half open), got t0=1, t1=1"),
        ((0, 1, 3, 2, 0, 1), "bounds: expected 0 <= h0 < h1 (half open), got h0=3, h1=2"),
        ((0, 1, 0, 1, -1, 1), "bounds: expected 0 <= w0 < w1 (half open), got w0=-1, w1=1"),
    ],
)
def test_wrong_bounds_are_refused(bounds, text):
    with pytest.raises(RegionError) as error:
        RegionSpec(bounds)
    assert str(error.value) == text


@pytest.mark.parametrize(
    "change, text",
    [
        ({"period": 0}, "period: expected an int >= 1 (control ticks), got 0"),
        ({"period": 1.5}, "period: expected an int >= 1 (control ticks), got 1.5"),
        ({"period": True}, "period: expected an int >= 1 (control ticks), got True"),
        ({"loss_weight": -0.5}, "loss_weight: expected a number from 0 to 1e+30, got -0.5"),
        ({"loss_weight": float("nan")}, "loss_weight: expected a number from 0 to 1e+30, got nan"),
        ({"loss_weight": float("inf")}, "loss_weight: expected a number from 0 to 1e+30, got inf"),
        ({"stream": "audio"}, "stream: expected one of ('video', 'text'), got 'audio'"),
        ({"timestep": -1}, "timestep: expected an int >= 0 (0 is clean), got -1"),
        ({"timestep": 1.0}, "timestep: expected an int >= 0 (0 is clean), got 1.0"),
    ],
)
def test_wrong_fields_are_refused(change, text):
    with pytest.raises(RegionError) as error:
        RegionSpec(BOX, **change)
    assert str(error.value) == text


def test_there_are_sixteen_function_types_and_each_says_what_it_computes():
    assert len(ATTENTION_TYPES) == 16
    for name, kind in ATTENTION_TYPES.items():
        assert name == name.lower() and kind.family and kind.cost and kind.meaning
    for name in ATTENTION_TYPES:
        assert RegionSpec(BOX, default_attn=name).default_attn == name
        assert Connection("a", "b", fn=name).fn == name


def test_an_unknown_function_type_is_refused_with_those_that_there_are():
    names = ", ".join(ATTENTION_TYPES)
    with pytest.raises(UnknownAttentionTypeError) as error:
        RegionSpec(BOX, default_attn="atention")
    assert str(error.value) == f"default_attn: expected one of {names}; got 'atention'"
    with pytest.raises(UnknownAttentionTypeError) as error:
        Connection("a", "b", fn="mambo")
    assert str(error.value) == f"connection 'a' -> 'b': expected one of {names}; got 'mambo'"


@pytest.mark.parametrize(
    "weight", [-1.0, float("nan"), float("inf"), 1e31, 1e-31, 5e-324, 10**400, True, "1", None]
)
def test_a_weight_that_float32_cannot_multiply_or_whose_logarithm_it_cannot_hold_is_refused(weight):
    with pytest.raises(TopologyError) as error:
        Connection("a", "b", weight=weight)
    text = str(error.value)
    assert text.startswith(
        "connection 'a' -> 'b': weight: expected 0 or a number from 1e-30 to 1e+30, got "
    )
    assert len(text) < 300


@pytest.mark.parametrize("weight", [0, 0.0, 1e-30, 0.5, 1, 1e30])
def test_every_weight_of_that_range_gives_a_finite_mask_above_0_where_it_is_an_edge(weight):
    layout = CanvasLayout(1, 1, 1, 8, {"a": (0, 1, 0, 1, 0, 1)})
    mask = CanvasTopology([Connection("a", "a", weight=weight)]).to_attention_mask(layout)
    assert math.isfinite(mask.item()) and (mask.item() > 0) == (weight > 0)
    assert weight == 0 or abs(math.log(weight)) < 70


HUGE = 10**400


@pytest.mark.parametrize(
    "change, text",
    [
        ({"is_output": 1}, "is_output: expected true or false, got 1"),
        ({"is_output": "no"}, "is_output: expected true or false, got 'no'"),
        ({"hold": None}, "hold: expected true or false, got None"),
        ({"semantic_type": 5}, "semantic_type: expected words or nothing, got 5"),
        ({"embedding_model": None}, "embedding_model: expected a model's name, got None"),
        ({"embedding_model": ""}, "embedding_model: expected a model's name, got ''"),
        ({"loss_weight": True}, "loss_weight: expected a number from 0 to 1e+30, got True"),
        ({"loss_weight": HUGE}, "loss_weight: expected a number from 0 to 1e+30, got 1000"),
        ({"loss_weight": 10**5000}, "loss_weight: expected a number from 0 to 1e+30, got a too "),
        ({"period": HUGE}, "period: expected at most 2147483647, got 1000"),
        ({"timestep": HUGE}, "timestep: expected at most 2147483647, got 1000"),
        ({"loops": HUGE}, "loops: expected at most 2147483647, got 1000"),
        ({"semantic_embedding": [HUGE]}, "semantic_embedding: expected a list of finite numbers"),
        ({"semantic_embedding": ["1"]}, "semantic_embedding: expected a list of finite numbers"),
        ({"bounds": "abcdef"}, "bounds: expected six ints (t0, t1, h0, h1, w0, w1), got 'abcdef'"),
    ],
)
def test_a_value_of_another_type_or_beyond_all_tensors_is_refused_in_a_short_text(change, text):
    with pytest.raises(RegionError) as error:
        RegionSpec(**{"bounds": BOX} | change)
    assert str(error.value).startswith(text) and len(str(error.value)) < 300


def test_numbers_and_arrays_of_numpy_are_taken_and_kept_as_plain_python():
    region = RegionSpec(
        np.array(BOX),
        period=np.int64(2),
        loss_weight=np.float32(0.5),
        semantic_embedding=np.array([0.5, 1.0], dtype=np.float32),
        timestep=np.uint8(3),
        loops=np.int32(2),
    )
    plain = RegionSpec(
        BOX, period=2, loss_weight=0.5, semantic_embedding=(0.5, 1.0), timestep=3, loops=2
    )
    assert region == plain
    for name in ("period", "loss_weight", "timestep", "loops"):
        assert type(getattr(region, name)) is type(getattr(plain, name))
    assert {type(bound) for bound in region.bounds} == {int}
    assert {type(x) for x in region.semantic_embedding} == {float}
    connection = Connection("a", "b", np.float64(0.5), np.int64(0), np.int8(-1))
    assert connection == Connection("a", "b", 0.5, 0, -1)
    assert [type(getattr(connection, n)) for n in ("weight", "t_src", "t_dst")] == [float, int, int]


@pytest.mark.parametrize("offset", ["now", 1.5, True, HUGE, np.float64(1.0)])
def test_an_offset_that_is_no_number_of_canvas_steps_is_refused(offset):
    with pytest.raises(TopologyError, match="t_dst: expected canvas steps, an int, got"):
        Connection("a", "b", t_dst=offset)
