"""`canvas-robot data stats` shows exact statistics beside the published ones, and keeps them."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from canvas_robot.cli.data_stats import stats
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.statistics import signal_statistics
from canvas_robot.data.transitions import DataRules
from canvas_robot.signals import load_statistics

SAMPLE = Path(__file__).parents[3] / "shared/data/bridge_sample"
PARITY = "--actions naive --first-step keep --language keep --black keep".split()

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(stats)


@pytest.fixture(autouse=True)
def _sample():
    if not SAMPLE.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")


def run(*arguments):
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(SAMPLE), *map(str, arguments)])


def test_what_is_written_is_what_was_computed(tmp_path):
    path = tmp_path / "statistics.json"
    result = run("-o", path)
    assert result.exit_code == 0, result.output
    assert f"written to {path}" in result.output
    dataset = BridgeV2(SAMPLE)
    written = load_statistics(path)
    assert written == signal_statistics(dataset, DataRules())
    assert dataset.fingerprint in written["state"].source
    assert "200 transitions of 25 episodes; left out of 25: none" in result.output


def test_they_stand_beside_the_published_ones():
    result = run(*PARITY, "--split", "val")
    assert result.exit_code == 0, result.output
    assert "225 transitions of 25 episodes" in result.output
    rows = {
        line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line.split()
    }
    computed = signal_statistics(
        BridgeV2(SAMPLE, "val"),
        DataRules(actions="naive", first_step="keep", language="keep", black="keep"),
    )["action"]
    dyaw = computed.mean[5], 2.516e-4, computed.std[5], 0.075859, computed.q01[5], -0.205486
    assert rows["dyaw"][:6] == [f"{value:.4g}" for value in dyaw]
    assert rows["dyaw"][-2:] == [f"{computed.low[5]:.4g}", f"{computed.high[5]:.4g}"]
    assert "published: allenzren/open-pi-zero" in result.output
    assert " ".join(PARITY) in result.output


def test_nothing_is_written_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run().exit_code == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--actions", "foo"], "--actions: expected one of composed, naive, recorded, got 'foo'"),
        (["--first-step", "skip"], "--first-step: expected one of drop, keep, got 'skip'"),
        (["--split", "test"], r"split: expected one of \['train', 'val'\], got 'test'"),
        (["--camera", "image_3"], "left out: .*'no picture from image_3': 25"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        app([str(SAMPLE), *arguments], standalone_mode=False)
