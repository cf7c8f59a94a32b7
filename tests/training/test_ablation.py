"""Laws of an ablation: one configuration, a run for each cell, nothing done twice."""

import signal

import msgspec
import pytest
from rich.console import Console

from canvas_robot.resources import config_path
from canvas_robot.signals import load_statistics, save_statistics
from canvas_robot.training.ablation import (
    FREEZES,
    LOOPS,
    AblationError,
    Cell,
    Interval,
    Judgement,
    configurations,
    grid,
    run_ablation,
)
from canvas_robot.training.config import ConfigError
from canvas_robot.training.config_file import differences
from canvas_robot.training.run_folder import RunFolder

CELLS = [Cell(1, "full"), Cell(2, "none")]


class CountingJudge:
    """Gives every run the same worth, and remembers which it was asked for."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, run, config) -> Judgement:
        self.asked.append(run.name)
        measure = Interval(0.5, 0.4, 0.6)
        return Judgement(
            motion=measure,
            previous_action=measure,
            zero_action=measure,
            gripper=measure,
            episodes=5,
            windows=40,
            trained_on="no",
        )


class InterruptedAt:
    """A file that a console writes to; the process gets a signal when a text is written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def write(self, text: str) -> None:
        if self._text in text:
            signal.raise_signal(signal.SIGINT)

    def flush(self) -> None:
        pass


@pytest.fixture
def runs_of(make_config, tmp_path):
    """A function that gives the configurations of CELLS, with overrides on top."""

    def make(*overrides: str, cells=CELLS):
        return configurations(make_config("steps=2", *overrides), cells, tmp_path)

    return make


def test_the_grid_is_every_number_of_loops_with_every_freeze():
    cells = grid()
    assert len(cells) == len(set(cells)) == len(LOOPS) * len(FREEZES) == 12
    assert grid([2], ["half"]) == [Cell(2, "half")]


def test_cells_differ_in_loops_freeze_and_folder_alone(make_config, tmp_path):
    config = make_config()
    for cell, made in configurations(config, grid(), tmp_path).items():
        assert set(differences(config, made)) <= {"loops", "freeze", "run"}
        assert (made.loops, made.freeze) == cell and made.run == str(tmp_path / cell.name)


def test_what_a_configuration_does_not_allow_is_refused_before_anything_runs(runs_of, tmp_path):
    with pytest.raises(ConfigError, match="freeze 'half' expects dtype float32"):
        runs_of("backbone.dtype=bfloat16", cells=grid())
    with pytest.raises(AblationError, match=r"data\.holdout: .* expected a split or a fraction"):
        runs_of("data.holdout=off")
    assert not list(tmp_path.iterdir())


def test_each_cell_is_trained_judged_and_kept(runs_of, rows_of, tmp_path, quiet):
    judge = CountingJudge()
    ablation = run_ablation(runs_of(), judge, quiet)
    assert list(ablation.results) == CELLS and not ablation.failed and not ablation.signal
    full, none = ablation.results.values()
    assert none.trained > full.trained and none.frozen < full.frozen
    for cell, result in ablation.results.items():
        (row,) = rows_of(tmp_path / cell.name)
        assert result.action_loss == row["held_out_parts"]["action"]
        assert (result.loss, result.steps) == (row["held_out"], 2)
        assert result.judgement.motion.value == 0.5

    again = run_ablation(runs_of(), judge, quiet)
    assert again == ablation and judge.asked == [cell.name for cell in CELLS]
    assert all(len(RunFolder.open(tmp_path / c.name).facts().started) == 1 for c in CELLS)


def test_more_steps_go_on_with_the_same_runs(runs_of, tmp_path, quiet):
    cells, judge = CELLS[:1], CountingJudge()
    run_ablation(runs_of(cells=cells), judge, quiet)
    (result,) = run_ablation(runs_of("steps=4", cells=cells), judge, quiet).results.values()
    assert result.steps == 4 and len(judge.asked) == 2
    starts = RunFolder.open(tmp_path / cells[0].name).facts().started
    assert [start["step"] for start in starts] == [0, 2]
    with pytest.raises(AblationError, match="steps: it is at 4, now 2"):
        run_ablation(runs_of(cells=cells), judge, quiet)


def test_a_folder_with_another_configuration_is_refused_before_anything_runs(
    runs_of, tmp_path, quiet
):
    other = tmp_path / CELLS[1].name
    other.mkdir()
    (other / "config.yaml").write_text(runs_of()[CELLS[1]].to_yaml())
    with pytest.raises(AblationError, match=r"loops_2_freeze_none: .* batch_size: 2, now 3"):
        run_ablation(runs_of("batch_size=3"), CountingJudge(), quiet)
    assert not (tmp_path / CELLS[0].name).exists()


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_run_that_diverges_fails_alone(runs_of, tmp_path, quiet):
    """Statistics of a wrong unit: a spread so small that normalised targets overflow."""
    statistics = load_statistics(config_path("statistics", "bridge_v2.json"))
    spread = (*statistics["action"].std[:6], 1e-40)
    statistics["action"] = msgspec.structs.replace(statistics["action"], std=spread)
    save_statistics(statistics, tmp_path / "wrong.json")
    runs, wrong = runs_of(), str(tmp_path / "wrong.json")
    runs[CELLS[0]] = msgspec.structs.replace(runs[CELLS[0]], statistics=wrong)
    ablation = run_ablation(runs, CountingJudge(), quiet)
    assert list(ablation.results) == [CELLS[1]]
    assert "expected finite losses" in ablation.failed[CELLS[0]]


def test_a_signal_ends_it_and_the_same_call_goes_on(runs_of, tmp_path, quiet):
    judge = CountingJudge()
    interrupted = Console(file=InterruptedAt("step 1/2"), width=200)
    stopped = run_ablation(runs_of("log_every=1"), judge, interrupted)
    assert stopped.signal == signal.SIGINT and not stopped.results and not judge.asked
    assert not (tmp_path / CELLS[1].name).exists()
    again = run_ablation(runs_of("log_every=1", cells=CELLS[:1]), judge, quiet)
    assert [result.steps for result in again.results.values()] == [2]


def test_several_processes_are_refused(runs_of, quiet, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AblationError, match="one process, there are 2"):
        run_ablation(runs_of(), CountingJudge(), quiet)


def test_a_spoilt_result_is_named(runs_of, tmp_path, quiet):
    folder = tmp_path / CELLS[0].name
    folder.mkdir()
    (folder / "result.json").write_text("{}")
    with pytest.raises(AblationError, match=r"result\.json: .* remove it"):
        run_ablation(runs_of(), CountingJudge(), quiet)
