"""A second Python process that runs functions for this one. What they do there is not known here.

It exists because TensorFlow and MuJoCo's EGL renderer cannot live in one process: with Mesa's
software renderer the later of the two crashes it, in either order (seen with tensorflow-cpu 2.21,
mujoco 4.0 and Mesa 22.3). It also keeps TensorFlow's threads and memory out of the trainer.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class HelperProcessError(RuntimeError):
    """The helper process ended before it answered."""


class HelperProcess:
    """Starts at the first call and ends with this process, or at `close`.

    Unlike `multiprocessing`, it does not import the caller's main module again, so it serves
    scripts without an `if __name__ == "__main__"` line. After a fork, the child gets its own.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)`, run in the helper; function is importable, all values are picklable.

        Raises what the function raises, with the helper's traceback as a note;
        HelperProcessError when the helper dies.
        """
        with self._lock:
            process = self._running()
            try:
                pickle.dump((function, args), process.stdin)
                process.stdin.flush()
                succeeded, value, trace = pickle.load(process.stdout)
            except BaseException as error:
                # Also when interrupted: the answer to this call must not be taken for the next's.
                self._kill()
                if not isinstance(error, EOFError | BrokenPipeError):
                    raise
                raise HelperProcessError(
                    f"{function.__module__}.{function.__qualname__}: expected an answer from the "
                    f"helper process, it ended with code {process.returncode}; "
                    "its messages are above"
                ) from error
        if not succeeded:
            value.add_note(f"In the helper process:\n{trace}")
            raise value
        return value

    def close(self) -> None:
        """End the helper, if it runs. The next call starts another."""
        if self._process is not None and self._owner == os.getpid():
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
        self._process = None

    def _kill(self) -> None:
        process, self._process = self._process, None
        # A helper that is ending by itself keeps its own exit code.
        try:
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._owner != os.getpid():
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            self._owner = os.getpid()
            atexit.register(self.close)
        return self._process


def serve() -> None:
    """The helper's side: answer calls from standard input until it closes."""
    # Ctrl-C is for the caller, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever the functions print must not mix with the answers.
    os.dup2(2, 1)
    while True:
        try:
            function, args = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = pickle.dumps((True, function(*args), ""))
        except Exception as error:
            answer = pickle.dumps((False, _portable(error), traceback.format_exc()))
        answers.write(answer)
        answers.flush()


def _portable(error: Exception) -> Exception:
    """The error itself if it survives pickling, else a RuntimeError that quotes it."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
