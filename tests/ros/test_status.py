"""Laws of what the node says about itself: values come back as they were."""

import numpy as np
import pytest

from canvas_robot.ros.decisions import Decision
from canvas_robot.ros.messages import values_from_msg
from canvas_robot.ros.status import Identity, decision_status, going_on_from
from canvas_robot.signals import ActionChunk, GoingOn

IDENTITY = Identity("wx250s", "ee_gripper_link", 5.0, True, 1, "visual")


def told(continues: GoingOn | None) -> dict:
    chunk = ActionChunk("action", 3, np.zeros((4, 7), np.float32), continues=continues)
    return values_from_msg(decision_status(IDENTITY, Decision(3, 0, chunk=chunk), 0, 0.1, 0))


@pytest.mark.parametrize("count", [1, 3])
def test_what_a_decision_goes_on_with_is_told_bit_for_bit(count):
    rows = np.random.default_rng(0).normal(size=(count, 7)).astype(np.float32)
    said = going_on_from(told(GoingOn(rows, 2)))
    np.testing.assert_array_equal(said.rows, rows)
    assert said.rows.dtype == np.float32 and said.frozen == 2


def test_a_decision_that_goes_on_with_nothing_says_nothing_of_it():
    values = told(None)
    assert going_on_from(values) is None and not any("going_on" in name for name in values)
