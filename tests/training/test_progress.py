"""Laws of what a training shows: a line for every row, a bar on a terminal, nothing elsewhere."""

import io

import pytest
from rich.console import Console

from canvas_robot.training.meter import MetricsRow
from canvas_robot.training.progress import TrainingProgress, index_progress

ROW = MetricsRow(
    step=10,
    epoch=0,
    loss=0.51234,
    parts={"action": 0.51234},
    lr=1e-3,
    loops=2,
    grad_norm=1.0,
    steps_per_s=2.345,
    data_wait=0.034,
    memory_mb=1234.0,
    time=0.0,
    held_out=0.6,
)


@pytest.fixture
def console():
    """A function that makes a console that writes to memory."""
    return lambda terminal: Console(file=io.StringIO(), force_terminal=terminal, width=120)


def test_a_row_is_a_line_where_there_is_no_terminal(console):
    log = console(False)
    with TrainingProgress(log, 100, shown=True) as progress:
        progress.step(10)
        progress.row(ROW)
    assert log.file.getvalue().splitlines() == [
        "step 10: held-out loss 0.6",
        "step 10/100: loss 0.5123, 2.35 steps/s, 3% waiting for data, 1,234 MB, 2 loops",
    ]


def test_a_terminal_shows_a_bar_with_the_last_row(console):
    terminal = console(True)
    with TrainingProgress(terminal, 100, shown=True) as progress:
        progress.step(10)
        progress.row(ROW)
    shown = terminal.file.getvalue()
    assert "10/100" in shown and "loss 0.5123" in shown and "held-out loss 0.6" in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_other_processes_show_nothing(console, terminal):
    quiet = console(terminal)
    with TrainingProgress(quiet, 100, shown=False) as progress:
        progress.step(10)
        progress.row(ROW)
        progress.note("said")
    with index_progress(quiet, shown=False) as done:
        assert done is None
    assert quiet.file.getvalue() == ""


def test_indexing_shows_a_bar_once_it_has_something_to_do(console):
    terminal = console(True)
    with index_progress(terminal, shown=True) as done:
        assert "indexing" not in terminal.file.getvalue()
        done(500_000, 1_000_000)
    assert "indexing" in terminal.file.getvalue()
