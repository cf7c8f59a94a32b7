"""Laws of the frame cache: each frame is encoded once while any window may still show it."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.policy.codecs.frame_cache import FrameCache
from canvas_robot.signals import Frames


def frames(stamps, offset: int = 0) -> Frames:
    """Frames whose pixel is their stamp."""
    values = np.array(stamps, np.float32)[:, None] + offset
    return Frames(values, np.array(stamps, np.int64), np.zeros(len(stamps), bool))


class Encoder:
    """Counts what it encodes."""

    def __init__(self):
        self.seen = []

    def __call__(self, image):
        self.seen.append(int(image[0]))
        return torch.from_numpy(image) * 2


def test_encodings_are_stacked_in_the_order_of_the_frames():
    encoded = FrameCache().encode(frames([3, 5, 5]), "camera", "eye", Encoder())
    assert encoded.tolist() == [[6.0], [10.0], [10.0]]


windows = st.lists(  # the oldest frame of a window never goes back; others may
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), min_size=1, max_size=3)),
    min_size=1,
    max_size=12,
)


@given(windows, windows)
def test_no_frame_is_encoded_twice_whatever_the_windows_of_two_regions(first, second):
    cache, encoder = FrameCache(), Encoder()
    starts = [0, 0]
    for moves in zip(first, second, strict=False):
        for region, (step, shown) in enumerate(moves):
            stamps = [starts[region], *(starts[region] + offset for offset in shown)]
            encoded = cache.encode(frames(sorted(stamps)), "camera", str(region), encoder)
            assert encoded[:, 0].tolist() == [2.0 * stamp for stamp in sorted(stamps)]
            starts[region] += step
    assert len(encoder.seen) == len(set(encoder.seen))


def test_other_cameras_and_other_sizes_are_told_apart():
    cache, encoder = FrameCache(), Encoder()
    for camera in (("wrist", 64), ("wrist", 128), ("table", 64)):
        cache.encode(frames([1]), camera, "eye", encoder)
    assert encoder.seen == [1, 1, 1]


def test_frames_older_than_every_window_are_forgotten():
    cache, encoder = FrameCache(), Encoder()
    for stamps in ([1], [2], [1]):
        cache.encode(frames(stamps), "camera", "eye", encoder)
    assert encoder.seen == [1, 2, 1]


def test_a_cleared_cache_knows_nothing():
    cache, encoder = FrameCache(), Encoder()
    cache.encode(frames([1]), "camera", "eye", encoder)
    cache.clear()
    again = cache.encode(frames([1], offset=100), "camera", "eye", encoder)
    assert again.tolist() == [[202.0]]
