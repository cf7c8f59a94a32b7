"""The node's benchmark measures what it says: what comes out adds up, whatever the times are."""

from __future__ import annotations

import math

import pytest

from canvas_robot.ros.node_bench import bench_node

SECONDS = 8.0


@pytest.mark.timeout(180)
def test_the_figures_add_up(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    figures = bench_node(SECONDS, lambda line: None)
    for of in (figures, figures["stand_in"]):
        numbers = [value for value in of.values() if isinstance(value, float)]
        assert numbers and all(math.isfinite(number) for number in numbers)
        ticks = of["decisions"] + of["missed_ticks"] + of["holds"]
        assert 0.8 * SECONDS * 5 <= ticks
        assert of["commands"] > 0 and of["pictures"] > SECONDS * 30
        assert of["overhead_p50_ms"] <= of["overhead_p99_ms"]
        parts = of["poll_ms"] + of["assembly_ms"] + of["exchange_ms"] + of["publish_ms"]
        assert parts <= 2 * of["overhead_p99_ms"]
        assert of["memory_growth_mb"] < 40
    assert 0 < figures["squash_ms"] < figures["codec_ms"] and figures["forward_ms"] > 0
    assert figures["stand_in"]["forward_ms"] < figures["forward_ms"]
