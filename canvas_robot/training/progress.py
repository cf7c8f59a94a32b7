"""What a running training shows: a bar on a terminal, a line for each row of metrics elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from canvas_robot.training.meter import MetricsRow


class TrainingProgress:
    """A context. Other processes than the main one show nothing.

    Args:
        console: where it is shown.
        steps: of the whole run.
        shown: whether this is the main process.
    """

    def __init__(self, console: Console, steps: int, shown: bool) -> None:
        self._console, self._shown = console, shown
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._steps = steps
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, step: int) -> None:
        """A step is done."""
        self._bar.update(self._task, completed=step)

    def row(self, row: MetricsRow) -> None:
        """A row of metrics was written."""
        text = (
            f"loss {row.loss:.4g}, {row.steps_per_s:.3g} steps/s, "
            f"{row.data_wait:.0%} waiting for data, {row.memory_mb:,.0f} MB, "
            f"{row.loops} loop{'s' * (row.loops > 1)}"
        )
        if row.held_out is not None:
            self.note(f"step {row.step}: held-out loss {row.held_out:.4g}")
        self._bar.update(self._task, description=text)
        if self._bar.disable and self._shown:
            self._console.print(f"step {row.step}/{self._steps}: {text}", highlight=False)

    def note(self, text: str) -> None:
        """Something that happened, on a line of its own."""
        if self._shown:
            self._console.print(text, highlight=False, markup=False)


@contextmanager
def index_progress(console: Console, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar while a data set is indexed; it appears with the first call of what this gives."""
    if not (shown and console.is_terminal):
        yield None
        return
    columns = (
        TextColumn("indexing the data"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)

        def done(read: int, total: int) -> None:
            bar.update(task, completed=read, total=total, visible=True)

        yield done
