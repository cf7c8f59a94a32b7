"""report.html: one page that shows the run; it needs no network, only episode.mp4 beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template


def write_report_page(path: Path, summary: Mapping, video: str | None, plot: Path | None) -> None:
    """Write the page for a `write_report` summary.

    video: file name of the video beside the page, or None; plot: picture file that is embedded, or
        None.
    """
    path.write_text(
        _PAGE.substitute(
            title=escape(summary["title"]),
            instruction=escape(summary["instruction"] or "(no instruction)"),
            notes=_notes(summary),
            video=_video(video),
            cards="".join(_card(*card) for card in _cards(summary)),
            plot=_picture(plot),
            tables=_latency_table(summary["latency_ms"])
            + _table("Run", "", _plain_facts(summary["details"]))
            + _table("Episode", "", _episodes(summary["details"].get("episodes", ())))
            + _table("Reason to hold", "Ticks", summary["hold_reasons"])
            + _table("Package", "Version", summary["versions"]),
        ),
        encoding="utf-8",
    )


def _notes(summary: Mapping) -> str:
    notes = []
    if not summary["trained"]:
        notes.append(
            (
                "bad",
                "Untrained policy.",
                "The weights were not trained for this task. Timing and plumbing are real; "
                "the motion carries no meaning.",
            )
        )
    if summary["missed_ticks"]:
        notes.append(
            (
                "bad",
                f"Control ticks missed: {summary['missed_ticks']}.",
                f"{summary['expected_ticks']} were expected, {summary['ticks']} recorded.",
            )
        )
    if summary["slow_ticks"]:
        notes.append(
            (
                "warn",
                f"Slow ticks: {summary['slow_ticks']}.",
                "Their own work took longer than one control period.",
            )
        )
    notes += [("warn", "Missing:", text) for text in summary["missing"]]
    return "".join(
        f'<p class="note {kind}"><strong>{escape(head)}</strong> {escape(text)}</p>'
        for kind, head, text in notes
    )


def _cards(summary: Mapping) -> list[tuple[str, str, str]]:
    total = summary["latency_ms"]["total"]
    fresh = summary["fresh_image_fraction"]
    return [
        ("Ticks", f"{summary['ticks']} / {summary['expected_ticks']}", "recorded / expected"),
        ("Missed", str(summary["missed_ticks"]), "control ticks"),
        (
            "Image to command",
            _ms(total["p50"]),
            f"median; p95 {_ms(total['p95'])}, p99 {_ms(total['p99'])}",
        ),
        (
            "Control rate",
            _number(summary["measured_rate_hz"], "{:.2f} Hz"),
            f"declared {summary['control_rate_hz']:g} Hz",
        ),
        (
            "Fresh images",
            _number(fresh, "{:.0%}"),
            "of ticks used an image no earlier tick had used",
        ),
        ("Holds", str(summary["hold_ticks"]), "ticks without the policy's action"),
    ]


def _card(label: str, value: str, note: str) -> str:
    return (
        f'<div class="card"><span>{escape(label)}</span><b>{escape(value)}</b>'
        f"<small>{escape(note)}</small></div>"
    )


def _video(name: str | None) -> str:
    if name is None:
        return '<div class="absent">No video was made.</div>'
    return f'<video src="{escape(name)}" controls autoplay muted loop playsinline></video>'


def _picture(plot: Path | None) -> str:
    if plot is None:
        return '<div class="absent">No latency plot was made.</div>'
    data = base64.b64encode(plot.read_bytes()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="Latency of each tick, by stage">'


def _latency_table(latency_ms: Mapping[str, Mapping[str, float | None]]) -> str:
    names = list(latency_ms["total"])
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{escape(stage)}</th>"
        + "".join(f"<td>{_ms(values[name])}</td>" for name in names)
        + "</tr>"
        for stage, values in latency_ms.items()
    )
    return (
        '<div class="panel"><table class="numbers">'
        f"<tr><th>Latency</th>{head}</tr>{rows}</table></div>"
    )


def _plain_facts(details: Mapping) -> dict:
    return {name: value for name, value in details.items() if name != "episodes"}


def _episodes(episodes: Iterable[Mapping]) -> dict[str, str]:
    """A line for each: its goal, how it went and how long it took."""
    lines = {}
    for episode in episodes:
        names = ("success_any", "success", "success_held")
        found = [name.removeprefix("success_") for name in names if episode.get(name)]
        went = f"success ({', '.join(found).replace('success', 'last')})" if found else "failure"
        lines[str(episode["episode"])] = (
            f"{episode['instruction']}: {went}, {episode['periods']} control periods"
        )
    return lines


def _table(left: str, right: str, rows: Mapping) -> str:
    """A panel of two columns; nothing when there are no rows."""
    if not rows:
        return ""
    body = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>"
        for key, value in rows.items()
    )
    head = f"<tr><th>{escape(left)}</th><th>{escape(right)}</th></tr>"
    return f'<div class="panel"><table>{head}{body}</table></div>'


def _ms(value: float | None) -> str:
    return _number(value, "{:.1f} ms")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  :root { color: #1f2937; background: #f3f4f6; font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif;
  } body { max-width: 1120px; margin: 0 auto; padding: 28px 20px 48px; }
  h1 { margin: 0; font-size: 15px; font-weight: 600; color: #6b7280; }
  .instruction { margin: 2px 0 18px; font-size: 28px; line-height: 1.25; font-weight: 650; }
  .note { margin: 0 0 10px; padding: 10px 14px; border-radius: 8px; }
  .bad { background: #fee2e2; color: #991b1b; }
  .warn { background: #fef3c7; color: #854d0e; }
  .top { display: grid; grid-template-columns: 3fr 2fr; gap: 16px; margin: 16px 0; }
  .tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px; }
  .panel { background: white; border-radius: 10px; padding: 16px; margin-bottom: 16px; }
  .tables .panel { margin: 0; }
  video, img { display: block; width: 100%; border-radius: 8px; }
  .absent { padding: 48px 16px; text-align: center; color: #6b7280; background: #e5e7eb;
  border-radius: 8px; } .cards { display: grid; grid-template-columns: 1fr 1fr; grid-auto-rows: 1fr;
  gap: 12px; } .card { display: flex; flex-direction: column; justify-content: center; padding: 10px
      16px; background: white; border-radius: 10px; }
  .card span, .card small { display: block; color: #6b7280; font-size: 13px; line-height: 1.35; }
  .card b { display: block; margin: 2px 0; font-size: 23px; font-variant-numeric: tabular-nums; }
  table { width: 100%; border-collapse: collapse; font-size: 14px; }
  th, td { padding: 6px 8px; text-align: left; border-top: 1px solid #e5e7eb; font-weight: 400; }
  tr:first-child th { border-top: 0; color: #6b7280; font-size: 13px; }
  td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
  .numbers td, .numbers tr:first-child th:not(:first-child) { text-align: right; }
  @media (max-width: 800px) { .top { grid-template-columns: 1fr; } }
</style>
</head>
<body>
<h1>$title</h1>
<p class="instruction">$instruction</p>
$notes
<section class="top"><div>$video</div><div class="cards">$cards</div></section>
<section class="panel">$plot</section>
<section class="tables">$tables</section>
</body>
</html>
""")
