"""Laws of RegionSpec and the function types: a wrong declaration is refused, and says why."""

import dataclasses

import pytest

from canvas_robot.schema import (
    ATTENTION_TYPES,
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
        ({"loss_weight": -0.5}, "loss_weight: expected a finite number >= 0, got -0.5"),
        ({"loss_weight": float("nan")}, "loss_weight: expected a finite number >= 0, got nan"),
        ({"loss_weight": float("inf")}, "loss_weight: expected a finite number >= 0, got inf"),
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


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_negative_or_not_finite_is_refused(weight):
    with pytest.raises(TopologyError) as error:
        Connection("a", "b", weight=weight)
    assert str(error.value) == f"connection 'a' -> 'b': expected a finite weight >= 0, got {weight}"
