"""Laws of metadata: what something computes with is checked with the schema, all else is free."""

import math

import pytest

from canvas_robot.backbone.schedules import SCHEDULES, SharpeningSchedule
from canvas_robot.schema import CanvasLayout, CanvasSchema
from canvas_robot.schema.edge_options import EdgeOptions, EdgeOptionsError, declared_options
from canvas_robot.schema.metadata import SHARPENING_SCHEDULES

OPTIONS = "top_k, window, latents, random_keys, routed_keys, state_size, seed"


def schema(**metadata):
    return CanvasSchema(CanvasLayout(1, 1, 1, 8, {"a": (0, 1, 0, 1, 0, 1)}), metadata=metadata)


def test_words_that_nothing_computes_with_are_free():
    free = {"robot": "arm", "attentions": 5, "notes": [1, {"a": None}], "framing": "causal"}
    assert schema(**free).metadata == free


@pytest.mark.parametrize(
    "attention, text",
    [
        ({"latent": 8}, f"unknown options ['latent']; there are {OPTIONS}"),
        ("dense", f"expected an object with some of {OPTIONS}; got 'dense'"),
        (None, f"expected an object with some of {OPTIONS}; got None"),
        ({"latents": 0}, "latents: expected an int >= 1, got 0"),
        ({"latents": True}, "latents: expected an int >= 1, got True"),
        ({"top_k": "8"}, "top_k: expected an int >= 1, got '8'"),
        ({"routed_keys": 1}, "routed_keys: expected an int >= 2, got 1"),
        ({"window": [1, 2]}, "window: expected three ints >= 0, the radius in t, h and w; got [1"),
        ({"latents": 10**20}, "latents: expected at most 1048576, got 1000"),
        ({"state_size": 1025}, "state_size: expected at most 1024, got 1025"),
        ({"seed": 2**63}, f"seed: expected at most {2**63 - 1}, got {2**63}"),
        ({"window": [1, 2, 10**20]}, "window: expected radii of at most 1048576, got [1, 2, 1"),
        ({"window": 5}, "window: expected three ints >= 0, the radius in t, h and w; got 5"),
    ],
)
def test_options_of_the_function_types_are_refused_even_where_no_connection_has_them(
    attention, text
):
    with pytest.raises(EdgeOptionsError) as error:
        schema(attention=attention)
    assert str(error.value).startswith(f"metadata.attention: {text}")


def test_options_are_read_as_declared_with_defaults_for_the_rest():
    declared = {"latents": 5, "window": [0, 1, 1]}
    assert declared_options({"attention": declared}) == EdgeOptions(latents=5, window=(0, 1, 1))
    assert declared_options({}) == EdgeOptions()


@pytest.mark.parametrize(
    "sharpening, text",
    [
        (5, "expected an object with some of beta_min, beta_max, schedule; got 5"),
        ({"beta": 2}, "expected an object with some of beta_min, beta_max, schedule; got {"),
        ({"schedule": "steep"}, "schedule: expected one of linear, exponential, cosine; got 's"),
        ({"beta_max": "2"}, "beta_max: expected a finite number >= 0, got '2'"),
        ({"beta_max": math.nan}, "beta_max: expected a finite number >= 0, got nan"),
        ({"beta_min": -1}, "beta_min: expected a finite number >= 0, got -1"),
        (
            {"beta_min": 0, "schedule": "exponential"},
            "beta_min: expected a finite number > 0, got 0",
        ),
    ],
)
def test_sharpening_that_no_schedule_could_follow_is_refused(sharpening, text):
    with pytest.raises(ValueError) as error:
        schema(sharpening=sharpening)
    assert str(error.value).startswith(f"metadata.sharpening: {text}")
    with pytest.raises((TypeError, ValueError)):
        SharpeningSchedule(**sharpening)


def test_what_is_accepted_makes_a_schedule():
    assert SHARPENING_SCHEDULES == SCHEDULES
    for name in SHARPENING_SCHEDULES:
        declared = {"beta_min": 0.5, "beta_max": 2, "schedule": name}
        assert SharpeningSchedule(**schema(sharpening=declared).metadata["sharpening"])(0) == 0.5
