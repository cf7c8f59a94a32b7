"""episode.mp4: the camera pictures in real time, the commanded path drawn into them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import imageio_ffmpeg
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canvas_robot.evaluation.camera import PinholeCamera
from canvas_robot.evaluation.records import RunMeta, TickRecord

FPS = 20
TRAIL_S = 6.0
# Above the picture: a browser's controls cover the lower edge.
STRIP_HEIGHT = 76
WIDTH_RANGE = (640, 1280)

ACTIVE_COLOUR = (52, 211, 153)
HOLD_COLOUR = (251, 191, 36)
UNTRAINED_COLOUR = (220, 38, 38)
STRIP_COLOUR = (17, 24, 39)
TEXT_COLOUR = (243, 244, 246)
QUIET_COLOUR = (156, 163, 175)

_SHIFT = 4  # OpenCV's fixed-point bits: lines land between pixels.


def write_episode_video(
    path: Path,
    records: Sequence[TickRecord],
    frames: Sequence[tuple[float, np.ndarray]],
    camera: PinholeCamera | None,
    meta: RunMeta,
) -> None:
    """Write an H.264 file that browsers play, FPS pictures a second, as long as the run.

    records: in time order, may be empty.
    frames: (time_s, (H, W, 3) uint8 RGB) in time order, at least one.

    The pictures are stretched to the camera's own shape (Bridge V2 stores 640x480 squashed to
    256x256), and enlarged or reduced to WIDTH_RANGE.
    """
    scene = _Scene(records, frames, camera, meta)
    width, height = scene.stage_size
    writer = imageio_ffmpeg.write_frames(
        str(path),
        size=(width, height + STRIP_HEIGHT),
        fps=FPS,
        codec="libx264",
        pix_fmt_in="rgb24",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=None,
        output_params=["-preset", "veryfast", "-crf", "20", "-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        for picture in scene.pictures():
            writer.send(picture)
    finally:
        writer.close()


@dataclass(frozen=True, eq=False)
class _Scene:
    """Everything a picture of the video shows, as a function of time."""

    records: Sequence[TickRecord]
    frames: Sequence[tuple[float, np.ndarray]]
    camera: PinholeCamera | None
    meta: RunMeta

    def pictures(self) -> Iterator[np.ndarray]:
        """One picture per 1/FPS second; drawn anew only when a camera frame or a tick came."""
        frame_times = [time for time, _ in self.frames]
        tick_times = self._tick_times
        start, end = min(frame_times[:1] + tick_times[:1]), max(frame_times[-1:] + tick_times[-1:])
        shown, picture = None, None
        for step in range(int((end - start) * FPS) + 1):
            time = start + step / FPS
            now = (max(0, bisect_right(frame_times, time) - 1), bisect_right(tick_times, time))
            if now != shown:
                shown, picture = now, self._draw(*now)
            yield picture

    @cached_property
    def stage_size(self) -> tuple[int, int]:
        """Width and height of the camera picture in the video, both even as H.264 asks."""
        height, width = self.frames[0][1].shape[:2]
        if self.camera is not None:
            width, height = self.camera.width, self.camera.height
        scale = np.clip(width, *WIDTH_RANGE) / width
        return 2 * round(width * scale / 2), 2 * round(height * scale / 2)

    @cached_property
    def _tick_times(self) -> list[float]:
        return [record.wall_s for record in self.records]

    @cached_property
    def _pixels(self) -> np.ndarray:
        """(N, 2) where the commanded position of each record appears; NaN where it does not."""
        if self.camera is None or not self.records:
            return np.full((len(self.records), 2), np.nan)
        positions = np.stack([record.position for record in self.records])
        return self.camera.scaled_to(*self.stage_size).project(positions)

    def _draw(self, frame: int, ticks: int) -> np.ndarray:
        """The picture that shows camera frame `frame` and the first `ticks` records."""
        stage = _resized(self.frames[frame][1], self.stage_size)
        record = self.records[ticks - 1] if ticks else None
        if record is not None:
            first = bisect_left(self._tick_times, record.wall_s - TRAIL_S)
            ages_s = record.wall_s - np.array(self._tick_times[first:ticks])
            stage = _with_path(stage, self._pixels[first:ticks], 1.0 - ages_s / TRAIL_S)
            stage = _with_target(stage, self._pixels[ticks - 1], _colour(record))
        strip = np.full((STRIP_HEIGHT, stage.shape[1], 3), STRIP_COLOUR, dtype=np.uint8)
        canvas = Image.fromarray(np.concatenate([strip, stage]))
        self._write(ImageDraw.Draw(canvas), record)
        return np.ascontiguousarray(canvas)

    def _write(self, draw: ImageDraw.ImageDraw, record: TickRecord | None) -> None:
        width = self.stage_size[0]
        if not self.meta.trained:
            _badge(
                draw, (12, STRIP_HEIGHT + 12), "UNTRAINED POLICY", UNTRAINED_COLOUR, (255, 255, 255)
            )
        instruction = self.meta.instruction or "(no instruction)"
        draw.text((16, 12), _fitted(instruction, 19, width - 32), TEXT_COLOUR, _font(19))
        if record is None:
            facts, status, colour = "", "no command yet", QUIET_COLOUR
        else:
            gripper = f"{record.gripper:.2f}" if np.isfinite(record.gripper) else "none"
            facts = f"{record.wall_s:.2f} s    tick {record.tick}    gripper {gripper}"
            status = "active" if record.state == "active" else f"hold: {record.reason}"
            colour = _colour(record)
        draw.text((16, 44), facts, QUIET_COLOUR, _font(15))
        room = width - 48 - int(_font(15).getlength(facts))
        status = _fitted(status, 15, room)
        draw.text((width - 16, 44), status, colour, _font(15, bold=True), anchor="ra")


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    method = cv2.INTER_AREA if image.shape[1] > size[0] else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=method)


def _with_path(image: np.ndarray, pixels: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The picture with a line through `pixels` (N, 2), as opaque as `strength` (N,) in [0, 1]."""
    line = np.zeros(image.shape[:2], dtype=np.uint8)
    edge = np.zeros_like(line)
    points = _fixed_points(pixels, image)
    for start, end, opacity in zip(points[:-1], points[1:], strength[1:], strict=True):
        if start is not None and end is not None:
            for mask, value, width in ((edge, 150, 5), (line, 255, 2)):
                cv2.line(mask, start, end, int(value * opacity), width, cv2.LINE_AA, _SHIFT)
    x, y, width, height = cv2.boundingRect(edge)
    part = np.s_[y : y + height, x : x + width]
    mixed = image[part] * (1.0 - edge[part][..., None] / 255.0)
    mixed += (np.array(ACTIVE_COLOUR) - mixed) * (line[part][..., None] / 255.0)
    image = image.copy()
    image[part] = mixed.astype(np.uint8)
    return image


