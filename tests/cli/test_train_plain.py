"""`canvas-robot train-plain` says what it did and how to go on; `export` knows its runs."""

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from canvas_robot.cli.export import export
from canvas_robot.cli.train_plain import train_plain
from canvas_robot.policy.loading import load_policy
from canvas_robot.resources import config_path
from canvas_robot.training.config_file import load_config
from canvas_robot.training.plain_config import PlainTrainConfig
from canvas_robot.training.run_folder import RunFolderError

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "bridge_sample"

app = typer.Typer(pretty_exceptions_enable=False)
app.command("train-plain")(train_plain)
app.command("export")(export)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small(tmp_path) -> list[str]:
    """The shipped configuration, made small: words of the command."""
    if not SAMPLE.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")
    return [
        "plain_sim.yaml",
        f"data.folder={SAMPLE}",
        "data.holdout=0.2",
        "data.holdout_windows=4",
        "network.width=4",
        "network.image_size=[32, 32]",
        "minutes=off",
        "steps=1",
        "batch_size=2",
        "optimiser.warmup_steps=0",
        f"run={tmp_path / 'run'}",
    ]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_a_run_is_trained_gone_on_with_and_exported(small, tmp_path):
    folder = tmp_path / "run"
    result = run("train-plain", *small)
    said = result.output.replace("\n", "")
    assert result.exit_code == 0 and "parameters, all trained" in said
    assert f"{folder}: step 0" in said
    assert f"canvas-robot eval --env ID --policy {folder}/export/step_00000001" in said
    assert (folder / "report.html").is_file()
    result = run("train-plain", "--resume", folder, "steps=2")
    assert result.exit_code == 0 and f"{folder}: step 1" in result.output.replace("\n", "")
    result = run("export", folder, "--no-ema")
    out = folder / "export" / "step_00000002_last"
    assert result.exit_code == 0 and f"{out}: step 2 of 2" in result.output
    assert "eval-offline" not in result.output
    assert load_policy(out).trained
    assert json.loads((out / "training.json").read_text())["weights"] == "last"


def test_the_shipped_configuration_is_one():
    config = load_config(config_path("train", "plain_sim.yaml"), (), PlainTrainConfig)
    assert config.minutes == 6 and config.network.binary == ("gripper",)


def test_nothing_to_do_and_nothing_to_go_on_with_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"such as plain_sim\.yaml, or --resume RUN"):
        run("train-plain")
    with pytest.raises(RunFolderError, match="start one with: canvas-robot train-plain CONFIG"):
        run("train-plain", "--resume", tmp_path)
