"""Laws of `canvas-robot train`: what it is told, what it says, how it ends."""

import pytest
from typer.testing import CliRunner

from canvas_robot.cli import app
from canvas_robot.training.run_folder import RunFolder, RunFolderError


@pytest.fixture
def run(monkeypatch):
    """A function that runs the command in this process; what it raises comes through."""
    monkeypatch.setenv("COLUMNS", "120")

    def invoke(*words):
        return CliRunner().invoke(app, ["train", *map(str, words)], catch_exceptions=False)

    return invoke


@pytest.fixture
def small(make_config, write_config, tmp_path):
    """A configuration file."""
    return write_config(make_config("steps=1", "data.holdout=off"), tmp_path / "small.yaml")


def test_a_configuration_is_trained_and_gone_on_with(run, small, tmp_path):
    folder = tmp_path / "run"
    assert run(small, f"run={folder}", "optimiser.lr=1e-3").exit_code == 0
    assert RunFolder.open(folder).config().optimiser.lr == 1e-3
    result = run("--resume", folder, "steps=2")
    assert result.exit_code == 0 and f"{folder}: step 1 of 2" in result.output.replace("\n", "")
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == [
        "step_00000001",
        "step_00000002",
    ]


def test_fit_prints_a_table_and_writes_nothing(run, small, tmp_path):
    result = run(small, "--fit", f"run={tmp_path / 'run'}")
    assert result.exit_code == 0
    for said in ("parameters trained", "largest batch in 80 GB", "Nothing was trained"):
        assert said in result.output
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_is_refused_with_the_command_that_starts_one(run, tmp_path):
    with pytest.raises(RunFolderError, match="start one with: canvas-robot train CONFIG"):
        run("--resume", tmp_path)


def test_a_configuration_that_is_not_there_is_refused_with_those_that_are(run):
    with pytest.raises(FileNotFoundError, match=r"tiny_sim\.yaml"):
        run("tiny_simm.yaml")


def test_nothing_to_do_is_refused(run):
    with pytest.raises(ValueError, match="expected a configuration, such as"):
        run()
