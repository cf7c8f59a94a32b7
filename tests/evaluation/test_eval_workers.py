"""Laws of workers: several give what one gives, and what goes wrong in one is said."""

import multiprocessing
import os
import signal
from contextlib import closing

import msgspec
import pytest

from canvas_robot.evaluation.eval_session import EpisodeError
from canvas_robot.evaluation.eval_settings import EvalSettings, Start
from canvas_robot.evaluation.eval_workers import EvalWorkerError, Job, run_jobs

NUMBERS = tuple(range(5))


def settings(env, **changes) -> EvalSettings:
    return EvalSettings(**{"envs": (env,), "policy": "random", "episodes": NUMBERS, **changes})


def rows_of(wanted, workers):
    jobs = [Job(Start(0, number), filmed=number == 1) for number in NUMBERS]
    found = {}
    for row, film in run_jobs(wanted, jobs, workers):
        found[row.number] = msgspec.structs.replace(row, decision_ms=[], seconds=0.0), film
    return found


def test_two_workers_give_what_one_process_gives(line):
    assert rows_of(settings(line), 2) == rows_of(settings(line), 1)
    assert not multiprocessing.active_children()


def test_more_workers_than_episodes_are_not_started(line):
    results = run_jobs(settings(line), [Job(Start(0, 1), False)], 64)
    assert [row.number for row, _ in results] == [1]


def test_no_jobs_need_no_policy():
    assert list(run_jobs(settings("A-v0", policy="not/there"), [], 2)) == []


def test_what_goes_wrong_in_a_worker_is_said_in_its_words(line):
    wanted = settings(line, success_key="solved")
    jobs = [Job(Start(0, number), False) for number in NUMBERS]
    with pytest.raises(EpisodeError) as here:
        list(run_jobs(wanted, jobs[:1], 1))
    with pytest.raises(EvalWorkerError) as there:
        list(run_jobs(wanted, jobs, 2))
    assert str(there.value).replace(f"episode {_number(there)}", "episode 0") == str(here.value)
    assert not multiprocessing.active_children()


def _number(error) -> str:
    return str(error.value).split("episode ")[1].split(":")[0]


def test_a_worker_that_is_killed_is_missed(line):
    jobs = [Job(Start(0, number), False) for number in range(500)]
    with closing(run_jobs(settings(line), jobs, 2)) as results:
        next(results)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(EvalWorkerError, match="a worker ended with exit code -9"):
            list(results)
    assert not multiprocessing.active_children()


def test_workers_end_when_nobody_listens_any_more(line):
    jobs = [Job(Start(0, number), False) for number in range(500)]
    results = run_jobs(settings(line), jobs, 2)
    next(results)
    results.close()
    assert not multiprocessing.active_children()
