"""squash: a camera image to the policy's own size, aspect not kept, as Bridge V2 did.

The only one in the package.
"""

from __future__ import annotations

import cv2
import numpy as np


def squash(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 to (height, width, 3) uint8.

    Area averaging when shrinking, Lanczos when enlarging; an image that has the size already is
    returned as it is. Bridge V2 squashed 640x480 to 256x256 with PIL's Lanczos filter; the mean
    difference is measured in the tests.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    )
