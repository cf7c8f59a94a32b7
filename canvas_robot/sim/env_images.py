"""Readers of pictures: out of the observation, or by `env.render()`."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium import spaces

from canvas_robot.signals import ImageSignal, SignalError
from canvas_robot.signals.env_sources import EnvImage, EnvPicture
from canvas_robot.sim.env_lookup import Moment, Reader, at, described, find


@dataclass(frozen=True, eq=False)
class _ImageReader:
    path: tuple[str, ...]
    shape: tuple[int, ...]
    channels_first: bool
    flip: tuple[str, ...]

    def read(self, moment: Moment) -> np.ndarray:
        picture = np.asarray(at(moment.observation, self.path))
        return _upright(np.moveaxis(picture, 0, -1) if self.channels_first else picture, self.flip)


@dataclass(frozen=True, eq=False)
class _PictureReader:
    shape: tuple[int, ...]
    flip: tuple[str, ...]

    def read(self, moment: Moment) -> np.ndarray:
        picture = np.asarray(moment.env.render())
        if picture.shape != self.shape or picture.dtype != np.uint8:
            raise SignalError(
                f"expected env.render() to give {self.shape} uint8, got {picture.shape} "
                f"{picture.dtype}; make the environment with that size, or change size"
            )
        return _upright(picture, self.flip)


def _upright(picture: np.ndarray, flip: tuple[str, ...]) -> np.ndarray:
    """A copy of the picture, so that an environment may write over its own."""
    if "vertical" in flip:
        picture = picture[::-1]
    if "horizontal" in flip:
        picture = picture[:, ::-1]
    return np.array(picture)


def image_reader(
    signal: ImageSignal, source: str | EnvImage | EnvPicture, env: gymnasium.Env
) -> Reader:
    """Reads (H, W, 3) uint8; raises SignalError where the environment has no such picture."""
    if isinstance(source, EnvPicture):
        if env.render_mode != "rgb_array":
            raise SignalError(
                f"type render: expected an environment whose render_mode is 'rgb_array', got "
                f'{env.render_mode!r}; use gymnasium.make(..., render_mode="rgb_array")'
            )
        return _sized(_PictureReader((*source.size, 3), source.flip), signal)
    image = EnvImage(key=source) if isinstance(source, str) else source
    path, leaf = find(env.observation_space, image.key)
    first = image.channels == "first"
    fits = isinstance(leaf, spaces.Box) and leaf.dtype == np.uint8 and len(leaf.shape) == 3
    if not fits or leaf.shape[0 if first else 2] != 3:
        form = "(3, H, W)" if first else "(H, W, 3)"
        other = "channels: last" if first else "channels: first"
        raise SignalError(
            f"key {image.key!r}: expected a Box of {form} uint8, got {described(leaf)}; "
            f"declare {other} where colours come {'last' if first else 'first'}"
        )
    height, width = leaf.shape[1:] if first else leaf.shape[:2]
    return _sized(_ImageReader(path, (height, width, 3), first, image.flip), signal)


def _sized(reader: Reader, signal: ImageSignal) -> Reader:
    if reader.shape[:2] not in signal.sizes:
        raise SignalError(
            f"expected a picture of (H, W) {' or '.join(map(str, signal.sizes))}, which the "
            f"signal accepts, got {reader.shape[:2]}; make the environment with one of these, "
            f"or add it to sizes"
        )
    return reader
