"""videos.mp4: episodes of an environment side by side, each labelled with what it came to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canvas_robot.evaluation.eval_film import WIDTH, Film
from canvas_robot.evaluation.eval_folder import EvalFolder
from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_settings import EvalSettings

MOST_CELLS, COLUMNS = 16, 4
FILMED = 48  # episodes of each environment, of which the cells are chosen
SLOWEST_FPS, FASTEST_FPS = 10.0, 30.0
HELD_S = 2.0  # how long the end stands

FRAME, GAP, CAPTION, HEAD = 6, 10, 46, 48  # pixels
GROUND, BAR, INK, QUIET = (17, 24, 39), (31, 41, 55), (243, 244, 246), (156, 163, 175)
GOOD, BAD = (16, 185, 129), (239, 68, 68)

Episode = tuple[EpisodeRow, Film]


def write_videos(
    run: EvalFolder, settings: EvalSettings, rows: Sequence[EpisodeRow]
) -> dict[str, str]:
    """Writes a video for each environment that was filmed, and leaves those of an earlier start.

    Returns the files' names by environment.
    """
    names = {}
    for env_id in settings.envs:
        own = [row for row in rows if row.env == env_id]
        name = "videos.mp4" if len(settings.envs) == 1 else f"videos_{file_name(env_id)}.mp4"
        filmed = chosen([row for row in own if run.has_film(row)])
        if filmed:
            count = sum(row.success_last for row in own)
            title = (
                f"{env_id} · {settings.policy} · success (last) {count} of {len(own)} · "
                f"{len(filmed)} shown"
            )
            write_grid(run.path / name, run.films(filmed), title)
        if (run.path / name).is_file():
            names[env_id] = name
    return names


def chosen(rows: Sequence[EpisodeRow], most: int = MOST_CELLS) -> list[EpisodeRow]:
    """Which episodes are shown, in their order: as many failures as successes while there are."""
    good = [row for row in rows if not row.failure]
    bad = [row for row in rows if row.failure]
    of_good = min(len(good), max(most // 2, most - len(bad)))
    kept = {row.key for row in good[:of_good] + bad[: most - of_good]}
    return [row for row in rows if row.key in kept]


def file_name(env_id: str) -> str:
    """An environment's id as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", env_id)


def write_grid(path: Path, episodes: Sequence[Episode], title: str) -> None:
    """Writes an H.264 file that browsers play; each step of the episodes is one picture.

    episodes: 1 to MOST_CELLS. Slow environments are shown faster than they are: at least
    SLOWEST_FPS steps a second.
    """
    fps = float(np.clip(episodes[0][1].fps, SLOWEST_FPS, FASTEST_FPS))
    faster = fps / episodes[0][1].fps
    grid = _Grid(episodes, f"{title} · {faster:.3g} times as fast")
    width, height = grid.size
    writer = imageio_ffmpeg.write_frames(
        str(path),
        size=(width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_in="rgb24",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=None,
        output_params=["-preset", "veryfast", "-crf", "23", "-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        for picture in grid.pictures(ends=round(HELD_S * fps)):
            writer.send(picture)
    finally:
        writer.close()


class _Grid:
    """Where each episode's picture is, and what stands around it."""

    def __init__(self, episodes: Sequence[Episode], title: str) -> None:
        self._episodes, self._title = episodes, title
        self._columns = min(COLUMNS, math.ceil(math.sqrt(len(episodes))))
        self._rows = math.ceil(len(episodes) / self._columns)
        self._tallest = max(film.at(0).shape[0] for _, film in episodes)
        self._cell = (WIDTH + 2 * FRAME, self._tallest + 2 * FRAME + CAPTION)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, both even as H.264 asks."""
        width, height = self._cell
        across = self._columns * (width + GAP) + GAP
        down = HEAD + self._rows * (height + GAP)
        return across + across % 2, down + down % 2

    def pictures(self, ends: int) -> Iterator[np.ndarray]:
        """One picture a step of the longest episode; the last one `ends` times more."""
        canvas = Image.new("RGB", self.size, GROUND)
        self._draw_around(ImageDraw.Draw(canvas))
        picture = np.array(canvas)
        for step in range(max(row.steps for row, _ in self._episodes) + 1):
            for place, (row, film) in enumerate(self._episodes):
                if step <= row.steps:
                    self._show(canvas, place, film.at(step), min(step, row.steps))
            picture = np.array(canvas)
            yield picture
        for _ in range(ends):
            yield picture

    def _corner(self, place: int) -> tuple[int, int]:
        down, across = divmod(place, self._columns)
        width, height = self._cell
        return GAP + across * (width + GAP), HEAD + down * (height + GAP)

    def _draw_around(self, draw: ImageDraw.ImageDraw) -> None:
        draw.text(
            (GAP, 14), _fitted(self._title, _font(16), self.size[0] - 2 * GAP), INK, _font(16)
        )
        width, height = self._cell
        for place, (row, _) in enumerate(self._episodes):
            x, y = self._corner(place)
            colour = BAD if row.failure else GOOD
            draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
            draw.rectangle(
                (x + FRAME, y + FRAME, x + width - FRAME - 1, y + height - FRAME - 1), fill=BAR
            )
            bottom = y + FRAME + self._tallest
            room = WIDTH - 62
            draw.text(
                (x + FRAME + 8, bottom + 5), _fitted(label(row), _bold(14), room), colour, _bold(14)
            )
            said = f" · {row.told}" if row.told else ""
            which = _fitted(f"{row.number}{said}", _font(13), WIDTH - 16)
            draw.text((x + FRAME + 8, bottom + 25), which, QUIET, _font(13))

    def _show(self, canvas: Image.Image, place: int, picture: np.ndarray, step: int) -> None:
        x, y = self._corner(place)
        top = y + FRAME + (self._tallest - picture.shape[0]) // 2
        canvas.paste(Image.fromarray(picture), (x + FRAME, top))
        right, bottom = x + FRAME + WIDTH, y + FRAME + self._tallest
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((right - 54, bottom + 2, right - 1, bottom + 22), fill=BAR)
        draw.text((right - 8, bottom + 5), str(step), QUIET, _font(14), anchor="ra")


def label(row: EpisodeRow) -> str:
    """What an episode came to, in words that need no colour."""
    if row.failure:
        return f"✗ {row.failure}"
    return f"✓ success at step {row.steps_to_success}"


def _fitted(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """The text on one line, cut with an ellipsis to at most `room` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    return _font_of("DejaVuSans.ttf", size)


def _bold(size: int) -> ImageFont.FreeTypeFont:
    return _font_of("DejaVuSans-Bold.ttf", size)


@lru_cache
def _font_of(name: str, size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships these fonts, so the labels look the same on every machine.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
