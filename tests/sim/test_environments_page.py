"""The example of docs/environments.md runs as it is written, and shows what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from canvas_robot.resources import config_root
from canvas_robot.signals import load_binding

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "environments.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The names that the page's Python leaves, run beside its YAML."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "pen.yaml").write_text(blocks("yaml")[0])
    names: dict = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks("python"):
            exec(block, names)
    torch.set_num_threads(threads)
    return names


def test_the_pen_has_been_moved_by_an_untrained_policy(ran):
    assert ran["env"].canvas_observation.tick == 10
    assert ran["info"]["instruction"] == "draw a dot in the corner"
    assert ran["info"]["success"] is False


def test_the_hand_is_seen_from_the_base_as_the_page_says(ran):
    seen, _ = ran["env"].reset(seed=0)
    np.testing.assert_allclose(seen["proprio"][-1], [0.3, 0, 0.1, 0, 0, 0, 1], atol=1e-6)


def test_forward_for_the_arm_is_back_for_the_room(ran):
    env = ran["env"]
    env.reset(seed=0)
    seen, *_ = env.step(np.array([0.05, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(env.unwrapped.at, [1.35, 2.0, 0.9], atol=1e-6)
    np.testing.assert_allclose(seen["proprio"][-1], [0.35, 0, 0.1, 0, 0, 0, 0], atol=1e-6)


def test_the_page_names_every_binding_of_an_environment():
    for path in (config_root() / "bindings").glob("*.yaml"):
        if load_binding(path).environment is not None:
            assert f"`{path.name}`" in PAGE
