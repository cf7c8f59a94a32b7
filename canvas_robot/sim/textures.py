"""Pictures for the table's top, drawn from noise: the same on every call."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter

PIXELS = 512

_WOOD_RGB = (0.80, 0.70, 0.57)
_PLANK_RGB = (0.55, 0.40, 0.27)
_STONE_RGB = (0.62, 0.62, 0.60)
_CLOTH_RGB = (0.78, 0.78, 0.74)


@cache
def wood() -> np.ndarray:
    """A matte light wood (px, px, 3) uint8: soft streaks of one hue."""
    noise = np.random.default_rng(0).normal(size=(PIXELS, PIXELS))
    fine = gaussian_filter(noise, (1.5, 40.0), mode="wrap")
    broad = gaussian_filter(noise, (12.0, 120.0), mode="wrap")
    return _shaded(_WOOD_RGB, 0.016 * (fine / fine.std() + 1.5 * broad / broad.std()))


@cache
def planks() -> np.ndarray:
    """Dark boards side by side (px, px, 3) uint8, with gaps and a shade of their own."""
    random = np.random.default_rng(1)
    width = PIXELS // 8
    fine = gaussian_filter(random.normal(size=(PIXELS, PIXELS)), (1.0, 30.0), mode="wrap")
    rows = np.arange(PIXELS)
    shade = np.repeat(random.normal(size=8), width)[:, None]
    gap = np.where(rows % width < 3, -0.45, 0.0)[:, None]
    return _shaded(_PLANK_RGB, 0.05 * fine / fine.std() + 0.08 * shade + gap)


@cache
def stone() -> np.ndarray:
    """A grey speckled worktop (px, px, 3) uint8."""
    noise = np.random.default_rng(2).normal(size=(PIXELS, PIXELS))
    fine = gaussian_filter(noise, 1.2, mode="wrap")
    broad = gaussian_filter(noise, 30.0, mode="wrap")
    return _shaded(_STONE_RGB, 0.09 * fine / fine.std() + 0.05 * broad / broad.std())


@cache
def checks() -> np.ndarray:
    """A table cloth of faint checks (px, px, 3) uint8."""
    band = (np.arange(PIXELS) // (PIXELS // 16)) % 2
    return _shaded(_CLOTH_RGB, -0.10 * (band[:, None] + band[None, :]))


# The first one is the table's own; the others are for `Variation.table_texture`.
TEXTURES = {"wood": wood, "planks": planks, "stone": stone, "checks": checks}


def _shaded(rgb: tuple[float, float, float], shade: np.ndarray) -> np.ndarray:
    picture = np.clip(255.0 * (1.0 + shade[..., None]) * np.array(rgb), 0, 255).astype(np.uint8)
    picture.setflags(write=False)  # `cache` gives the same array to everyone
    return picture
