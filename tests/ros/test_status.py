"""Laws of what the node says about itself: values come back as they were."""

import dataclasses

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from canvas_robot.ros.decisions import Decision, HoldReason, InstructionState
from canvas_robot.ros.messages import values_from_msg
from canvas_robot.ros.status import Identity, decision_status, going_on_from, loop_status
from canvas_robot.signals import ActionChunk, GoingOn

IDENTITY = Identity("policy", "wx250s", "ee_gripper_link", 5.0, True, 1, "visual")


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


def test_missed_ticks_are_a_warning_with_a_remedy_unless_there_is_worse():
    def loop(decision: Decision, late: int) -> DiagnosticStatus:
        return loop_status(IDENTITY, decision, InstructionState(0, ""), {}, 2.5, late)

    going, held = Decision(3, 0), Decision(3, 0, reason=HoldReason.STOPPED, detail="by ~/stop")
    assert loop(going, 0).level == DiagnosticStatus.OK
    assert loop(going, 3).level == DiagnosticStatus.WARN
    assert loop(going, 3).message.startswith("3 control ticks of 0.2 s were missed; ")
    assert loop(held, 3).message == "holding: stopped: by ~/stop"
    values = values_from_msg(loop(going, 0))
    assert (values["Actual frequency (Hz)"], values["Target frequency (Hz)"]) == (2.5, 5.0)


def test_two_nodes_are_told_apart_by_their_namespaces():
    left = dataclasses.replace(IDENTITY, node="left/policy")
    told = [loop_status(one, None, InstructionState(0, ""), {}, 0.0, 0) for one in (IDENTITY, left)]
    assert [status.name for status in told] == ["policy: control loop", "left/policy: control loop"]