def _with_target(image: np.ndarray, pixel: np.ndarray, colour: tuple) -> np.ndarray:
    """The picture with a ring at `pixel` (2,); unchanged where the target is not in view."""
    height, width = image.shape[:2]
    if not (np.isfinite(pixel).all() and 0 <= pixel[0] < width and 0 <= pixel[1] < height):
        return image
    image, centre = image.copy(), _fixed_points(pixel[None], image)[0]
    for radius, ink, thickness in ((10, STRIP_COLOUR, 5), (10, colour, 2), (2, colour, -1)):
        cv2.circle(image, centre, radius << _SHIFT, ink, thickness, cv2.LINE_AA, _SHIFT)
    return image


def _fixed_points(pixels: np.ndarray, image: np.ndarray) -> list[tuple[int, int] | None]:
    """OpenCV's fixed-point form of pixels (N, 2); None where a pixel is NaN."""
    # Far outside would overflow OpenCV's integers; a few picture widths away looks the same.
    limit = 4 * max(image.shape[:2])
    points = np.nan_to_num(np.clip(pixels, -limit, limit) * (1 << _SHIFT)).round().astype(int)
    visible = np.isfinite(pixels).all(axis=1)
    return [
        tuple(point) if seen else None for point, seen in zip(points.tolist(), visible, strict=True)
    ]


def _badge(draw: ImageDraw.ImageDraw, corner: tuple, text: str, fill: tuple, ink: tuple) -> None:
    x, y = corner
    width = _font(15, bold=True).getlength(text)
    draw.rounded_rectangle((x, y, x + width + 24, y + 30), radius=6, fill=fill)
    draw.text((x + 12, y + 15), text, ink, _font(15, bold=True), anchor="lm")


def _colour(record: TickRecord) -> tuple:
    return ACTIVE_COLOUR if record.state == "active" else HOLD_COLOUR


@lru_cache
def _fitted(text: str, size: int, room: int) -> str:
    """The text, cut with an ellipsis to at most `room` pixels of the bold font."""
    text = " ".join(text.split())
    if _font(size, bold=True).getlength(text) <= room:
        return text
    while text and _font(size, bold=True).getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib ships these fonts, so the strip looks the same on every machine.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
