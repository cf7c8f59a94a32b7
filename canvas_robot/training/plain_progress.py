"""What a running training of a plain policy shows: how much of it is used up, and its metrics."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from canvas_robot.training.meter import MetricsRow


class PlainProgress:
    """A context: bars on a terminal, a line for each row of metrics elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> PlainProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def told(self, what: str, done: float, total: float) -> None:
        """So much of something is done."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what)
            self.note(what)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def row(self, row: MetricsRow, samples: int) -> None:
        """A row of metrics was written; `samples`: windows of an update."""
        held = "" if row.held_out is None else f", held-out loss {row.held_out:.4g}"
        self.note(
            f"step {row.step}: loss {row.loss:.4g}{held}, {row.steps_per_s * samples:,.0f} "
            f"samples/s, {row.data_wait:.0%} waiting for data, {row.memory_mb:,.0f} MB"
        )

    def note(self, text: str) -> None:
        """Something that happened, on a line of its own."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
