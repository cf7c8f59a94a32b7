"""Laws of squash: nothing at equal size; close to the filter that Bridge V2 used."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from canvas_robot.data.video import read_video
from canvas_robot.policy.codecs.squash import squash

CLIP = Path(__file__).parents[4] / "shared" / "data" / "clips" / "bridge_real_1.mp4"


def lanczos(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What Bridge V2 did to its 640x480 pictures."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))


def mean_difference(image: np.ndarray, size: tuple[int, int]) -> float:
    """In grey levels of 255."""
    return float(np.abs(squash(image, size).astype(float) - lanczos(image, size)).mean())


def smooth_picture(seed: int, height: int = 480, width: int = 640) -> np.ndarray:
    """Slow waves, a soft disc and a fine texture, each as blurred as a camera's picture is."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 480
    channels = []
    for _ in range(3):
        fx, fy, phase, cx, cy = random.uniform([-20, -20, 0, 0.2, 0.2], [20, 20, 6, 1.1, 0.8])
        disc = 1 / (1 + np.exp((np.hypot(x - cx, y - cy) - 0.2) * 250))
        texture = gaussian_filter(random.normal(size=(height, width)), 2.0)
        waves = np.sin(fx * x + fy * y + phase)
        channels.append(90 + 30 * waves + 60 * disc + 12 * texture / texture.std())
    return np.stack(channels, axis=2).clip(0, 255).round().astype(np.uint8)


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(0, 2**31))
def test_an_image_of_the_right_size_is_returned_as_it_is(size, seed):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert squash(image, size) is image


@pytest.mark.parametrize("seed", range(4))
def test_a_smooth_picture_differs_little_from_bridges_own_filter(seed):
    """Measured: 0.76 to 0.77 of 255 on the mean; nearest neighbours would give 4.5."""
    assert mean_difference(smooth_picture(seed), (256, 256)) <= 1.5


@pytest.mark.skipif(not CLIP.exists(), reason="no recorded clip at ../shared/data/clips")
def test_real_frames_differ_little_from_bridges_own_filter():
    """Measured over 37 frames: 0.73 to 0.90 of 255; linear without averaging would give 1.3."""
    frames, _ = read_video(CLIP)
    assert frames.shape[1:] == (480, 640, 3)
    assert max(mean_difference(frame, (256, 256)) for frame in frames[::6]) <= 1.5


@pytest.mark.parametrize("size", [(256, 256), (100, 256), (256, 100)])
def test_enlarging_stays_close_to_the_same_filter(size):
    picture = smooth_picture(0)[::8, ::8]
    assert mean_difference(np.ascontiguousarray(picture), size) <= 1.5


@given(
    st.integers(0, 255),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_an_even_grey_stays_that_grey_at_any_size(grey, before, after):
    squashed = squash(np.full((*before, 3), grey, np.uint8), after)
    assert squashed.shape == (*after, 3) and squashed.dtype == np.uint8
    assert (squashed == grey).all()


def test_the_whole_picture_is_squashed_none_of_it_is_cut():
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, :320, 0], image[:, 320:, 1] = 200, 100
    squashed = squash(image, (256, 256))
    assert (squashed[:, :128] == [200, 0, 0]).all() and (squashed[:, 128:] == [0, 100, 0]).all()
