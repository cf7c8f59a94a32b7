"""Laws of the metrics: means over updates, rows that are cut back exactly."""

import msgspec
import pytest
from accelerate import Accelerator

from canvas_robot.training.meter import Meter, MetricsRow, Sums, truncate_metrics


def row(step, **changes):
    fields = {
        "step": step,
        "epoch": 0,
        "loss": 0.5,
        "parts": {"action": 0.5},
        "lr": 1e-3,
        "loops": 2,
        "grad_norm": 1.0,
        "steps_per_s": 2.0,
        "data_wait": 0.25,
        "memory_mb": 100.0,
        "time": 1.0,
    }
    return MetricsRow(**fields | changes)


def write(path, *rows, end=b"\n"):
    path.write_bytes(b"\n".join(msgspec.json.encode(r) for r in rows) + end)


def test_a_row_has_means_over_the_updates_since_the_last_one():
    meter, accelerator = Meter(), Accelerator()
    meter.add({"loss": 1.0, "grad_norm": 4.0}, seconds=1.0, waited=0.0)
    meter.add({"loss": 2.0, "grad_norm": 2.0}, seconds=3.0, waited=1.0)
    assert meter.means(accelerator) == {
        "loss": 1.5,
        "grad_norm": 3.0,
        "steps_per_s": 0.5,
        "data_wait": 0.25,
    }
    meter.add({"loss": 7.0}, seconds=1.0, waited=0.0)
    assert meter.means(accelerator)["loss"] == 7.0


def test_sums_are_kept_exactly_in_json():
    meter = Meter()
    for value in (0.1, 1 / 3, 1e-20):
        meter.add({"loss": value}, seconds=0.1, waited=0.0)
    assert msgspec.json.decode(msgspec.json.encode(meter.sums), type=Sums) == meter.sums


def test_scalars_are_numbers_by_tag():
    scalars = row(1, held_out=0.7, held_out_parts={"action": 0.7}).scalars()
    assert scalars["loss/total"] == scalars["loss/action"] == 0.5
    assert scalars["held_out/total"] == scalars["held_out/action"] == 0.7
    assert {"lr", "loops", "grad_norm", "steps_per_s", "data_wait", "memory_mb"} < set(scalars)
    assert "held_out/total" not in row(1).scalars()


def test_rows_beyond_a_step_are_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, row(2), row(4), row(6))
    truncate_metrics(path, 4)
    lines = path.read_bytes().splitlines()
    assert [msgspec.json.decode(line)["step"] for line in lines] == [2, 4]
    truncate_metrics(path, 0)
    assert path.read_bytes() == b""
    truncate_metrics(tmp_path / "none.jsonl", 4)


def test_half_a_row_at_the_end_is_removed_and_elsewhere_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, row(2), end=b'\n{"step": 3, "lo')
    truncate_metrics(path, 10)
    assert path.read_bytes() == msgspec.json.encode(row(2)) + b"\n"
    path.write_bytes(b'{"step": 3, "lo\n' + msgspec.json.encode(row(4)) + b"\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 1: expected a row of metrics"):
        truncate_metrics(path, 10)
