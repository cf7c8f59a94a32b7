"""Laws of faults: the node holds for the right reason, falls silent, and finds its way back."""

from __future__ import annotations

import pytest

from canvas_robot.ros.fault_bench import bench_faults


def _bad(result: dict) -> list[str]:
    return [f"{row['name']}: {row['verdict']}" for row in result["faults"] if not row["ok"]]


def test_a_silent_camera_a_nan_and_a_killed_model_hold_the_arm_and_it_goes_on():
    result = bench_faults(("camera-stops", "joint-nan", "model-killed"))
    assert not _bad(result)
    assert result["ok"] == result["of"] == 3


def test_what_is_requested_of_a_camera_holds_the_arm_before_its_pictures_are_old():
    result = bench_faults(("camera-deadline",))
    assert not _bad(result)
    (row,) = result["faults"]
    assert "deadline" in row["message"] and "newest sample" not in row["message"]


def test_a_clock_that_jumps_holds_for_that_reason_at_the_measured_pose():
    result = bench_faults(("clock-back", "clock-ahead"))
    assert not _bad(result)
    assert {row["reason"] for row in result["faults"]} == {"clock_jumped"}


def test_a_name_that_is_no_fault_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"camera-stops, .*; got camera-burns"):
        bench_faults(("camera-burns",))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_fault_is_met_as_it_should_be():
    assert not _bad(bench_faults())
