"""A page that needs nothing but itself: notes, cards, tables and pictures, as HTML."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from string import Template

INK, QUIET, LINE = "#1f2937", "#6b7280", "#d1d5db"


def page(title: str, heading: str, notes: Sequence[str], body: Sequence[str]) -> str:
    """The whole page; notes and body are HTML, as the functions below make it."""
    return _PAGE.substitute(
        title=escape(title), heading=escape(heading), notes="".join(notes), body="\n".join(body)
    )


def note(kind: str, head: str, text: str) -> str:
    """A line to be read first. kind: "bad", "warn" or "good"."""
    return f'<p class="note {kind}"><strong>{escape(head)}</strong> {escape(text)}</p>'


def cards(entries: Sequence[tuple[str, str, str]]) -> str:
    """Figures in large: (label, value, remark) each."""
    return '<section class="cards">' + "".join(map(_card, entries)) + "</section>"


def picture(png: bytes, alt: str, remark: str = "") -> str:
    """A picture, embedded, with a remark below it."""
    data = base64.b64encode(png).decode("ascii")
    below = f"<figcaption>{escape(remark)}</figcaption>" if remark else ""
    return (
        '<figure class="panel">'
        f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">{below}</figure>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """A panel with a table; nothing without rows. numbers: all columns but the first are."""
    if not rows:
        return ""
    kind = ' class="numbers"' if numbers else ""
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="panel"><table{kind}><tr>{first}</tr>{body}</table></div>'


def facts(head: str, values: Mapping[str, object]) -> str:
    """A table of two columns; nested mappings are spread out with dots."""
    return table((head, ""), [(key, said(value)) for key, value in spread(values).items()])


def spread(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, keys joined with dots."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= spread(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def said(value: object) -> str:
    """A plain value as a reader expects it."""
    if value is None or value in ("", {}, []):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(said, value))
    return str(value)


def side_by_side(panels: Sequence[str]) -> str:
    """Panels in as many columns as the window holds."""
    return '<section class="columns">' + "".join(panels) + "</section>"


def _card(entry: tuple[str, str, str]) -> str:
    label, value, remark = map(escape, entry)
    return f'<div class="card"><span>{label}</span><b>{value}</b><small>{remark}</small></div>'


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  :root { color: #1f2937; background: #f3f4f6;
    font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
  body { max-width: 1160px; margin: 0 auto; padding: 28px 20px 48px; }
  h1 { margin: 0; font-size: 15px; font-weight: 600; color: #6b7280; }
  .heading { margin: 2px 0 18px; font-size: 26px; line-height: 1.25; font-weight: 650;
    overflow-wrap: anywhere; }
  .note { margin: 0 0 10px; padding: 10px 14px; border-radius: 8px; overflow-wrap: anywhere; }
  .bad { background: #fee2e2; color: #991b1b; }
  .warn { background: #fef3c7; color: #854d0e; }
  .good { background: #dcfce7; color: #166534; }
  .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px;
    margin: 16px 0; }
  .card { padding: 10px 16px; background: white; border-radius: 10px; }
  .card span, .card small { display: block; color: #6b7280; font-size: 13px; line-height: 1.35; }
  .card b { display: block; margin: 2px 0; font-size: 23px; font-variant-numeric: tabular-nums; }
  .panel { background: white; border-radius: 10px; padding: 16px; margin: 0 0 16px;
    overflow-x: auto; }
  .columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr));
    gap: 16px; align-items: start; }
  img { display: block; width: 100%; }
  figcaption { margin-top: 8px; color: #6b7280; font-size: 13px; }
  table { width: 100%; border-collapse: collapse; font-size: 14px; }
  th, td { padding: 6px 8px; text-align: left; border-top: 1px solid #e5e7eb; font-weight: 400;
    vertical-align: top; }
  tr:first-child th { border-top: 0; color: #6b7280; font-size: 13px; }
  td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
  .numbers td, .numbers tr:first-child th:not(:first-child) { text-align: right;
    white-space: nowrap; }
  @media (max-width: 520px) { .columns { grid-template-columns: 1fr; } }
</style>
</head>
<body>
<h1>$title</h1>
<p class="heading">$heading</p>
$notes
$body
</body>
</html>
""")
