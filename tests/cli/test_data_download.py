"""`canvas-robot data download` says what it will do, does it, and says what became of it."""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from canvas_robot.cli.data_download import download
from canvas_robot.data.bridge import BridgeV2

SAMPLE = Path(__file__).parents[3] / "shared/data/bridge_sample/bridge_dataset/1.0.0"
TRAIN = "bridge_dataset-train.tfrecord-00000-of-00001"

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(download)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """(folder, address) of a copy of the real sample."""
    if not SAMPLE.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")
    folder = tmp_path / "served"
    folder.mkdir()
    for path in SAMPLE.iterdir():
        shutil.copyfile(path, folder / path.name)
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def run(*arguments):
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, [str(argument) for argument in arguments])


def test_it_fetches_checks_and_tells(served, tmp_path):
    result = run(tmp_path / "data", "--url", served[1], "--yes")
    assert result.exit_code == 0, result.output
    assert "2 files, 50 episodes, 7.0 MB; about 7.0 MB to fetch" in result.output
    assert f"{TRAIN}: fetched" in result.output
    assert "every record is whole: " in result.output
    assert len(BridgeV2(tmp_path / "data")) == 25
    again = run(tmp_path / "data", "--url", served[1], "--yes")
    assert again.exit_code == 0 and "about 0 bytes to fetch" in again.output
    assert [line.split()[1:4] for line in again.output.splitlines() if "kept" in line][-1] == [
        "kept", "│", "2"
    ]  # fmt: skip


def test_a_file_that_fails_is_named_with_what_to_do_and_the_exit_code(served, tmp_path):
    folder, url = served
    (folder / TRAIN).unlink()
    result = run(tmp_path / "data", "--url", url, "--yes")
    assert result.exit_code == 1
    assert f"failed: {url}{TRAIN}: the server answers 404" in result.output
    assert "look at --url, --dataset and --version" in result.output
    assert "every record is whole" not in result.output
    assert len(list((tmp_path / "data/bridge_dataset/1.0.0").glob("*-val.*"))) == 1


def test_splits_are_named_with_commas_between_them(served, tmp_path):
    result = run(tmp_path / "data", "--url", served[1], "--yes", "--split", "val, train")
    assert result.exit_code == 0 and "2 files" in result.output
    one = run(tmp_path / "data", "--url", served[1], "--yes", "--split", "val")
    assert "1 file, 25 episodes" in one.output


def test_without_a_terminal_it_asks_for_the_option_and_fetches_nothing(served, tmp_path):
    result = run(tmp_path / "data", "--url", served[1])
    assert "expected --yes, or a terminal to ask in" in str(result.exception)
    assert not (tmp_path / "data").exists()
