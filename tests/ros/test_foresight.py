"""Laws of foresight: how much it asks for and how often, and what it says of what it gets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from canvas_robot.policy.protocol import Imagined
from canvas_robot.resources import config_path
from canvas_robot.ros.decisions import Decision
from canvas_robot.ros.foresight import EVERY_NS, SHARE, Foresight
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import ActionChunk, Binding, load_binding

TICK_NS = 200_000_000
START_NS = 10**12


@dataclass
class Asked:
    """A policy that has a prediction of its last decision ready every time."""

    schema: CanvasSchema
    binding: Binding
    trained: bool = True
    pieces: int = 1
    tick: int = 0
    seconds: list[float] = field(default_factory=list)

    def imagined(self, seconds: float) -> Imagined | None:
        self.seconds.append(seconds)
        if len(self.seconds) % self.pieces:
            return None
        return Imagined(self.tick, {"future": np.full((2, 8, 8, 3), self.tick, np.uint8)})


def declared(schema: str = "widowx_tiny_video", binding: str = "widowx_video", **future):
    made = CanvasSchema.from_json(config_path("schemas", f"{schema}.json"))
    if future:
        spec = replace(made.layout.region_spec("future"), **future)
        regions = {**made.layout.regions, "future": spec}
        made = replace(made, layout=replace(made.layout, regions=regions))
    return made, load_binding(config_path("bindings", f"{binding}.yaml"))


def decision(tick: int) -> Decision:
    chunk = ActionChunk("action", tick, np.zeros((4, 7), np.float32))
    return Decision(tick, START_NS + tick * TICK_NS, tick=tick, chunk=chunk)


@pytest.mark.parametrize("left_s, given_s", [(0.15, SHARE * 0.2), (0.01, 0.01)])
def test_it_takes_a_small_share_of_a_tick_and_no_more_than_is_left(left_s, given_s):
    policy = Asked(*declared(), pieces=3)
    foresight = Foresight(policy)
    for tick in range(3):
        foresight.go_on(decision(tick), left_s)
    assert policy.seconds == [pytest.approx(given_s)] * 3


def test_where_decisions_leave_nothing_it_asks_for_nothing():
    policy = Asked(*declared())
    foresight = Foresight(policy)
    foresight.go_on(decision(0), 0.0)
    foresight.go_on(decision(1), -0.3)
    assert not policy.seconds and not foresight.shown


def test_a_policy_without_video_to_come_is_never_asked():
    policy = Asked(*declared("widowx_tiny", "widowx"))
    foresight = Foresight(policy)
    foresight.go_on(decision(0), 0.1)
    assert not policy.seconds and not foresight.shown


def test_one_prediction_a_second_is_enough():
    policy = Asked(*declared())
    foresight, asked = Foresight(policy), []
    for tick in range(16):
        policy.tick = tick
        foresight.go_on(decision(tick), 0.1)
        asked.append(len(policy.seconds))
        made = {each.made_ns for each in foresight.shown}
        assert made == {START_NS + tick // 5 * EVERY_NS}
    assert asked == [1 + tick // 5 for tick in range(16)]


@pytest.mark.parametrize("period", [1, 4])
def test_it_says_when_a_picture_was_predicted_and_for_when(period):
    policy = Asked(*declared(period=period), tick=3)
    foresight = Foresight(policy)
    foresight.go_on(decision(3), 0.0)
    foresight.go_on(decision(5), 0.1)  # of the decision two ticks before
    assert not foresight.shown  # which nobody watched
    policy.tick = 5
    foresight.go_on(decision(6), 0.1)
    made_ns = START_NS + 5 * TICK_NS
    ahead = [each.at_ns - made_ns for each in foresight.shown]
    assert ahead == [period * TICK_NS, 2 * period * TICK_NS]
    for each in foresight.shown:
        assert (each.region, each.camera, each.made_ns) == ("future", "visual", made_ns)
        assert (each.picture == 5).all()


def test_what_was_predicted_before_it_forgot_does_not_count():
    policy = Asked(*declared())
    foresight = Foresight(policy)
    foresight.go_on(decision(0), 0.1)
    assert len(foresight.shown) == 2
    foresight.forget()
    assert not foresight.shown
    foresight.go_on(decision(40), 0.1)
    assert not foresight.shown
    policy.tick = 40
    foresight.go_on(decision(41), 0.1)
    assert len(foresight.shown) == 2


@pytest.mark.parametrize(
    "trained, loss_weight, learned", [(True, 0.1, True), (True, 0.0, False), (False, 0.1, False)]
)
def test_it_says_whether_predicting_was_learned(trained, loss_weight, learned):
    foresight = Foresight(Asked(*declared(loss_weight=loss_weight), trained=trained))
    foresight.go_on(decision(0), 0.1)
    assert {each.learned for each in foresight.shown} == {learned}


def test_what_the_policy_raises_is_raised_and_leaves_what_was_shown(monkeypatch):
    policy = Asked(*declared())
    foresight = Foresight(policy)
    foresight.go_on(decision(0), 0.1)
    before = foresight.shown
    monkeypatch.setattr(policy, "imagined", lambda seconds: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        foresight.go_on(decision(9), 0.1)
    assert foresight.shown == before
