"""Film: small pictures of one episode, few enough to keep; how they are put together is not here.

It is bounded whatever the episode's length: where there are too many pictures, every second one
goes, and from then on half as many are taken.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np

WIDTH = 288  # pixels; the height follows
MOST_PICTURES = 160
JPEG_QUALITY = 90


class Film(msgspec.Struct, frozen=True):
    """Pictures as JPEG, one every `stride` steps from the reset on; fps: steps in a second."""

    fps: float
    stride: int
    pictures: list[bytes]

    def at(self, step: int) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB of a step, the last one beyond the end."""
        place = min(step // self.stride, len(self.pictures) - 1)
        decoded = cv2.imdecode(np.frombuffer(self.pictures[place], np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


class Camera:
    """Films one episode: call `take` after the reset and after each step.

    fps: steps in a second; width: of the pictures, in pixels; most: how many are kept.
    """

    def __init__(self, fps: float, width: int = WIDTH, most: int = MOST_PICTURES) -> None:
        self._fps, self._width, self._most = fps, width, most
        self._pictures: list[bytes] = []
        self._stride = 1
        self._taken = 0

    def take(self, picture: np.ndarray) -> None:
        """picture: (H, W, 3) uint8 RGB of any size."""
        if self._taken % self._stride == 0:
            if len(self._pictures) == self._most:
                self._pictures, self._stride = self._pictures[::2], 2 * self._stride
            if self._taken % self._stride == 0:
                self._pictures.append(_small(picture, self._width))
        self._taken += 1

    def film(self) -> Film:
        return Film(self._fps, self._stride, list(self._pictures))


def save_film(film: Film, path: Path) -> None:
    """Writes a film to a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.msgpack.encode(film))


def load_film(path: Path) -> Film:
    """The inverse of `save_film`."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Film)


def _small(picture: np.ndarray, width: int) -> bytes:
    height = max(2, round(picture.shape[0] * width / picture.shape[1]))
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(resized, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
