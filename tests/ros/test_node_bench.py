"""The node's benchmark measures what it says: what comes out adds up, whatever the times are."""

from __future__ import annotations

import math

import pytest
from typer.testing import CliRunner

from canvas_robot.cli import app
from canvas_robot.ros import node_bench
from canvas_robot.ros.node_bench import BINDING, SCHEMA, bench_node, measure_node

STAND_IN = {"schema": SCHEMA, "binding": BINDING, "stand_in": "constant", "stand_in_ms": 5.0}


@pytest.fixture(autouse=True)
def own_domain(monkeypatch):
    """One that is drawn, not the user's."""
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)


def check(figures: dict, seconds: float) -> None:
    numbers = [value for value in figures.values() if isinstance(value, float)]
    assert numbers and all(math.isfinite(number) for number in numbers)
    ticks = figures["decisions"] + figures["missed_ticks"] + figures["holds"]
    assert ticks >= 0.8 * seconds * 5
    assert figures["commands"] > 0 and figures["pictures"] > seconds * 30
    assert figures["overhead_p50_ms"] <= figures["overhead_p99_ms"]
    assert figures["memory_growth_mb"] < 40


@pytest.mark.timeout(120)
def test_the_figures_of_a_stand_in_add_up():
    figures = measure_node(STAND_IN, 5.0)
    check(figures, 5.0)
    assert figures["squash_ms"] == 0.0 and 5.0 <= figures["forward_ms"]


def test_the_model_runs_on_the_device_asked_for_and_the_stand_in_on_none(monkeypatch):
    asked = []

    def measure(policy, seconds):
        asked.append(policy)
        return {"cpu": 0.0, "lost": 0}

    monkeypatch.setattr(node_bench, "measure_node", measure)
    result = CliRunner().invoke(app, ["bench", "node", "--device", "cuda"])
    assert result.exit_code == 0, result.output
    stand_in, model = asked
    assert "device" not in stand_in and model["device"] == "cuda"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_figures_of_both_runs_add_up():
    figures = bench_node(20.0, lambda line: None)
    check(figures, 20.0)
    check(figures["stand_in"], 20.0)
    assert 0 < figures["squash_ms"] < figures["codec_ms"] and figures["forward_ms"] > 0
