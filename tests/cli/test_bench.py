"""Laws of `canvas-robot bench`: where its figures go."""

import json

import pytest

from canvas_robot.cli.bench import app


def bench(*arguments) -> None:
    app(["policy", "--decisions", "5", *map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize("arguments", [["--json"], ["--json", "--threads", "1"]])
def test_without_a_file_the_figures_alone_are_printed(capfd, arguments):
    bench(*arguments)
    printed = capfd.readouterr()
    figures = json.loads(printed.out)
    assert all(name in printed.err for name in figures)


def test_with_a_file_they_are_written_there_and_the_table_is_printed(capfd, tmp_path):
    bench("--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    printed = capfd.readouterr()
    assert all(name in printed.out for name in figures)
