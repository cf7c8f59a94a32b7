"""Recorded data for the tests, and small made-up episodes."""

from pathlib import Path

import numpy as np
import pytest

from canvas_robot.data.episode import Episode

SHARED = Path(__file__).parents[3] / "shared" / "data"


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"recorded data not found at ../shared/data/{'/'.join(parts)}")
    return path


@pytest.fixture(scope="session")
def bridge_sample() -> Path:
    """The version folder of 25 real Bridge V2 episodes, cut to 10 steps, pictures 64x64."""
    return _shared("bridge_sample", "bridge_dataset", "1.0.0")


@pytest.fixture(scope="session")
def bridge_clip() -> Path:
    """A real Bridge scene: 37 frames, 640x480, 5 a second."""
    return _shared("clips", "bridge_real_1.mp4")


def _make_episode(steps: int = 4, size: tuple[int, int] = (32, 48), **changes) -> Episode:
    random = np.random.default_rng(steps)
    rows, columns = np.mgrid[: size[0], : size[1]]
    images = np.stack(
        [
            np.stack([4 * rows, 4 * columns, 8 * (rows // 8) + step], axis=-1)
            for step in range(steps)
        ]
    )
    fields = {
        "name": f"made up, {steps} steps",
        "instruction": f"take {steps} steps",
        "images": images.astype(np.uint8),
        "states": random.normal(size=(steps, 7)).astype(np.float32),
        "actions": random.normal(size=(steps, 7)).astype(np.float32),
        "stamps_ns": np.arange(steps, dtype=np.int64) * 200_000_000,
    }
    return Episode(**{**fields, **changes})


@pytest.fixture
def make_episode():
    """A function that makes an Episode; keyword arguments replace its fields."""
    return _make_episode
