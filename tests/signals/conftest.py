"""A small schema with a binding: a camera and a vector, both of any length and period."""

import pytest
from hypothesis import settings

from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasLayout, CanvasSchema, CanvasTopology, RegionSpec
from canvas_robot.signals import load_binding

settings.register_profile("no deadline", deadline=None)  # a busy machine breaks no law
settings.load_profile("no deadline")


def _small_schema(proprio=(1, 1), visual=(1, 1)) -> CanvasSchema:
    now = max(proprio[0], visual[0]) - 1
    layout = CanvasLayout(
        now + 2,
        2,
        2,
        8,
        {
            "visual": RegionSpec((now + 1 - visual[0], now + 1, 0, 1, 0, 1), period=visual[1]),
            "proprio": RegionSpec((now + 1 - proprio[0], now + 1, 0, 1, 1, 2), period=proprio[1]),
            "goal": RegionSpec((0, now + 2, 1, 2, 0, 1), stream="text"),
            "action": RegionSpec((now, now + 2, 1, 2, 1, 2)),
        },
        t_current=now,
    )
    return CanvasSchema(layout, CanvasTopology.dense(list(layout.regions)))


@pytest.fixture(scope="session")
def small_schema():
    """A function of (steps, period) of `proprio` and of `visual` that makes a schema."""
    return _small_schema


@pytest.fixture(scope="session")
def widowx():
    """The shipped binding: 5 control ticks a second; signals `image` and `state`."""
    return load_binding(config_path("bindings", "widowx.yaml"))
