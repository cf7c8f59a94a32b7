"""PictureWatch: says when a camera shows nothing, or the same thing for too long. No node."""

from __future__ import annotations

import zlib
from typing import final

import numpy as np

from canvas_robot.ros.messages import MessageError
from canvas_robot.signals.binding import RosImage

_EVERY = 8  # pixels of each axis that are looked at: 4,800 of 640x480


@final
class PictureWatch:
    """Of one camera, whose limits the binding declares at its source."""

    def __init__(self, source: RosImage) -> None:
        self._source = source
        self._seen: int | None = None
        self._since_ns = 0

    def look(self, image: np.ndarray, stamp_ns: int) -> None:
        """Raises MessageError for a picture (H, W, 3) uint8 that must not be acted on."""
        dark, frozen_s = self._source.dark_below, self._source.frozen_after_s
        if not dark and not frozen_s:
            return
        some = np.ascontiguousarray(image[::_EVERY, ::_EVERY])
        if some.mean() < dark:
            raise MessageError(
                f"the picture is black: mean {some.mean():.1f} of 255, expected at least {dark:g}; "
                f"take the lid off the camera, switch the light on"
            )
        if not frozen_s:
            return
        seen = zlib.crc32(some)
        if seen != self._seen:
            self._seen, self._since_ns = seen, stamp_ns
        elif stamp_ns - self._since_ns > frozen_s * 1e9:
            raise MessageError(
                f"the picture has not changed for {(stamp_ns - self._since_ns) / 1e9:.1f} s, "
                f"expected at most {frozen_s:g} s; restart the camera"
            )
