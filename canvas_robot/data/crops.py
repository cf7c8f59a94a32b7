"""Crops of camera pictures: crop 0 is the whole picture, others are boxes drawn for an episode."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

SMALLEST_AREA = 0.8
RULE = (
    "crop 0: the whole picture. crop k > 0: a box with the picture's aspect and a uniform 0.8 to 1 "
    "of its area, anywhere in it, one for all frames of an episode and all cameras; drawn by "
    "Philox4x64 with key = first 128 bits of the data set's fingerprint, "
    "counter = (0, 0, k, episode)"
)


class Box(NamedTuple):
    """Part of a picture, in pixels from its top left corner."""

    top: int
    left: int
    height: int
    width: int

    def of(self, images: np.ndarray) -> np.ndarray:
        """The part of images (..., H, W, 3), a view."""
        rows = slice(self.top, self.top + self.height)
        return images[..., rows, self.left : self.left + self.width, :]


def crop_box(fingerprint: str, episode: int, crop: int, size: tuple[int, int]) -> Box:
    """The box of a crop of an episode's pictures of (H, W) pixels, as RULE says.

    It depends on nothing else, so that it can be drawn anywhere, in any order. `fingerprint` is the
    data set's, 64 hex digits.
    """
    height, width = size
    if crop == 0:
        return Box(0, 0, height, width)
    random = np.random.Philox(key=int(fingerprint[:32], 16), counter=[0, 0, crop, episode])
    area, down, right = (random.random_raw(3) >> 11) * 2.0**-53  # uniform in [0, 1)
    side = math.sqrt(SMALLEST_AREA + (1 - SMALLEST_AREA) * area)
    h, w = max(1, round(side * height)), max(1, round(side * width))
    return Box(int(down * (height - h + 1)), int(right * (width - w + 1)), h, w)
