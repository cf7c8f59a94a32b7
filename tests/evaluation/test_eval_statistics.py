"""Laws of shares and their intervals; what episodes come to."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_statistics import pairs, shares, spread_of, summarise, wilson

ROW = EpisodeRow(
    env="A-v0",
    number=0,
    variant=0,
    episode_id=0,
    seed=0,
    instruction="go",
    told="go",
    success_last=False,
    success_any=False,
    success_held=None,
    steps=5,
    steps_to_success=None,
    terminated=False,
    failure="out of steps",
    stages={},
    reward=0.0,
    action_change=0.25,
    decision_ms=[1.0, 3.0],
    seconds=0.5,
)
GOOD = {"success_last": True, "success_any": True, "steps_to_success": 2, "failure": ""}


def row(**changes) -> EpisodeRow:
    return msgspec.structs.replace(ROW, **changes)


@pytest.mark.parametrize(
    "k, n, low, high",
    # Golden values: Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_wilsons(k, n, low, high):
    found = wilson(k, n)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=5e-5)
    assert found["rate"] == k / n and (found["k"], found["n"]) == (k, n)


counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_intervals_are_those_of_scipy_and_hold_the_share(count):
    k, n = count
    found, other = wilson(k, n), binomtest(k, n).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((other.low, other.high), abs=1e-9)
    assert 0 <= found["low"] <= found["rate"] <= found["high"] <= 1


@given(counts)
def test_failures_mirror_successes(count):
    k, n = count
    one, other = wilson(k, n), wilson(n - k, n)
    assert one["low"] == pytest.approx(1 - other["high"], abs=1e-12)


@pytest.mark.parametrize("k, n", [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_count_is_refused(k, n):
    with pytest.raises(ValueError, match="expected 0 <= k <= n and n > 0"):
        wilson(k, n)


def test_a_protocol_that_a_task_lacks_is_none():
    found = shares([row(), row(number=1, **GOOD)])
    assert found["held"] is None
    assert found["last"]["k"] == found["any"]["k"] == 1 and found["last"]["n"] == 2


def test_held_counts_where_the_task_defines_it():
    assert shares([row(success_held=False), row(number=1, success_held=True)])["held"]["k"] == 1


def test_a_summary_holds_steps_times_and_what_failed():
    rows = [row(), row(number=1, **GOOD, decision_ms=[5.0]), row(number=2, failure="never grasped")]
    found = summarise(rows)
    assert found["steps_to_success"] == {"p5": 2, "p50": 2, "p95": 2, "n": 1}
    assert found["decision_ms"]["p50"] == 3.0 and found["decision_ms"]["n"] == 5
    assert found["failures"] == {"out of steps": 1, "never grasped": 1}
    assert found["action_change"] == {"mean": 0.25, "n": 3}
    assert found["seconds"] == 1.5


def test_stages_are_shares_of_all_episodes():
    rows = [row(stages={"grasped": True}), row(number=1, stages={"grasped": False})]
    assert summarise(rows)["stages"]["grasped"]["rate"] == 0.5
    assert "moved_wrong" not in summarise(rows)["stages"]


def test_a_pair_is_right_where_both_goals_were_reached():
    rows = [
        *(row(number=1, variant=variant, **GOOD) for variant in (0, 1)),
        row(number=2, variant=0, **GOOD),
        row(number=2, variant=1),
        *(row(env="B-v0", number=2, variant=variant) for variant in (0, 1)),
    ]
    assert (pairs(rows)["k"], pairs(rows)["n"]) == (1, 3)


def test_scenes_that_were_run_once_are_no_pairs():
    assert pairs([row(), row(number=1)]) is None


def test_nothing_has_no_spread():
    assert spread_of([]) == {"p5": None, "p50": None, "p95": None, "n": 0}
