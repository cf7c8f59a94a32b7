"""Laws of a run's report: it is made from whatever is there, and names what is not."""

import base64
import re
from html.parser import HTMLParser

import cv2
import msgspec
import numpy as np
import pytest

from canvas_robot.evaluation.training_report import (
    MOST_POINTS,
    read_metrics,
    thinned,
    write_training_report,
)
from canvas_robot.training.config_file import config_of
from canvas_robot.training.meter import MetricsRow
from canvas_robot.training.run_folder import Facts, RunFolderError

CONFIG = config_of({"data": {"folder": "bridge"}, "steps": 40, "batch_size": 2}, "made up")
FACTS = Facts(
    started=[{"time": "2026-01-01T00:00:00+00:00", "step": 0, "git": {"commit": "c" * 40}}],
    backbone={"source": "tiny", "sha256": {"vae": "0" * 64}, "trained": False},
    data={"folder": "bridge", "left_out": {"blank instruction": 3, "too few steps": 0}},
    held_out=None,
    actions="composed",
    gradient_checkpointing=False,
    trained=21_007,
    frozen=3_864_339,
)


def row(step: int, **changes) -> MetricsRow:
    fields = {
        "step": step,
        "epoch": 0,
        "loss": 1.0 / step,
        "parts": {"action": 0.5 / step, "future": 1.5 / step},
        "lr": 3e-4,
        "loops": 1 + step // 20,
        "grad_norm": 2.0,
        "steps_per_s": 4.0,
        "data_wait": 0.01,
        "memory_mb": 700.0,
        "time": 1e9 + step,
    }
    return MetricsRow(**fields | changes)


def encoded(*rows: MetricsRow) -> bytes:
    return b"".join(msgspec.json.encode(each) + b"\n" for each in rows)


@pytest.fixture
def run(tmp_path):
    """A whole run, four rows."""
    (tmp_path / "config.yaml").write_text(CONFIG.to_yaml())
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(FACTS))
    held = {"held_out": 0.2, "held_out_parts": {"action": 0.1, "future": 0.3}}
    rows = [row(10), row(20, **held), row(30), row(40, **held)]
    (tmp_path / "metrics.jsonl").write_bytes(encoded(*rows))
    (tmp_path / "checkpoints" / "step_00000040").mkdir(parents=True)
    return tmp_path


class Page(HTMLParser):
    def __init__(self, path) -> None:
        super().__init__()
        self.pictures, self.sources, parts = [], [], []
        self.handle_data = parts.append
        self.feed(path.read_text())
        self.text = re.sub(r"\s+", " ", " ".join(parts))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href"):
                self.sources.append(value)
        if tag == "img":
            data = base64.b64decode(dict(attrs)["src"].partition("base64,")[2])
            self.pictures.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def test_the_page_holds_the_curves_the_configuration_and_what_was_left_out(run):
    path = write_training_report(run)
    assert path == run / "report.html"
    page = Page(path)
    (picture,) = page.pictures
    assert picture.shape[1] > 1200 and picture.std() > 5
    for text in (
        "Steps 40 of 40",
        "Held-out loss 0.2",
        "Episodes left out of those trained on: 3 blank instruction.",
        "Nothing was held out:",
        "weights are random, from a seed",
        "data.folder bridge",
        "checkpoints of steps 40",
        "git.commit " + "c" * 40,
    ):
        assert text in page.text
    assert "Missing:" not in page.text


def test_the_page_needs_nothing_but_itself(run):
    assert all(source.startswith("data:") for source in Page(write_training_report(run)).sources)


def test_each_curve_is_drawn(run):
    (whole,) = Page(write_training_report(run)).pictures
    for change in ("lr", "grad_norm", "memory_mb"):
        rows = [row(10), row(20), row(30, **{change: 1234.0}), row(40)]
        (run / "metrics.jsonl").write_bytes(encoded(*rows))
        (changed,) = Page(write_training_report(run)).pictures
        assert not np.array_equal(whole, changed)
        whole = changed


def test_a_line_that_is_being_written_is_passed_over(run):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 50, "los')
    rows, problems = read_metrics(run / "metrics.jsonl")
    assert [each.step for each in rows] == [10, 20, 30, 40] and not problems


def test_lines_that_are_no_rows_are_named_and_the_others_shown(run):
    path = run / "metrics.jsonl"
    path.write_bytes(encoded(row(10)) + b"\xff\n{}\n" + encoded(row(20)))
    assert [each.step for each in read_metrics(path)[0]] == [10, 20]
    page = Page(write_training_report(run))
    assert "metrics.jsonl: 2 lines are no rows and left out: 2, 3" in page.text
    assert "Not finished: step 20 of 40." in page.text


def test_of_a_step_that_was_run_twice_the_last_row_counts(run):
    path = run / "metrics.jsonl"
    path.write_bytes(encoded(row(10), row(20), row(20, loss=9.0)))
    assert [each.loss for each in read_metrics(path)[0]] == [0.1, 9.0]


@pytest.mark.parametrize("content", [None, b"", b'{"step'])
def test_a_run_that_has_only_begun_has_a_page(run, content):
    (run / "metrics.jsonl").unlink()
    if content is not None:
        (run / "metrics.jsonl").write_bytes(content)
    page = Page(write_training_report(run))
    assert not page.pictures and "metrics.jsonl: nothing was written yet" in page.text
    assert "Steps 0 of 40" in page.text


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
def test_a_spoilt_record_is_named_and_the_rest_shown(run, name):
    (run / name).write_text("{ nothing")
    page = Page(write_training_report(run))
    assert page.pictures and "Missing:" in page.text and name in page.text


def test_no_run_no_page(tmp_path):
    with pytest.raises(RunFolderError, match="expected the folder of a run"):
        write_training_report(tmp_path)


def test_names_from_outside_are_text_and_no_markup(run):
    spoilt = msgspec.structs.replace(FACTS, data={"folder": "<script>alert(1)</script>"})
    (run / "run.json").write_bytes(msgspec.json.encode(spoilt))
    text = write_training_report(run).read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


def test_a_long_run_draws_few_points(run):
    steps, values = thinned(range(1, 100_001), range(100_000))
    assert len(steps) <= MOST_POINTS and steps[0] == 1 and steps[-1] == 100_000
    assert values[-1] == 99_999
