"""`canvas-robot export` and `ablate` say what they did, and refuse what they cannot do."""

import json
from pathlib import Path

import pytest
import torch
import typer
from accelerate.state import AcceleratorState, GradientState
from typer.testing import CliRunner

from canvas_robot.cli.ablate import ablate
from canvas_robot.cli.export import export
from canvas_robot.policy.checkpoint import load_checkpoint
from canvas_robot.resources import config_path
from canvas_robot.training.run_folder import RunFolderError

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "bridge_sample"

app = typer.Typer(pretty_exceptions_enable=False)
app.command("export")(export)
app.command("ablate")(ablate)


@pytest.fixture(autouse=True)
def alone():
    """Accelerate keeps one state for a process; torch, threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def config(tmp_path) -> Path:
    """A configuration file of one step."""
    if not SAMPLE.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")
    schema = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    schema["layout"].update(H=7, W=16)
    for region, bounds in {
        "visual": [1, 2, 0, 4, 0, 4],
        "proprio": [0, 2, 4, 5, 0, 1],
        "action": [1, 5, 4, 5, 1, 3],
        "goal": [0, 4, 5, 7, 0, 16],
    }.items():
        schema["regions"][region]["bounds"] = bounds
    (tmp_path / "small.json").write_text(json.dumps(schema))
    path = tmp_path / "small.yaml"
    path.write_text(
        f"data: {{folder: {SAMPLE}, holdout: 0.2, holdout_windows: 2, workers: 0}}\n"
        f"schema: {tmp_path / 'small.json'}\n"
        "statistics: bridge_v2.json\nsteps: 1\nbatch_size: 2\nema: {decay: 0.5}\n"
    )
    return path


def run(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(each) for each in arguments])


def test_a_part_of_the_grid_is_run_and_its_runs_exported(config, tmp_path):
    """The table of one cell; then that cell's run, exported again by hand."""
    out = tmp_path / "table"
    result = run("ablate", config, "-o", out, "--loops", "2", "--freeze", "half", "--episodes", "1")
    assert result.exit_code == 0, result.output
    assert "1/1 loops_2_freeze_half: training" in result.output
    assert "| half | 2 | " in result.output and str(out / "ablation.png") in result.output

    result = run("export", out / "loops_2_freeze_half", "-o", tmp_path / "mine", "--no-ema")
    assert result.exit_code == 0, result.output
    for text in (
        f"{tmp_path / 'mine'}: step 1 of 1, the weights themselves",
        "its actions are composed, motions that the arm achieved",
        f"evaluate it with: canvas-robot eval-offline {tmp_path / 'mine'} ",
        "bridge_dataset/1.0.0 --split train",
    ):
        assert text in result.output
    policy = load_checkpoint(tmp_path / "mine")
    assert policy.trained and policy.model.freeze == "half"


@pytest.mark.parametrize(
    "options, text",
    [
        (("--loops", "1,x"), "--loops: expected numbers from 1 to 64 with commas, got '1,x'"),
        (("--loops", "0"), "--loops: expected numbers from 1 to 64"),
        (("--freeze", "some"), "--freeze: expected some of full,half,none, got 'some'"),
    ],
)
def test_a_part_that_is_none_is_refused(config, tmp_path, options, text):
    result = run("ablate", config, "-o", tmp_path / "table", *options)
    assert isinstance(result.exception, ValueError) and text in str(result.exception)
    assert not (tmp_path / "table").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    result = run("export", tmp_path)
    assert isinstance(result.exception, RunFolderError)
    assert f"{tmp_path}: expected the folder of a run" in str(result.exception)
