"""Laws of executing chunks: which row is taken when, whatever the decisions take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.policy.chunk_execution import (
    EXECUTIONS,
    First,
    RealTimeChunking,
    Receding,
    TemporalEnsemble,
    make_execution,
    soft_mask,
)

HORIZON = 4


def chunk(first: float, step: float = 1.0) -> np.ndarray:
    """Rows first, first + step, ...: of size 2, both the same."""
    return np.float32([[first + step * j] * 2 for j in range(HORIZON)])


def taken(execution, count: int) -> list:
    return [None if (a := execution.step()) is None else float(a[0]) for _ in range(count)]


def test_first_takes_the_first_row_of_each_decision_and_nothing_else():
    execution = First()
    assert execution.at_once and taken(execution, 1) == [None]
    for value in (10.0, 20.0):
        execution.decided(chunk(value), execution.begun)
        assert taken(execution, 2) == [value, None] and execution.wants_decision
    assert execution.begun == 2


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_receding_takes_so_many_rows_then_wants_a_decision(steps):
    execution = Receding(steps)
    assert execution.wants_decision
    execution.decided(chunk(10.0), 0)
    for j in range(steps):
        assert not execution.wants_decision
        assert taken(execution, 1) == [10.0 + j]
    assert execution.wants_decision and taken(execution, 1) == [None]
    execution.decided(chunk(20.0), execution.begun)
    assert taken(execution, 1) == [20.0]


@settings(deadline=None)
@given(st.lists(st.integers(0, HORIZON - 1), min_size=1, max_size=8), st.booleans())
def test_chunks_that_agree_are_executed_as_one_whatever_each_decision_took(delays, continues):
    """Decisions that say of each step its own number: nothing is skipped and nothing repeated.

    Also not while decisions take different times, as long as the old chunk bridges them.
    """
    for execution in (TemporalEnsemble(), RealTimeChunking()):
        execution.decided(chunk(0.0), 0)
        said = taken(execution, 1)
        for delay in delays:
            begun = execution.begun
            during = taken(execution, min(delay, HORIZON - 1))
            execution.decided(chunk(float(begun)), begun, continues)
            said += [*during, *taken(execution, 1)]
        known = [value for value in said if value is not None]
        np.testing.assert_allclose(known, np.arange(len(known)), atol=1e-4)
        assert execution.begun == len(known)


def test_an_ensemble_weighs_the_oldest_most():
    execution = TemporalEnsemble(decay=np.log(2.0))
    execution.decided(np.zeros((HORIZON, 2), np.float32), 0)
    execution.step()
    execution.decided(np.full((HORIZON, 2), 3.0, np.float32), 1)
    assert taken(execution, 1) == [pytest.approx(1.0)]  # (1 x 0 + 1/2 x 3) / (1 + 1/2)
    execution.decided(np.full((HORIZON, 2), 7.0, np.float32), 2)
    assert taken(execution, 1) == [pytest.approx((0.5 * 3 + 0.25 * 7) / 1.75)]


def test_an_ensemble_of_one_is_that_one():
    execution = TemporalEnsemble()
    execution.decided(chunk(5.0), 0)
    assert taken(execution, 5) == [5.0, 6.0, 7.0, 8.0, None]


def test_real_time_chunking_passes_from_the_old_chunk_to_the_new_one():
    """Weights of the old: c (e^c - 1) / (e - 1) of 3/4, 2/4, 1/4; from then on the new alone."""
    execution = RealTimeChunking()
    execution.decided(np.ones((HORIZON, 2), np.float32), 0)
    execution.step()
    execution.decided(np.zeros((HORIZON, 2), np.float32), 1)
    c = np.array([0.75, 0.5, 0.25])
    old = c * (np.exp(c) - 1) / (np.e - 1)
    np.testing.assert_allclose(taken(execution, 4), [*old, 0.0], atol=1e-6)
    assert 0.4 < old[0] < 0.5 and (np.diff(old) < 0).all()


def test_steps_that_began_while_deciding_are_counted_and_not_done_again():
    execution = RealTimeChunking()
    execution.decided(chunk(0.0), 0)
    taken(execution, 1)
    begun = execution.begun
    assert taken(execution, 2) == [1.0, 2.0]
    execution.decided(chunk(100.0), begun)  # of steps 1, 2, 3, 4: 1 and 2 are past
    first, second, none = taken(execution, 3)
    assert 3.0 < first < 102.0 and second == 103.0 and none is None


def test_a_decision_that_comes_after_its_own_chunk_says_nothing():
    execution = RealTimeChunking()
    for _ in range(2):
        execution.decided(chunk(0.0), execution.begun)
        taken(execution, HORIZON)
    execution.decided(chunk(50.0), 0)
    assert taken(execution, 1) == [None]


@given(st.integers(0, 20), st.integers(0, 25))
def test_the_soft_mask_is_equation_5(rows, frozen):
    mask = soft_mask(rows, frozen)
    assert len(mask) == rows and (np.diff(mask) <= 0).all()
    np.testing.assert_array_equal(mask[:frozen], 1.0)
    for i in range(frozen, rows):
        c = (rows - i) / (rows - frozen + 1)
        assert mask[i] == pytest.approx(c * (np.exp(c) - 1) / (np.e - 1), abs=1e-12)
        assert 0.0 < mask[i] < 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, HORIZON), st.booleans()), min_size=1, max_size=8))
def test_what_goes_on_is_what_is_carried_out_if_nothing_is_decided(course):
    """From the step under way on, if that counts as not begun; None once all is carried out."""
    execution, said = RealTimeChunking(), []
    for i, (steps, continues) in enumerate(course):
        execution.decided(chunk(100.0 * i), execution.begun, continues)
        offered = execution.going_on(execution.begun).rows[:, 0]
        done = [value for value in taken(execution, steps) if value is not None]
        said += done
        np.testing.assert_array_equal(offered[: len(done)], np.float32(done))
        for back in (0, 1)[: 1 + bool(said)]:
            going_on = execution.going_on(execution.begun - back)
            left = [*said[len(said) - back :], *offered[len(done) :]]
            if left:
                np.testing.assert_array_equal(going_on.rows[:, 0], np.float32(left))
            else:
                assert going_on is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=8))
def test_chunks_of_a_regression_are_mixed_by_the_steps_counted_and_by_nothing_foretold(course):
    """Bit for bit as written out: what is left of the old, each mixed with its step of the new."""
    execution, left, random = RealTimeChunking(), [], np.random.default_rng(0)
    for during, after in course:
        new = random.normal(size=(HORIZON, 2)).astype(np.float32)
        begun = execution.begun
        for _ in range(during):
            said, expected = execution.step(), left.pop(0) if left else None
            np.testing.assert_array_equal(said, expected)
        passed = execution.begun - begun
        if passed < HORIZON:
            rest = min(len(left), HORIZON - passed)
            mixed = []
            for i in range(HORIZON - passed):
                c = (rest - i) / (rest + 1) if i < rest else 0.0
                w = c * np.expm1(c) / np.expm1(1.0)
                row = new[passed + i]
                mixed.append(np.float32(w * left[i] + (1.0 - w) * row) if i < rest else row)
            left = mixed
        execution.decided(new, begun)
        for _ in range(after):
            said, expected = execution.step(), left.pop(0) if left else None
            np.testing.assert_array_equal(said, expected)


def test_a_chunk_that_was_drawn_to_go_on_is_taken_as_it_is_from_the_steps_counted():
    execution = RealTimeChunking()
    execution.decided(chunk(0.0), 0)
    taken(execution, 1)
    begun = execution.begun
    taken(execution, 2)
    assert execution.going_on(begun).frozen == 1  # foretold; 2 it is
    execution.decided(chunk(100.0), begun, continues=True)
    assert taken(execution, 3) == [102.0, 103.0, None]


def test_as_many_steps_are_frozen_as_began_in_any_of_the_last_ten_decisions():
    execution = RealTimeChunking()
    execution.decided(chunk(0.0), 0)  # nothing could begin: it foretells nothing
    assert execution.going_on(0).frozen == 1
    for passed, frozen in [(0, 0), (2, 2), (1, 2), *[(0, 2)] * 8, (0, 1), (0, 0)]:
        begun = execution.begun
        taken(execution, passed)
        execution.decided(chunk(0.0), begun, continues=True)
        assert execution.going_on(execution.begun).frozen == frozen, (passed, frozen)
        if not passed:
            taken(execution, 1)


@pytest.mark.parametrize("name", EXECUTIONS)
def test_only_real_time_chunking_offers_what_goes_on_and_nothing_after_a_reset(name):
    execution = make_execution(name, horizon=HORIZON)
    assert execution.going_on(0) is None
    execution.decided(chunk(1.0), 0)
    assert (execution.going_on(0) is not None) == (name == "rtc")
    execution.reset()
    assert execution.going_on(0) is None


@pytest.mark.parametrize("name", EXECUTIONS)
def test_a_reset_forgets_all_and_decisions_are_not_written_to(name):
    execution = make_execution(name, horizon=HORIZON)
    assert execution.wants_decision
    given_rows = chunk(1.0)
    given_rows.setflags(write=False)
    execution.decided(given_rows, 0)
    taken(execution, 1)
    execution.decided(given_rows, 1)
    execution.reset()
    assert execution.begun == 0 and execution.step() is None and execution.begun == 0


@pytest.mark.parametrize("name", EXECUTIONS)
def test_an_action_keeps_its_type_and_size(name):
    execution = make_execution(name, horizon=HORIZON)
    execution.decided(chunk(1.0), 0)
    execution.decided(chunk(2.0), 0)
    action = execution.step()
    assert action.dtype == np.float32 and action.shape == (2,)


def test_names_and_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="execution: expected one of first, receding"):
        make_execution("second")
    with pytest.raises(ValueError, match=r"execute_steps: expected 0 \(all\) to 4"):
        make_execution("receding", steps=5, horizon=4)
    with pytest.raises(ValueError, match="steps: expected at least 1"):
        Receding(0)
    with pytest.raises(ValueError, match="decay: expected a finite number"):
        TemporalEnsemble(float("nan"))
