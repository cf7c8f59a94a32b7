"""Episodes in several processes: each has its own environment and policy, and takes whole episodes.

Nothing depends on which process runs an episode, nor on how many there are.
"""

from __future__ import annotations

import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from canvas_robot.evaluation.eval_film import Film
from canvas_robot.evaluation.eval_session import EpisodeRow, Session
from canvas_robot.evaluation.eval_settings import EvalSettings, Start


class EvalWorkerError(RuntimeError):
    """What went wrong in a worker, in its own words."""


class Job(NamedTuple):
    """An episode to run, and whether it is filmed."""

    start: Start
    filmed: bool


def run_jobs(
    settings: EvalSettings, jobs: Sequence[Job], workers: int
) -> Iterator[tuple[EpisodeRow, Film | None]]:
    """What each episode came to, as it ends; closes what it started, however it is left.

    Args:
        workers: processes; 1: this one.
    Raises:
        What Session raises; EvalWorkerError with its text where that was in another process.
    """
    if not jobs:
        return iter(())
    run = _here if workers == 1 else _there
    return run(settings, jobs, min(workers, len(jobs)))


def _here(
    settings: EvalSettings, jobs: Sequence[Job], workers: int
) -> Iterator[tuple[EpisodeRow, Film | None]]:
    session = Session(settings)
    try:
        for job in jobs:
            yield session.run(*job)
    finally:
        session.close()


def _there(
    settings: EvalSettings, jobs: Sequence[Job], workers: int
) -> Iterator[tuple[EpisodeRow, Film | None]]:
    context = get_context("spawn")  # a fork would share the renderer and torch's threads
    coming = deque(jobs)
    running = {}
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, settings), daemon=True)
            process.start()
            theirs.close()
            running[ours] = process
            _ask(ours, coming.popleft())
        while running:
            for pipe in connection.wait(list(running)):
                answer = _answer(pipe, running[pipe])
                if coming:
                    _ask(pipe, coming.popleft())
                else:
                    _end(pipe, running.pop(pipe))
                yield answer
    finally:
        for pipe, process in running.items():
            _end(pipe, process)


def _ask(pipe: Connection, job: Job) -> None:
    with suppress(BrokenPipeError):  # it has ended: its answer says so
        pipe.send(job)


def _end(pipe: Connection, process: BaseProcess) -> None:
    """Ends a worker, which holds nothing that could be lost."""
    process.kill()
    process.join()
    pipe.close()


def _answer(pipe: Connection, process: BaseProcess) -> tuple[EpisodeRow, Film | None]:
    try:
        answer = pipe.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise EvalWorkerError(
            f"a worker ended with exit code {process.exitcode}; -9 is most often too little "
            "memory: use fewer --workers; what it printed is above"
        ) from None
    if isinstance(answer, str):
        raise EvalWorkerError(answer)
    return answer


def _serve(pipe: Connection, settings: EvalSettings) -> None:
    """The worker's side: episodes until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the caller, which then ends this process
    try:
        session = Session(settings)
        while True:
            pipe.send(session.run(*pipe.recv()))
    except (EOFError, BrokenPipeError):
        return  # the caller is gone
    except Exception as error:
        expected = isinstance(error, ValueError | OSError | RuntimeError)
        pipe.send(str(error) if expected else traceback.format_exc())
