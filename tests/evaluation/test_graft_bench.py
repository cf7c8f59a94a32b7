"""Laws of the bench of grafts: the same work on both sides, and no more memory on ours."""

import json

import pytest
import torch

from canvas_robot.evaluation import graft_bench
from canvas_robot.evaluation.graft_bench import (
    GRAFTS,
    OURS,
    OURS_SIGMOID,
    THEIRS,
    GraftSize,
    bench_graft,
    grafted,
)

pytest.importorskip("canvas_engineering", reason="extra bench")

TINY = GraftSize(width=32, heads=2, blocks=2, loops=3, tokens=9, threads=1)


@pytest.fixture
def trials():
    torch.set_num_threads(1)
    return grafted(TINY, GRAFTS)


def test_the_figures_have_their_names_and_are_written_as_json():
    figures = json.loads(json.dumps(bench_graft(TINY, 2, peak_memory=False, show=lambda _: None)))
    for what, unit in (("step", "ms"), ("kept", "mib")):
        for name in GRAFTS:
            assert figures[f"{name}_{what}_{unit}"] > 0
        assert figures[f"{what}_ratio"] > 0 and figures[f"{what}_ratio_sigmoid"] > 0
    kept = figures["theirs_kept_mib"] / figures["ours_kept_mib"]
    assert figures["kept_ratio"] == pytest.approx(kept)
    assert figures["ours_trained"] == figures["theirs_trained"] == 2 * 3 * (2 * 32 + 1)
    assert figures["tokens"] == TINY.text + TINY.video == 9


def test_ours_with_their_gate_takes_the_same_training_steps_as_theirs(trials):
    for _ in range(4):
        ours, theirs = trials[OURS_SIGMOID].loss().item(), trials[THEIRS].loss().item()
        assert ours == pytest.approx(theirs, rel=1e-5)
        trials[OURS_SIGMOID].step()
        trials[THEIRS].step()
    assert trials[OURS].loss().item() != pytest.approx(theirs, rel=1e-5)


def test_only_the_loops_are_trained_and_one_grafts_steps_do_not_move_anothers(trials):
    first = {name: trial.loss().item() for name, trial in trials.items()}
    for _ in range(3):
        trials[OURS].step()
    assert trials[OURS].loss().item() < first[OURS]
    assert trials[THEIRS].loss().item() == first[THEIRS]


@pytest.mark.parametrize("loops", [1, 2, 4])
def test_ours_keeps_no_more_for_the_backward_pass(loops):
    torch.set_num_threads(1)
    trials = grafted(GraftSize(32, 2, 2, loops, 9, threads=1), GRAFTS)
    kept = {name: trial.kept_bytes() for name, trial in trials.items()}
    assert 0 < kept[OURS] <= kept[THEIRS]
    assert loops == 1 or kept[OURS_SIGMOID] < kept[THEIRS]
    assert kept == {name: trial.kept_bytes() for name, trial in trials.items()}, "every time"


def test_in_bfloat16_both_sides_compute_in_bfloat16():
    size = GraftSize(32, 2, 1, 2, 6, "bfloat16", threads=1)
    losses = [trial.loss() for trial in grafted(size, GRAFTS).values()]
    assert {loss.dtype for loss in losses} == {torch.bfloat16}


@pytest.mark.slow
def test_the_peak_is_of_a_process_of_its_own():
    assert graft_bench.peak_in_own_process(TINY, OURS) > 0


def test_grafts_that_compute_something_else_are_not_compared(trials):
    trials[OURS_SIGMOID] = grafted(GraftSize(32, 2, 1, 3, 9, threads=1), (OURS_SIGMOID,))[
        OURS_SIGMOID
    ]
    with pytest.raises(RuntimeError, match=r"the grafts differ: loss .* nothing to compare"):
        graft_bench._require_same_loss(trials)


@pytest.mark.parametrize(
    "bad",
    [
        {"tokens": 1},
        {"loops": 0},
        {"width": 30},
        {"width": 36, "heads": 2},
        {"dtype": "float16"},
        {"threads": 0},
    ],
)
def test_sizes_that_cannot_be_timed_are_refused(bad):
    with pytest.raises(ValueError, match="size: expected counts of at least 1"):
        GraftSize(**({"width": 32, "heads": 2} | bad))
