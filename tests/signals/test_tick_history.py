"""Laws of a history by ticks: a `History` at even stamps, which keeps nothing of a wrong sample."""

import numpy as np
import pytest

from canvas_robot.resources import resolve_config, schema_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import History, NotReadyError, SignalError, TickHistory, load_binding

SCHEMA = CanvasSchema.from_json(schema_path("widowx_tiny.json"))
BINDING = load_binding(resolve_config("bindings", "widowx.yaml"))


def sample(number):
    state = np.full(7, 0.1 * number)
    return {"image": np.full((64, 64, 3), number, np.uint8), "state": state}


def test_each_call_is_the_next_tick_of_a_history():
    ours, plain = TickHistory(SCHEMA, BINDING), History(SCHEMA, BINDING)
    for tick in range(4):
        stamp_ns = (tick + 1) * BINDING.tick_ns
        for signal, value in sample(tick).items():
            plain.push(signal, stamp_ns, value)
        expected, found = plain.observe(tick, stamp_ns), ours.observe(sample(tick))
        assert found.tick == expected.tick == tick
        for region, frames in expected.frames.items():
            assert np.array_equal(found.frames[region].values, frames.values)
            assert np.array_equal(found.frames[region].stamps_ns, frames.stamps_ns)
            assert np.array_equal(found.frames[region].missing, frames.missing)


def test_the_first_tick_needs_every_signal_and_later_ones_do_not():
    history = TickHistory(SCHEMA, BINDING)
    with pytest.raises(NotReadyError, match=r"expected signals \['image'\] too"):
        history.observe({"state": np.zeros(7)})
    history.observe(sample(1))
    assert history.observe({"state": np.zeros(7)}).tick == 1
    history.clear()
    assert history.observe(sample(2)).tick == 0


def test_a_wrong_sample_is_no_tick():
    history = TickHistory(SCHEMA, BINDING)
    with pytest.raises(SignalError):
        history.observe(sample(1) | {"state": np.full(7, np.nan)})
    assert history.observe(sample(1)).tick == 0
