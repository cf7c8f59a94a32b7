"""A small policy on the tiny backbone, and samples for it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import settings

from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding, load_statistics

settings.register_profile("no deadline", deadline=None)  # a busy machine breaks no law
settings.load_profile("no deadline")

WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))
BRIDGE = load_statistics(config_path("statistics", "bridge_v2.json"))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For small tensors more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _small_schema(visual_steps: int = 1, **regions) -> CanvasSchema:
    """widowx_tiny with a picture of 4 x 4 patches; fields of regions replaced by name."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    data["layout"].update(H=7, W=16)
    bounds = {
        "visual": [2 - visual_steps, 2, 0, 4, 0, 4],
        "proprio": [0, 2, 4, 5, 0, 1],
        "action": [1, 5, 4, 5, 1, 3],
        "goal": [0, 4, 5, 7, 0, 16],
    }
    for name, region in data["regions"].items():
        region.update(bounds=bounds[name], **regions.get(name, {}))
    return CanvasSchema.from_dict(data)


def _small_policy(loops: int = 2, seed: int = 0, **schema) -> CanvasPolicy:
    return CanvasPolicy.untrained(_small_schema(**schema), WIDOWX, BRIDGE, loops=loops, seed=seed)


def _samples(seed: int, size: int = 64) -> dict[str, np.ndarray]:
    """One sample of each observed signal: an image of noise and a state that an arm may have."""
    random = np.random.default_rng(seed)
    state = random.uniform([0.2, -0.1, 0.05, *[-0.4] * 3, 0], [0.4, 0.1, 0.2, *[0.4] * 3, 1])
    image = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return {"image": image, "state": state.astype(np.float32)}


@pytest.fixture(scope="session")
def small_schema():
    """A function that makes a small schema that fits the shipped binding and the tiny backbone."""
    return _small_schema


@pytest.fixture(scope="session")
def make_policy():
    """A function that makes a small untrained policy."""
    return _small_policy


@pytest.fixture(scope="session")
def samples():
    """A function that draws one sample of each signal from a seed."""
    return _samples


@pytest.fixture(scope="session")
def widowx():
    """The shipped binding."""
    return WIDOWX


@pytest.fixture(scope="session")
def bridge():
    """The shipped statistics."""
    return BRIDGE


@pytest.fixture(scope="module")
def policy():
    """A small policy that a module shares; each test resets it."""
    return _small_policy()
