"""Laws of the bench of simulated tasks: figures of the right kind, of episodes that repeat."""

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from canvas_robot.cli.bench import app
from canvas_robot.evaluation.sim_bench import (
    LEAST_STEPS_PER_S,
    LOOKS,
    MOST_MS,
    _made,
    bench_sim,
    one_core,
    record,
    speed_of,
    targets_met,
)
from canvas_robot.sim.registration import register


@pytest.fixture(scope="module", autouse=True)
def registered():
    register()


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The command's output, and the figures that it wrote; the smallest run that there is."""
    path, cores = tmp_path_factory.mktemp("bench") / "sim.json", os.sched_getaffinity(0)
    words = ["sim", "--tasks", "reach", "--steps", "1", "--pictures", "1", "--json", str(path)]
    result = CliRunner(env={"COLUMNS": "120"}).invoke(app, words)
    assert result.exit_code == 0, result.output
    assert os.sched_getaffinity(0) == cores
    return result.output, json.loads(path.read_text())


@pytest.fixture
def figures(ran):
    return ran[1]


def test_steps_are_counted_by_the_clock_and_by_the_processor(figures):
    assert figures["speed"]["reach"].keys() == {"500 Hz", "250 Hz"}
    for by_actor in figures["speed"]["reach"].values():
        assert by_actor.keys() == {"expert", "episode", "null"}
        for of in by_actor.values():
            assert 0 < of["steps_per_s"] < 1.1 * of["cpu_steps_per_s"]
            assert of["reset_ms"] > 0


def test_pictures_are_timed_in_every_look_and_size(figures):
    assert figures["picture_ms"]["reach"].keys() == LOOKS.keys()
    for by_size in figures["picture_ms"]["reach"].values():
        assert by_size.keys() == {"256x256", "640x480", "96x96"}
        assert all(of["ms"] > 0 and of["cpu_ms"] > 0 for of in by_size.values())


def test_every_target_is_judged(figures):
    assert len(figures["targets"]) == 2 * len(LEAST_STEPS_PER_S) + len(MOST_MS)
    assert set(figures["targets"].values()) <= {True, False}
    assert figures["cores_of_steps"] == 1 <= figures["cores_of_pictures"]


def test_targets_are_met_from_their_limits_on_by_every_task():
    def met(slower, longer):
        speed = {
            rate: {what: {"steps_per_s": least - slower} for what in ("expert", "episode")}
            for rate, least in LEAST_STEPS_PER_S.items()
        }
        times = {look: {"256x256": {"ms": most + longer}} for look, most in MOST_MS.items()}
        return speed, times

    good, bad = met(0, 0), met(1, 0.1)
    assert all(targets_met({"reach": good[0]}, {"reach": good[1]}).values())
    both = [{"reach": of, "stack_cube": worse} for of, worse in zip(good, bad, strict=True)]
    assert not any(targets_met(*both).values())


@pytest.mark.parametrize("task, physics_hz", [("reach", 500), ("stack_cube", 250)])
def test_a_recorded_episode_repeats_and_is_done_when_it_says(task, physics_hz):
    tape, done = record(task, 90_001, physics_hz=physics_hz)
    with _made(task, physics_hz=physics_hz) as env:
        env.reset(options={"episode_id": 90_001})
        steps = [env.step(action) for action in tape]
    assert [bool(ended or limit) for *_, ended, limit, _ in steps].index(True) == len(tape) - 1
    is_done = [info.get("success_held", info["success"]) for *_, info in steps]
    assert is_done.index(True) == done - 1


def test_only_the_steps_asked_for_are_executed():
    tape, _ = record("reach", 90_000)
    with _made("reach") as env:
        made = []
        step = env.step
        env.step = lambda action: made.append(action) or step(action)
        speed_of(env, [tape], 2 * len(tape))
    np.testing.assert_array_equal(made, tape + tape)


def test_one_core_is_left_again_also_after_a_failure():
    cores = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), one_core():
        assert len(os.sched_getaffinity(0)) == 1
        raise RuntimeError
    assert os.sched_getaffinity(0) == cores


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match=r"tasks: expected some of .*'reach'.*, got \['fly'\]"):
        bench_sim(["reach", "fly"])


def test_the_command_prints_them(ran):
    output, figures = ran
    targets = [f"target: {target}" for target in figures["targets"]]
    for text in ("reach", "500 Hz", "250 Hz", *LOOKS, "256x256", *targets):
        assert text in output
