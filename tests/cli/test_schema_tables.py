"""Laws of print_table: no word is broken and no column lost without a word, at any width."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from canvas_robot.cli.schema_tables import Column, print_table

CELLS = st.lists(st.text("abc", min_size=1, max_size=12), max_size=4).map(" ".join)
COLUMNS = (
    Column("name"),
    Column("meaning", breaks=True),
    Column("size", right=True, spare=2),
    Column("kind", spare=1),
)


def printed(width, title, rows):
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    print_table(console, title, COLUMNS, rows)
    return file.getvalue()


ROWS = st.lists(
    st.tuples(st.text("xyz", min_size=1, max_size=30), CELLS, *[st.text("de", max_size=9)] * 2),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(st.integers(8, 100), ROWS)
def test_every_word_of_every_column_is_printed_whole_or_its_column_named_as_left_out(width, rows):
    text = printed(width, "things", rows)
    table, _, left_out = text.partition("left out for the width: ")
    words = table.replace("\n", " ").split()
    for i, column in enumerate(COLUMNS):
        if column.heading in left_out.replace(",", " ").split():
            assert column.spare
            continue
        for word in " ".join(row[i] for row in rows).split():
            assert word in words


@settings(deadline=None)
@given(st.integers(8, 100), ROWS)
def test_a_table_fits_its_width_or_becomes_lines(width, rows):
    text = printed(width, "", rows).partition("left out")[0]
    if "─" in text:
        assert max(len(line) for line in text.splitlines()) <= width
    else:
        assert text.splitlines()[0] == rows[0][0]


def test_columns_are_left_out_in_their_order_and_only_where_it_helps():
    rows = [("x" * 10, "a", "1" * 10, "d" * 10)]
    for width, gone in ((60, ""), (43, "kind"), (30, "size, kind")):
        assert printed(width, "", rows).partition("left out for the width: ")[2].strip() == gone
    assert printed(14, "", rows).splitlines() == [
        "x" * 10,
        "  meaning: a",
        "  size: 1111111111",
        "  kind: dddddddddd",
    ]


def test_what_a_terminal_would_obey_is_shown_escaped():
    assert "\\x1b[2J" in printed(80, "", [("\x1b[2J", "a", "b", "c")])
