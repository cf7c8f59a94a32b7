"""Draws the pictures of docs/schemas.md, docs/img/schema_*.png, with few colours: small files.

Run in the checkout: .venv/bin/python docs/make_schema_pictures.py
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from canvas_robot.evaluation.lettering import lettering
from canvas_robot.evaluation.schema_picture import draw_timeline, schema_figure, sheet_of
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema

DOCS = Path(__file__).resolve().parent
COLOURS = 96


def save(figure: Figure, name: str) -> None:
    """Writes docs/img/schema_<name>.png with a palette."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    picture = Image.open(buffer).convert("RGB")
    picture = picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    picture.save(DOCS / "img" / f"schema_{name}.png", optimize=True)


def clock_figure(schema: CanvasSchema) -> Figure:
    """The clock alone."""
    figure = Figure(figsize=(10, 3.4), facecolor="white")
    axes = figure.add_axes((0.02, 0.14, 0.96, 0.68))
    draw_timeline(axes, sheet_of(schema, lettering(schema.layout.regions)))
    return figure


def main() -> None:
    """All pictures of the page."""
    steps = DOCS / "schema_steps"
    wasteful = CanvasSchema.from_json(steps / "3_wasteful.json")
    save(clock_figure(wasteful), "wasteful_clock")
    save(schema_figure(CanvasSchema.from_json(steps / "4_whole.json"), "4_whole"), "whole")
    for name in ("mobile_manipulator", "multi_robot"):
        schema = CanvasSchema.from_json(config_path("schemas", f"{name}.json"))
        save(schema_figure(schema, name), name)


if __name__ == "__main__":
    main()
