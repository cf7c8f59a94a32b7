"""Laws of outcomes: three protocols, what failed, and no guess where nothing is said."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.evaluation.eval_outcome import Outcome, OutcomeError


def after(*infos, key="", terminated=False) -> Outcome:
    outcome = Outcome(key)
    for number, info in enumerate(infos, start=1):
        outcome.step(info, terminated and number == len(infos))
    return outcome


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_last_any_and_the_first_success_follow_from_the_steps(steps):
    outcome = after(*({"success": step} for step in steps))
    assert outcome.last == steps[-1]
    assert outcome.any == any(steps)
    assert outcome.steps == len(steps)
    assert outcome.steps_to_success == (steps.index(True) + 1 if any(steps) else None)
    assert outcome.held is None
    assert (outcome.failure == "") == steps[-1]


@pytest.mark.parametrize(
    "value", [True, 1, 1.0, np.True_, np.array([1.0]), torch.tensor([True]), torch.tensor(1)]
)
def test_any_kind_of_true_is_true(value):
    assert after({"is_success": value}).last


@pytest.mark.parametrize("value", [2, 0.5, "yes", None, np.array([1, 0]), torch.ones(2), []])
def test_what_is_not_true_or_false_is_refused(value):
    with pytest.raises(OutcomeError, match=r"info\['success'\]: expected true or false, got"):
        after({"success": value})


def test_a_declared_entry_may_lie_deeper():
    assert after({"eval": {"solved": True}, "success": False}, key="eval.solved").last


@pytest.mark.parametrize(
    "key, text",
    [
        ("", r"expected info\['success'\] or info\['is_success'\] after each step"),
        ("solved", r"expected info\['solved'\] after each step"),
        ("time.left", r"expected info\['time.left'\]"),
    ],
)
def test_an_environment_that_says_nothing_is_refused(key, text):
    with pytest.raises(OutcomeError, match=text) as error:
        after({"score": 3, "time": 7}, key=key)
    assert "got info with ['score', 'time']" in str(error.value)
    assert str(error.value).endswith("--success-key KEY")


def test_the_environments_own_count_of_any_and_held_wins():
    outcome = after(
        {"success": False, "success_any": True, "success_held": False},
        {"success": True, "success_any": True, "success_held": True},
    )
    assert outcome.any and outcome.steps_to_success == 1 and outcome.held is True
    assert outcome.failure == ""


FLAGS = {"grasped": False, "moved_correct": False, "moved_wrong": False}


@pytest.mark.parametrize(
    "infos, failure",
    [
        ([{"success": True}, {"success": False}], "succeeded, then lost"),
        ([{"success": True, "success_held": False}], "in place, never let go"),
        ([{"success": False}], "out of steps"),
        ([{"success": False, **FLAGS}], "never grasped"),
        (
            [{"success": False, **FLAGS, "grasped": True}, {"success": False, **FLAGS}],
            "grasped, never in place",
        ),
        ([{"success": False, **FLAGS, "moved_correct": True}], "moved, never grasped"),
        ([{"success": False, **FLAGS, "moved_wrong": True}], "moved another object"),
    ],
)
def test_what_failed_is_named(infos, failure):
    assert after(*infos).failure == failure


def test_an_end_without_success_is_told_from_a_lack_of_steps():
    assert after({"success": False}, terminated=True).failure == "ended by the environment"


def test_stages_are_kept_once_reached():
    outcome = after({"success": False, **FLAGS, "grasped": True}, {"success": False, **FLAGS})
    assert outcome.stages == {"grasped": True, "moved_correct": False, "moved_wrong": False}
