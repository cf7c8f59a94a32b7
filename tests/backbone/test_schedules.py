"""Laws of the schedules: equal phases of loops, and sharpness from its first to its last value."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from canvas_robot.backbone.looped_wrapper import LoopedBlockWrapper
from canvas_robot.backbone.schedules import CurriculumScheduler, SharpeningSchedule

loop_counts = st.integers(1, 6)


def test_the_arguments_are_canvas_engineerings():
    def defaults(kind):
        return [(f.name, f.default) for f in dataclasses.fields(kind)]

    assert defaults(CurriculumScheduler) == [
        ("max_loops", 3),
        ("total_steps", 5000),
        ("warmup_fraction", 0.0),
    ]
    assert defaults(SharpeningSchedule) == [
        ("max_loops", 4),
        ("beta_min", 1.0),
        ("beta_max", 4.0),
        ("schedule", "linear"),
    ]


# ---------------------------------------------------------------- curriculum


def test_the_default_has_three_equal_phases():
    scheduler = CurriculumScheduler()
    steps = [0, 1666, 1667, 3333, 3334, 4999, 5000, 10**9]
    assert [scheduler.get_loops(step) for step in steps] == [1, 1, 2, 2, 3, 3, 3, 3]


@given(loop_counts, st.integers(1, 200))
def test_without_warmup_a_step_is_in_the_phase_that_its_quotient_says(max_loops, total):
    scheduler = CurriculumScheduler(max_loops, total)
    for step in range(total + 3):
        quotient = step / (total / max_loops)
        assert scheduler.get_loops(step) == min(int(quotient), max_loops - 1) + 1


@given(loop_counts, st.integers(1, 50), st.integers(0, 9))
def test_warmup_runs_one_loop_and_the_rest_is_shared_equally(max_loops, phase, warmup):
    total = 10 * max_loops * phase  # so that all borders are whole steps
    scheduler = CurriculumScheduler(max_loops, total, warmup / 10)
    begin, length = warmup * max_loops * phase, (10 - warmup) * phase
    assert {scheduler.get_loops(step) for step in range(begin)} <= {1}
    for n in range(max_loops):
        middle = begin + n * length + length // 2
        assert scheduler.get_loops(middle) == n + 1
    loops = [scheduler.get_loops(step) for step in range(total)]
    assert loops == sorted(loops)


def test_a_step_sets_all_looped_blocks_clamped_to_their_own_most_and_skips_others():
    blocks = [LoopedBlockWrapper(nn.Identity(), i, n, 8) for i, n in enumerate((2, 4))]
    assert CurriculumScheduler(4, 100).step([*blocks, nn.Identity()], 99) == 4
    assert [block.current_loops for block in blocks] == [2, 4]
    assert CurriculumScheduler(4, 100).step(blocks, 0) == 1
    assert [block.current_loops for block in blocks] == [1, 1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0,), "max_loops: expected an int >= 1, got 0"),
        ((1.5,), "max_loops: expected an int >= 1, got 1.5"),
        ((3, 0), "total_steps: expected a number > 0, got 0"),
        ((3, math.inf), "total_steps: expected a number > 0, got inf"),
        ((3, "5000"), "total_steps: expected a number > 0, got '5000'"),
        ((3, 100, 1.0), "warmup_fraction: expected a number in [0, 1), got 1.0"),
        ((3, 100, -0.1), "warmup_fraction: expected a number in [0, 1), got -0.1"),
        ((3, 100, math.nan), "warmup_fraction: expected a number in [0, 1), got nan"),
        ((3, 100, None), "warmup_fraction: expected a number in [0, 1), got None"),
    ],
)
def test_a_wrong_curriculum_is_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        CurriculumScheduler(*arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("step", [-1, math.nan, None])
def test_a_step_that_is_none_is_refused(step):
    with pytest.raises(ValueError) as error:
        CurriculumScheduler().get_loops(step)
    assert str(error.value) == f"step: expected a number >= 0, got {step!r}"


# ---------------------------------------------------------------- sharpening


@pytest.mark.parametrize(
    "schedule, betas",
    [
        ("linear", [1.0, 2.0, 3.0, 4.0, 5.0]),
        ("exponential", [1.0, 5**0.25, 5**0.5, 5**0.75, 5.0]),
        ("cosine", [1.0, 3 - 2**0.5, 3.0, 3 + 2**0.5, 5.0]),
    ],
)
def test_each_schedule_has_its_curve(schedule, betas):
    sharpening = SharpeningSchedule(5, 1.0, 5.0, schedule)
    assert [sharpening(loop) for loop in range(5)] == pytest.approx(betas, rel=1e-12)


@given(
    st.integers(1, 8),
    st.floats(0.1, 8),
    st.floats(0.1, 8),
    st.sampled_from(["linear", "exponential", "cosine"]),
)
def test_betas_go_from_the_first_to_the_last_without_turning(n, first, last, schedule):
    betas = [SharpeningSchedule(n, first, last, schedule)(loop) for loop in range(n)]
    assert betas[0] == first
    assert betas[-1] == pytest.approx(last if n > 1 else first)
    rising = sorted(betas, reverse=last < first)
    assert betas == pytest.approx(rising)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"schedule": "step"},
            "schedule: expected one of ('linear', 'exponential', 'cosine'), got 'step'",
        ),
        ({"max_loops": 0}, "max_loops: expected an int >= 1, got 0"),
        ({"beta_min": -1.0}, "beta_min: expected a finite number >= 0, got -1.0"),
        ({"beta_max": math.nan}, "beta_max: expected a finite number >= 0, got nan"),
        ({"beta_max": 10**400}, f"beta_max: expected a finite number >= 0, got {10**400}"),
        (
            {"beta_min": 0.0, "schedule": "exponential"},
            "beta_min: expected a finite number > 0, got 0.0",
        ),
    ],
)
def test_a_wrong_sharpening_is_refused_when_it_is_made(arguments, message):
    with pytest.raises(ValueError) as error:
        SharpeningSchedule(**arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("loop", [-1, 4, 1.5, 1.0, True, "x", None, math.nan])
def test_a_loop_that_is_not_there_has_no_beta(loop):
    with pytest.raises(ValueError) as error:
        SharpeningSchedule(max_loops=4)(loop)
    assert str(error.value) == f"loop_idx: expected an int from 0 to 3, got {loop!r}"
