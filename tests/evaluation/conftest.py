"""Pictures without a display, before any test imports MuJoCo; environments that are made up."""

import gc
import importlib
import os
from pathlib import Path

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")


@pytest.fixture(scope="module")
def little_to_collect():
    """Some benches collect garbage before each timing: what is there already is left out."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def made_up_envs():
    """The module made_up_envs beside this file, which registers its environments.

    Other processes find it, too, by "made_up_envs:made_up/NAME-v0".
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("made_up_envs")


@pytest.fixture
def line(made_up_envs) -> str:
    """Id of the environment with numbered episodes, two goals and pictures."""
    return "made_up_envs:made_up/Line-v0"


@pytest.fixture
def seeded(made_up_envs) -> str:
    """Id of the environment without ids, words and pictures."""
    return "made_up_envs:made_up/Seeded-v0"
