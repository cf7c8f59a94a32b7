"""docs/simulation.md names what there is: every environment, every setting, every fact."""

import inspect
import re
from pathlib import Path

import gymnasium
import pytest

from canvas_robot.sim.environment import WidowXEnv
from canvas_robot.sim.registration import ENV_IDS, register
from canvas_robot.sim.tasks import task_named

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "simulation.md").read_text("utf-8")


@pytest.mark.parametrize("task, env_id", ENV_IDS.items())
def test_a_row_of_the_table_is_the_task(task, env_id):
    register()
    (row,) = re.findall(
        rf"^\| `{env_id.removeprefix('canvas_robot/')}` \|(.*)$", PAGE, re.MULTILINE
    )
    words, steps, *_ = (cell.strip() for cell in row.split("|"))
    episode = task_named(task).episode(90_000)
    assert words.split(" (")[0] in {episode.instruction, "touch the red cube"}
    assert int(steps) == gymnasium.spec(env_id).max_episode_steps


def test_every_setting_is_named():
    settings = set(inspect.signature(WidowXEnv).parameters) - {"task", "render_mode"}
    assert not [name for name in settings if not re.search(rf"`{name}[`=]", PAGE)]


def test_every_entry_of_info_is_named():
    register()
    env = gymnasium.make(ENV_IDS["stack_cube"], obs="state")
    _, info = env.reset(seed=0)
    env.close()
    assert not [name for name in info if name != "elapsed_steps" and name not in PAGE]


def test_pictures_are_there_and_small():
    pictures = [DOCS / name for name in re.findall(r"!\[.*?\]\((.*?)\)", PAGE)]
    assert len(pictures) == 2
    assert all(0 < picture.stat().st_size < 400_000 for picture in pictures)
