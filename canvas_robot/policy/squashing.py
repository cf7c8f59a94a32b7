"""Squashing: observations whose pictures have the sizes that a model looks at. No torch.

Whoever sends observations elsewhere sends less of them so; the decisions are the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import final

import numpy as np

from canvas_robot.policy.codecs.squash import squash
from canvas_robot.signals import Frames, Observation


@final
class Squashing:
    """Of one episode at a time: each picture is squashed once, however often it is shown.

    Args:
        sizes: (height, width) in pixels by name of a region that cameras fill.
    """

    def __init__(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        self._sizes = dict(sizes)
        self._shown: dict[str, Frames] = {}  # by region, squashed
        self.milliseconds = 0.0  # spent on the last observation

    def reset(self) -> None:
        """Another episode: stamps do not tell its pictures from the last one's."""
        self._shown = {}

    def observation(self, observation: Observation) -> Observation:
        """The same observation with squashed pictures."""
        started = time.perf_counter()
        frames = dict(observation.frames)
        for region in self._sizes.keys() & frames.keys():
            frames[region] = self._frames(region, frames[region])
        self.milliseconds = (time.perf_counter() - started) * 1e3
        return Observation(observation.tick, observation.stamp_ns, frames)

    def _frames(self, region: str, given: Frames) -> Frames:
        size = self._sizes[region]
        if given.values.shape[1:3] == size:
            return given
        shown, stamps = self._shown.get(region), given.stamps_ns.tolist()
        known = {}
        if shown is not None:
            if (
                shown.stamps_ns.tolist() == stamps
                and shown.missing.tolist() == given.missing.tolist()
            ):
                return shown
            known = dict(zip(shown.stamps_ns.tolist(), shown.values, strict=True))
        for stamp, picture in zip(stamps, given.values, strict=True):
            if stamp not in known:
                known[stamp] = squash(picture, size)
        pictures = [known[stamp] for stamp in stamps]
        values = pictures[0][None] if len(pictures) == 1 else np.stack(pictures)
        self._shown[region] = Frames(values, given.stamps_ns, given.missing)
        return self._shown[region]
