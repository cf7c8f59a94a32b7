"""`canvas-robot eval` prints what it measured, keeps what ended, and says what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from canvas_robot.cli.eval import eval_policy
from canvas_robot.evaluation.eval_env import EvalEnvError
from canvas_robot.evaluation.eval_folder import EvalFolderError
from canvas_robot.evaluation.eval_policy import EvalPolicyError
from canvas_robot.sim.registration import ENV_IDS, REACH_ID

SECONDS = 100  # for a command to begin or to end
REACH = ("--env", REACH_ID, "--env-kwargs", "obs=state", "--no-video")

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(eval_policy)


def run(*arguments):
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, [str(each) for each in arguments])


def test_it_prints_the_figures_and_writes_them(tmp_path):
    out, figures = tmp_path / "run", tmp_path / "figures" / "expert.json"
    result = run(*REACH, "--policy", "expert", "--episodes", 3, "-o", out, "--json", figures)
    assert result.exit_code == 0, result.output
    for text in (
        "expert: 3 of 3 episodes; success: last 100%, any 100%",
        REACH_ID,
        "100.0%",
        "44 to 100",
        "ms a decision",
        "Few episodes: 3",
        str(out / "report.html"),
    ):
        assert text in result.output
    report = json.loads(figures.read_text())
    assert report == json.loads((out / "report.json").read_text())
    assert [row["episode_id"] for row in report["episodes"]] == [90_000, 90_001, 90_002]
    assert report["success"]["any"]["k"] == 3


def test_several_environments_share_a_table_with_their_mean(tmp_path):
    env = ("--env", ENV_IDS["cube_on_plate"])
    result = run(
        *REACH, *env, "--policy", "zero", "--episode-ids", "90000-90001", "--max-steps", 2,
        "-o", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "mean" in result.output and "2 out of steps" in result.output
    assert f"{ENV_IDS['cube_on_plate']}: " in result.output
    assert "2 never grasped" in result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of two episodes that ended."""
    out = tmp_path_factory.mktemp("eval") / "run"
    assert run(*REACH, "--policy", "zero", "--episodes", 2, "--no-video", "-o", out).exit_code == 0
    return out


def test_it_goes_on_by_the_folder_alone(tmp_path):
    out = tmp_path / "run"
    assert run(*REACH, "--policy", "zero", "--episodes", 2, "-o", out).exit_code == 0
    lines = (out / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    (out / "episodes.jsonl").write_bytes(lines[0] + lines[1][:40])
    result = run("--resume", "-o", out, "--no-video")
    assert result.exit_code == 0, result.output
    assert "zero: 2 of 2 episodes" in result.output
    assert (out / "episodes.jsonl").read_bytes().splitlines(keepends=True)[0] == lines[0]


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("--policy", "random"), "policy: 'zero', now 'random'"),
        (("--seed", 7), "seed: 0, now 7"),
        (("--episodes", 5), "episodes: 90000-90001, now 90000-90004"),
        (("--env", ENV_IDS["stack_cube"]), "envs: "),
        (("--env-kwargs", "shadows=true"), "env_kwargs: "),
    ],
)
def test_what_is_said_again_must_be_what_it_was(finished, arguments, text):
    result = run("--resume", "-o", finished, "--no-video", *arguments)
    assert isinstance(result.exception, EvalFolderError) and text in str(result.exception)
    assert "holds an evaluation with other settings" in str(result.exception)


def test_what_was_said_may_be_said_again(finished):
    words = ("--policy", "zero", "--episodes", 2, "--seed", 0)
    assert run("--resume", "-o", finished, "--no-video", *words).exit_code == 0


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    result = run(*REACH, "--policy", "zero", "--episodes", 1, "-o", tmp_path / "file")
    assert isinstance(result.exception, EvalFolderError)
    assert "expected a folder, it is a file" in str(result.exception)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ((), ValueError, "--env: expected the id of an environment"),
        (("--env", REACH_ID), ValueError, "--policy: expected expert, random, zero, demo or"),
        (("--env", "X-v0", "--policy", "zero"), EvalEnvError, "env 'X-v0': not registered"),
        (("--env", REACH_ID, "--checkpoint", "not/there"), EvalPolicyError, "no folder not/there"),
        (("--resume",), ValueError, "--resume: expected the folder of the evaluation, too"),
        (
            ("--env", REACH_ID, "--policy", "zero", "--episodes", 3, "--episode-ids", "0-3"),
            ValueError,
            "--episode-ids: says which episodes; leave out --episodes",
        ),
        (("--env", REACH_ID, "--policy", "zero", "--episode-ids", "x"), ValueError, "got 'x'"),
        (("--env", REACH_ID, "--policy", "zero", "--env-kwargs", "x"), ValueError, "KEY=VALUE"),
        (("--env", REACH_ID, "--policy", "zero", "--black-image"), ValueError, "--black-image: z"),
    ],
)
def test_mistakes_are_answered_with_what_to_do(tmp_path, monkeypatch, arguments, error, text):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, error) and text in str(result.exception)


@pytest.fixture
def command():
    """A function that starts `canvas-robot eval`, in one process or under a launcher."""
    started = []

    def start(*words, launcher=()):
        running = subprocess.Popen(
            [sys.executable, *launcher, "-m", "canvas_robot.cli", "eval", *map(str, words)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
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


def until_rows(running, folder, count):
    end = time.monotonic() + SECONDS
    path = folder / "episodes.jsonl"
    while not (path.is_file() and path.read_bytes().count(b"\n") >= count):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def episodes(folder):
    """Rows without what a clock says."""
    rows = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("decision_ms", "seconds")} for row in rows]


@pytest.fixture
def whole(tmp_path):
    """Twelve random episodes in one process."""
    result = run(*REACH, "--policy", "random", "--episodes", 12, "-o", tmp_path / "whole")
    assert result.exit_code == 0, result.output
    return tmp_path / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_ended_loses_nothing_that_ended(command, whole, tmp_path, number, code):
    out = tmp_path / "ended"
    words = (*REACH, "--policy", "random", "--episodes", 12, "--workers", 2, "-o", out)
    running = command(*words)
    until_rows(running, out, 3)
    os.kill(running.pid, number)
    printed, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == code
    kept = {row["number"] for row in episodes(out)}
    assert 3 <= len(kept) < 12
    if number == signal.SIGTERM:
        assert f"stopped; go on with: canvas-robot eval --out {out} --resume" in printed
    result = run("--resume", "-o", out, "--no-video")
    assert result.exit_code == 0, result.output
    assert episodes(out) == episodes(whole)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_launched_processes_share_the_episodes(command, whole, tmp_path, launcher):
    out = tmp_path / "shared"
    words = (*REACH, "--policy", "random", "--episodes", 12, "-o", out)
    running = command(*words, launcher=launcher)
    printed, said = running.communicate(timeout=SECONDS)
    assert running.returncode == 0, said
    assert "random, 1 of 2 processes: 6 of 6 episodes" in printed
    assert episodes(out) == episodes(whole)
    assert json.loads((out / "report.json").read_text())["success"]["any"]["n"] == 12
    assert [path.name for path in out.glob("*.jsonl")] == ["episodes.jsonl"]
