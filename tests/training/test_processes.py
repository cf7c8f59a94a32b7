"""Laws of processes: two of them are one with twice the batch; what is killed goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from canvas_robot.training.launch import run_training

SECONDS = 100  # for a command to begin or to end


@pytest.fixture
def command():
    """A function that starts `canvas-robot train`, in one process or in several under torchrun."""
    started = []

    def start(*words, processes=1):
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        launcher = [sys.executable, *(torchrun if processes > 1 else [])]
        running = subprocess.Popen(
            [*launcher, "-m", "canvas_robot.cli", "train", *map(str, words)],
            env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(running)
        return running

    yield start
    for running in started:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


def ended(process) -> tuple[int, str, str]:
    """Its exit code and what it printed."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def until(process, there_is) -> None:
    """Waits until a running command has written something."""
    end = time.monotonic() + SECONDS
    while not there_is():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def rows_there(run, count):
    path = run / "metrics.jsonl"
    return lambda: path.is_file() and path.read_bytes().count(b"\n") >= count


@pytest.fixture
def written(make_config, write_config, declarations, tmp_path):
    """A function that writes the configuration of a run to a file."""

    def write(name, *overrides):
        config = make_config(f"run={tmp_path / name}", "log_every=1", *overrides)
        return write_config(config, tmp_path / f"{name}.yaml"), config

    return write


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_learn_as_one_with_twice_the_batch(
    command, written, declarations, tmp_path, quiet, rows_of, accumulate
):
    schema = (f"schema={declarations / 'one_step.json'}", f"accumulate={accumulate}")
    path, _ = written("two", *schema, "ema.decay=0.9", "batch_size=2")
    running = command(path, processes=2)
    _, one = written("one", *schema, "ema.decay=0.9", "batch_size=4")
    run_training(one, quiet)
    assert ended(running)[0] == 0
    for ours, theirs in zip(rows_of(tmp_path / "two"), rows_of(tmp_path / "one"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        assert ours.get("held_out", 0) == pytest.approx(theirs.get("held_out", 0), rel=1e-4)
    newest = "checkpoints/step_00000004"
    for name in ("trained", "average"):
        ours = load_file(tmp_path / "two" / newest / f"{name}.safetensors")
        theirs = load_file(tmp_path / "one" / newest / f"{name}.safetensors")
        for tensor in theirs:
            torch.testing.assert_close(ours[tensor], theirs[tensor], rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_bitwise(command, written, video, tmp_path, rows_of):
    settings = (*video, "ema.decay=0.9", "curriculum={}", "steps=6", "keep_checkpoints=9")
    whole, _ = written("whole", *settings)
    assert ended(command(whole, processes=2))[0] == 0
    path, _ = written("killed", *settings)
    running = command(path, processes=2)
    checkpoint = tmp_path / "killed" / "checkpoints" / "step_00000002"
    until(running, checkpoint.is_dir)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert ended(command("--resume", tmp_path / "killed", processes=2))[0] == 0
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    newest = "checkpoints/step_00000006/trained.safetensors"
    ours, theirs = load_file(tmp_path / "killed" / newest), load_file(tmp_path / "whole" / newest)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_killed_run_with_workers_goes_on_bitwise(
    command, written, video, tmp_path, rows_of, quiet
):
    settings = (*video, "data.workers=2", "steps=8", "checkpoint_every=3", "keep_checkpoints=9")
    path, _ = written("killed", *settings)
    running = command(path)
    until(running, (tmp_path / "killed" / "checkpoints" / "step_00000003").is_dir)
    running.kill()
    running.communicate()
    assert ended(command("--resume", tmp_path / "killed"))[0] == 0
    _, whole = written("whole", *settings)
    run_training(whole, quiet)
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    newest = "checkpoints/step_00000008/trained.safetensors"
    ours, theirs = load_file(tmp_path / "killed" / newest), load_file(tmp_path / "whole" / newest)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_ends_with_a_checkpoint_and_the_command_to_go_on(
    command, written, tmp_path, number, code
):
    """As Ctrl-C does: the readers of the data get it too."""
    path, _ = written("run", "data.workers=2", "steps=100000", "checkpoint_every=100000")
    running = command(path)
    until(running, rows_there(tmp_path / "run", 2))
    os.killpg(running.pid, number)
    found, _, err = ended(running)
    assert found == code
    assert f"go on with: canvas-robot train --resume {tmp_path / 'run'}" in err
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert f"stopped at step {int(checkpoint.name.removeprefix('step_'))};" in err
