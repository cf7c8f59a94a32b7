"""Laws of the tally: each reason, region and stage is counted once for each time it came."""

import numpy as np
import pytest

from canvas_robot.ros.decisions import Decision, HoldReason
from canvas_robot.ros.tally import LATEST_S, STAGES, Tally
from canvas_robot.signals import ActionChunk


def decided(timings_ms=None, **ages) -> Decision:
    chunk = ActionChunk("action", 0, np.zeros((4, 7), np.float32), ages=ages)
    return Decision(0, 0, tick=0, chunk=chunk, timings_ms=timings_ms or {})


def held(reason: HoldReason) -> Decision:
    return Decision(0, 0, reason=reason)


def test_every_reason_has_a_counter_of_how_often_holding_for_it_began():
    tally = Tally(5.0, 50.0)
    stale, estop = HoldReason.STALE_INPUT, HoldReason.ESTOP
    for reason in (stale, stale, estop, stale, None, stale):
        tally.decided(decided() if reason is None else held(reason), 0.1)
    values = tally.values()
    assert {r: values[f"holds.{r}"] for r in HoldReason} == {
        **dict.fromkeys(HoldReason, 0),
        stale: 3,
        estop: 1,
    }
    assert (values["holds"], values["ticks"]) == (5, 1)


def test_a_decision_that_a_hold_interrupts_does_not_make_two_of_it():
    tally = Tally(5.0, 50.0)
    for reason in (HoldReason.STOPPED, HoldReason.INTERRUPTED, HoldReason.STOPPED):
        tally.decided(held(reason), 0.1)
    values = tally.values()
    assert (values["holds.stopped"], values["holds.interrupted"]) == (1, 1)


def test_a_region_is_refreshed_by_the_decisions_that_acted_on_what_is_new():
    tally = Tally(5.0, 50.0)
    for age in (0, 1, 2, 0):
        tally.decided(decided(visual=0, slow=age), 0.1)
    values = tally.values()
    assert (values["refreshes.visual"], values["refreshes.slow"]) == (4, 2)


def test_stages_are_split_so_that_they_add_up_to_the_models_time():
    tally = Tally(5.0, 50.0)
    came = {"poll": 1.0, "assembly": 2.0, "model": 30.0, "squash": 0.5, "codec": 4.0, "forward": 20}
    came |= {"follow": 0.75, "squash_ahead": 1.5}
    for _ in range(3):
        tally.decided(decided(came), 0.25)
    values = tally.values()
    assert [values[f"{stage}_p50_ms"] for stage in STAGES] == [
        *(1.5, 1.0, 2.0, 6.0, 0.5, 4.0, 20.0, 0.75, 0.25)
    ]
    assert all(values[f"{stage}_p99_ms"] == values[f"{stage}_p50_ms"] for stage in STAGES)


def test_shares_are_of_the_latest_commands_and_counts_of_all():
    tally = Tally(5.0, 50.0)
    kept = round(50.0 * LATEST_S)
    for age in (*[1e6] * 10, *range(kept)):
        tally.commanded(float(age))
    tally.commanded(None)
    values = tally.values()
    assert values["commands"] == kept + 11
    assert values["image_age_p50_ms"] == pytest.approx((kept - 1) / 2)
    assert values["image_age_p99_ms"] < kept


def test_before_anything_came_there_are_counts_and_no_shares():
    values = Tally(5.0, 50.0).values()
    assert not any(name.endswith("_ms") for name in values)
    assert not any(values.values())
