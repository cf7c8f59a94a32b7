"""`canvas-robot eval-offline` prints what it judged and leaves the report."""

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from canvas_robot.cli.eval_offline import eval_offline
from canvas_robot.policy.checkpoint import save_checkpoint
from canvas_robot.policy.checkpoint_files import CheckpointError
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding, load_statistics

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "bridge_sample"

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(eval_offline)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For small tensors more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Untrained weights of a small schema."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    data["layout"].update(H=7, W=16)
    for region, bounds in {
        "visual": [1, 2, 0, 4, 0, 4],
        "proprio": [0, 2, 4, 5, 0, 1],
        "action": [1, 5, 4, 5, 1, 3],
        "goal": [0, 4, 5, 7, 0, 16],
    }.items():
        data["regions"][region]["bounds"] = bounds
    policy = CanvasPolicy.untrained(
        CanvasSchema.from_dict(data),
        load_binding(config_path("bindings", "widowx.yaml")),
        load_statistics(config_path("statistics", "bridge_v2.json")),
        loops=1,
    )
    return save_checkpoint(policy, tmp_path_factory.mktemp("checkpoints") / "untrained")


def run(*arguments):
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, [str(each) for each in arguments])


@pytest.fixture
def sample():
    if not SAMPLE.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")
    return SAMPLE


def test_it_prints_the_table_and_writes_the_folder_and_the_figures(checkpoint, sample, tmp_path):
    out, figures = tmp_path / "report", tmp_path / "figures.json"
    result = run(checkpoint, sample, "--episodes", 2, "-o", out, "--json", figures)
    assert result.exit_code == 0, result.output
    for text in (
        "trained: false; actions: composed; bridge_dataset/val, fingerprint 41086cd5ecec: "
        "2 episodes, 16 windows",
        "These weights were never trained",
        "The checkpoint does not say what its actions mean",
        "previous action",
        "zero action",
        "motion, normalised",
        str(out / "report.html"),
    ):
        assert text in result.output
    assert json.loads(figures.read_text()) == json.loads((out / "report.json").read_text())
    assert (out / "report.html").is_file()


def test_a_folder_that_is_no_checkpoint_is_named(sample, tmp_path):
    result = run(tmp_path, sample)
    assert isinstance(result.exception, CheckpointError)
    assert f"checkpoint {tmp_path}: expected a folder with" in str(result.exception)


def test_a_split_that_is_not_there_is_named(checkpoint, sample, tmp_path):
    result = run(checkpoint, sample, "--split", "test", "-o", tmp_path)
    assert "expected one of ['train', 'val'], got 'test'" in str(result.exception)
