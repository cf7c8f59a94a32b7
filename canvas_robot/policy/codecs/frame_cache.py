"""FrameCache: one episode's encoded camera frames, so that each is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import torch

from canvas_robot.signals import Frames


class FrameCache:
    """Encoded frames by stamp; regions that show the same camera at the same size share them.

    One cache serves one episode: stamps tell its frames apart, not those of several episodes.
    """

    def __init__(self) -> None:
        self.squash_ms = 0.0  # spent on bringing new frames to size, over all episodes
        self._encoded: dict[Hashable, dict[int, torch.Tensor]] = {}
        self._oldest: dict[Hashable, dict[str, int]] = {}

    def encode(
        self,
        frames: Frames,
        camera: Hashable,
        region: str,
        encode_image: Callable[[np.ndarray], torch.Tensor],
    ) -> torch.Tensor:
        """Stacked encodings (F, ...) of a region's frames.

        Forgets frames older than all that the camera's regions show: windows move forward only.

        Args:
            camera: what tells the encodings apart: the signal and the size it is encoded at.
        """
        known = self._encoded.setdefault(camera, {})
        stamps = frames.stamps_ns.tolist()
        for stamp, image in zip(stamps, frames.values, strict=True):
            if stamp not in known:
                known[stamp] = encode_image(image)
        oldest = self._oldest.setdefault(camera, {})
        oldest[region] = min(stamps)
        first = min(oldest.values())
        self._encoded[camera] = {s: latent for s, latent in known.items() if s >= first}
        return torch.stack([known[stamp] for stamp in stamps])

    def clear(self) -> None:
        """Forgets all: the next frame is of another episode."""
        self._encoded, self._oldest = {}, {}
