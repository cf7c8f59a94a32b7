"""print_table: a table for a terminal of any width, no name of which is cut or broken.

What the tables say is decided in `schema.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from canvas_robot.schema.plain import printable

if TYPE_CHECKING:
    from rich.console import Console


class Column(NamedTuple):
    """A column; `breaks`: at its spaces; `spare`: leaves first where 1, then 2, ...; 0 stays."""

    heading: str
    right: bool = False
    breaks: bool = False
    spare: int = 0


def print_table(
    console: Console, title: str, columns: tuple[Column, ...], rows: list[tuple[str, ...]]
) -> None:
    """Prints rows below headings.

    Where the width is too small, spare columns are left out and named below; where that is not
    enough, each row becomes a few lines that start with its first cell.
    """
    rows = [tuple(printable(cell) for cell in row) for row in rows]
    kept = list(range(len(columns)))
    least, most = _widths(columns, rows)
    for spare in sorted((i for i in kept if columns[i].spare), key=lambda i: columns[i].spare):
        if _total(least[i] for i in kept) <= console.width:
            break
        kept.remove(spare)
    if _total(least[i] for i in kept) > console.width:
        _print_blocks(console, title, columns, rows)
        return
    widths = _shared(console.width, [least[i] for i in kept], [most[i] for i in kept])
    console.print(_table(title, [columns[i] for i in kept], widths, kept, rows))
    left_out = [column.heading for i, column in enumerate(columns) if i not in kept]
    if left_out:
        console.print(f"left out for the width: {', '.join(left_out)}", soft_wrap=True)


def _widths(columns: tuple[Column, ...], rows: list[tuple[str, ...]]) -> tuple[list, list]:
    """Of each column the least width that breaks no word, and the width that breaks nothing."""
    from rich.cells import cell_len

    least, most = [], []
    for i, column in enumerate(columns):
        cells = [column.heading, *(row[i] for row in rows)]
        words = [word for cell in cells for word in cell.split()] if column.breaks else cells
        least.append(max(map(cell_len, words), default=0))
        most.append(max(map(cell_len, cells)))
    return least, most


def _total(widths) -> int:
    """Of a table with an edge and two cells between any two columns."""
    widths = list(widths)
    return sum(widths) + 2 * len(widths)


def _shared(room: int, least: list[int], most: list[int]) -> list[int]:
    """Widths from least to most that fill the room: the narrow get all, the wide get equal ones."""
    level, widths = max(most), most
    while _total(widths) > room:
        level -= 1
        widths = [max(a, min(b, level)) for a, b in zip(least, most, strict=True)]
    widths = list(widths)
    for i, b in enumerate(most):  # what the last step gave back
        if widths[i] == level < b and _total(widths) < room:
            widths[i] += 1
    return widths


def _table(title: str, columns, widths: list[int], kept: list[int], rows):
    from rich import box
    from rich.table import Table

    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column, width in zip(columns, widths, strict=True):
        justify = "right" if column.right else "left"
        table.add_column(
            column.heading, justify=justify, width=width, no_wrap=not column.breaks, overflow="fold"
        )
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    return table


def _print_blocks(console: Console, title: str, columns, rows) -> None:
    if title:
        console.print(title, style="bold", soft_wrap=True)
    for row in rows:
        if row[0]:
            console.print(row[0], soft_wrap=True)
        for column, cell in zip(columns[1:], row[1:], strict=True):
            if cell:
                console.print(f"  {column.heading}: {cell}", soft_wrap=True)
