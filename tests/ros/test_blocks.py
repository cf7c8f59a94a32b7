"""Laws of Blocks: which of the reasons that stand is told, and through which the arm is led."""

import pytest

from canvas_robot.ros.blocks import LED_THROUGH, Blocks
from canvas_robot.ros.decisions import HoldReason


def blocked_by(*reasons: HoldReason) -> Blocks:
    blocks = Blocks()
    for reason in reasons:
        blocks.add(reason, f"words of {reason}")
    return blocks


def test_the_last_that_came_is_told_also_where_it_came_before():
    blocks = blocked_by(HoldReason.DEADMAN, HoldReason.STOPPED)
    assert blocks.foremost == (HoldReason.STOPPED, "words of stopped")
    blocks.add(HoldReason.DEADMAN, "again")
    assert blocks.foremost == (HoldReason.DEADMAN, "again")
    blocks.remove(HoldReason.DEADMAN)
    assert blocks.foremost == (HoldReason.STOPPED, "words of stopped")
    blocks.remove(HoldReason.STOPPED)
    assert blocks.foremost is None


def test_other_words_move_no_reason():
    blocks = blocked_by(HoldReason.DEADMAN, HoldReason.STOPPED)
    blocks.retell(HoldReason.DEADMAN, "other words")
    assert blocks.foremost == (HoldReason.STOPPED, "words of stopped")
    assert blocks[HoldReason.DEADMAN] == "other words"


@pytest.mark.parametrize("later", [reason for reason in HoldReason if reason != "estop"])
def test_an_emergency_stop_is_told_before_all_that_came_later(later):
    assert blocked_by(HoldReason.ESTOP, later).foremost[0] == HoldReason.ESTOP


@pytest.mark.parametrize("reason", HoldReason)
def test_the_arm_is_led_through_what_people_ask_for_and_through_nothing_else(reason):
    against = blocked_by(HoldReason.STOPPED, reason).against_leading
    assert against == ("" if reason in LED_THROUGH else f"{reason}: words of {reason}")


def test_the_first_reason_to_deactivate_is_kept_and_nobody_leads_the_arm():
    blocks = Blocks()
    blocks.end(HoldReason.BAD_INPUT, "cannot be read")
    blocks.end(HoldReason.INTERNAL_ERROR, "later")
    assert blocks.ended == (HoldReason.BAD_INPUT, "cannot be read")
    assert blocks.against_leading == "the node deactivates itself: bad_input: cannot be read"


def test_all_that_stands_is_taken_over_but_a_hand_that_led_the_arm():
    old = blocked_by(HoldReason.HOME, HoldReason.STOPPED, HoldReason.TELEOPERATED)
    old.end(HoldReason.BAD_INPUT, "cannot be read")
    new = blocked_by(HoldReason.DRIVER)
    new.take_over(old.copy())
    assert new.ended == old.ended
    assert new.foremost == (HoldReason.STOPPED, "words of stopped")
    assert HoldReason.DRIVER in new and HoldReason.HOME in new
    assert HoldReason.TELEOPERATED not in new


def test_a_copy_is_what_stood_then():
    blocks = blocked_by(HoldReason.STOPPED)
    copied = blocks.copy()
    blocks.remove(HoldReason.STOPPED)
    blocks.end(HoldReason.BAD_INPUT, "cannot be read")
    assert copied.foremost == (HoldReason.STOPPED, "words of stopped") and copied.ended is None
