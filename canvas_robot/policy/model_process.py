"""ModelProcess: a policy in a process of its own, as whoever commands an arm should hold one.

The model may compute, hang, run out of memory or die without touching the threads that hold the
arm, and its memory is free again when it ends. Loads no torch.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

from canvas_robot.policy import dialogue
from canvas_robot.policy.exchange import Block, Exchange, ends
from canvas_robot.policy.protocol import Imagined, nothing
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.policy.squashing import Squashing
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import ActionChunk, Binding, Frames, GoingOn, Observation

# A process is forked from one that has only imported the libraries: that takes seconds, once.
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["canvas_robot.policy.model_seed"])
# CUDA works in no fork of a process that has as much as looked for it, as some libraries do.
_SPAWNED = multiprocessing.get_context("spawn")

DECISION_TIMEOUT_S = 10.0  # a model that takes longer hangs
DEATHS, SOON_S = 3, 60.0  # so many within so short a time: it is not started again
_JOIN_S = 5.0
_LOOK_S = 0.1  # between two looks whether a load is given up
_SHORTEST_S = 1e-3  # a time-out of 0 would not wait at all


class ModelError(RuntimeError):
    """The model failed, or there is none at the moment; the text says which."""


class GivenUpError(ModelError):
    """Nobody waits for the model any more."""


class ModelRefusedError(ValueError):
    """The model's process said that what it was given is wrong; the policy stays as it was."""


class _Lost(Exception):
    """The process ended or does not answer."""


def _alone(request):
    """One request at a time: of two that share the connection, each could get the other's answer.

    The second is refused and not kept waiting, so that its caller can hold the arm.
    """

    @functools.wraps(request)
    def wrapper(self, *arguments):
        if not self._asking.acquire(blocking=False):
            raise ModelError(
                f"the model is still deciding on what it was asked before; where that takes more "
                f"than {self._timeout_s:g} s, another is started"
            )
        try:
            return request(self, *arguments)
        finally:
            self._asking.release()

    return wrapper


@dataclass(frozen=True)
class Facts:
    """What a process says of the policy that it has loaded.

    rows: of the canvas that are computed, 0 where that is not known. decision_ms: of one decision
    once warm. device_bytes: of the accelerator's memory that are reserved, 0 on a CPU. image_sizes:
    (height, width) in pixels of the pictures that it looks at, by region.
    """

    schema: CanvasSchema
    binding: Binding
    horizon: int
    trained: bool
    rows: int
    decision_ms: float
    threads: int
    device_bytes: int
    image_sizes: dict[str, tuple[int, int]]


def prepare(device: str) -> None:
    """Lets the libraries load in the background; without it the first ModelProcess waits."""
    if _context(device) is _FORKED:
        with _without_interrupts():
            ensure_running()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started meanwhile never hears of Ctrl-C, which is for whoever started it.

    To ignore it there would be late: it may come while libraries load.
    """
    resource_tracker.ensure_running()  # where it is started it takes the signal off the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context(device: str) -> BaseContext:
    return _FORKED if device == "cpu" else _SPAWNED


class ModelProcess:
    """The policy that settings name. For any thread; a request beside another raises ModelError.

    about_to_decide: called, by the thread that asks `act`, shortly before its answer comes, where
    the policy can tell; must not raise.

    If its process dies or hangs, another is started in the background; until it is ready every
    request raises ModelError.

    Args:
        settings: what to load.
        threads: CPU threads of the model; 0: torch's own choice.
        log: receives (level of `logging`, line).
        timeout_s: longest time that a request may take.
        is_given_up: asked while it loads; once it is, nobody waits any longer.
    Raises:
        ModelError: it could not be loaded; the text is the loader's.
        GivenUpError: it was given up.
    """

    def __init__(
        self,
        settings: PolicySettings,
        threads: int,
        log: Callable[[int, str], None],
        timeout_s: float = DECISION_TIMEOUT_S,
        is_given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings, self._threads = settings, threads
        self._log, self._timeout_s = log, timeout_s
        self._closed = False
        self._asking = threading.Lock()  # held by the request that is under way
        self.restarts = 0  # since it was made
        self.about_to_decide: Callable[[], None] = nothing
        self._deaths: list[float] = []
        self._why = ""
        self._worker: _Worker | None = _Worker(settings, threads, log)
        try:
            self.facts = self._worker.load(is_given_up)
            self._squashing = Squashing(self.facts.image_sizes)
            self._shown: tuple[_Worker | None, dict[str, Frames]] = (None, {})  # what a process has
            self._ahead_ms = 0.0  # spent on pictures before they were asked about
        except BaseException as error:
            self.close()
            if isinstance(error, _Lost):
                if is_given_up():  # whoever asked for that has ended the model's process, too
                    raise GivenUpError("loading was given up") from error
                raise ModelError(f"the model's process ended while it loaded: {error}") from error
            raise

    @property
    def schema(self) -> CanvasSchema:
        return self.facts.schema

    @property
    def binding(self) -> Binding:
        return self.facts.binding

    @property
    def trained(self) -> bool:
        """Whether any training made its weights."""
        return self.facts.trained

    @property
    def horizon(self) -> int:
        """Control ticks in one action chunk."""
        return self.facts.horizon

    @_alone
    def reset(self, instruction: str) -> None:
        """Starts an episode; ModelRefusedError for an instruction that it cannot take."""
        self._ask(dialogue.Reset(instruction))
        self._squashing.reset()

    @_alone
    def act(self, observation: Observation, going_on: GoingOn | None = None) -> ActionChunk:
        """Decides on one observation. Pictures are squashed here, so that less crosses over."""
        squashed = self._squashing.observation(observation)
        chunk = self._ask_about(dialogue.Act, squashed, going_on).chunk
        for stage in ("squash", "codec"):
            spent = chunk.timings_ms.get(stage, 0.0)
            chunk.timings_ms[stage] = spent + self._squashing.milliseconds
        chunk.timings_ms["squash_ahead"], self._ahead_ms = self._ahead_ms, 0.0
        return chunk

    def expect(self, observation: Observation) -> None:
        """What `act` will most likely be asked next: its process is shown it ahead.

        For the thread that asks `act`, which says what is wrong with the process.
        """
        expected = self._squashing.observation(observation)
        self._ahead_ms += self._squashing.milliseconds
        with suppress(ModelError):
            self._show(expected)

    @_alone
    def work(self) -> None:
        """Between ticks: this tick's share of what no tick waits for."""
        self._ask(dialogue.Work())

    @_alone
    def forget(self) -> None:
        """Ends the episode."""
        self._ask(dialogue.Forget())

    @_alone
    def imagined(self, seconds: float) -> Imagined | None:
        """Goes on for about so long with the pictures that it predicts; those once done."""
        return self._ask(dialogue.Imagine(seconds)).imagined

    @property
    def has_answered(self) -> bool:
        """Whether there is an answer to read already; for `about_to_decide`, which may then end."""
        worker = self._worker
        return worker is None or worker.has_answered

    @property
    def memory_bytes(self) -> int:
        """What its process holds, libraries and accelerator included; 0 while there is none."""
        worker = self._worker
        return worker.resident_bytes + self.facts.device_bytes if worker is not None else 0

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        worker = self._worker
        return worker.pid if worker is not None else None

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._closed, self._why = True, "the model's process has been closed"
        worker, self._worker = self._worker, None
        self._shown, self.about_to_decide = (None, {}), nothing
        if worker is not None:
            worker.end()

    @_alone
    def _show(self, observation: Observation) -> None:
        self._ask_about(dialogue.Expect, observation)

    def _ask_about(
        self,
        kind: type[dialogue.Expect | dialogue.Act],
        observation: Observation,
        *others: GoingOn | None,
    ) -> dialogue.Answer:
        """Frames that the process has are not sent again: None stands for those."""
        worker, (shown_to, shown) = self._worker, self._shown
        known = shown if shown_to is worker else {}
        self._shown = (None, {})  # until it has answered, nobody knows what it has
        given = observation.frames
        frames = {
            region: None if known.get(region) is one else one for region, one in given.items()
        }
        answer = self._ask(kind(observation.tick, observation.stamp_ns, frames, *others))
        self._shown = (worker, given)
        return answer

    def _ask(self, request: dialogue.Request) -> dialogue.Answer:
        worker = self._worker
        if worker is None:
            raise ModelError(self._why)
        try:
            return worker.ask(request, self._timeout_s, self.about_to_decide)
        except _Lost as error:
            self._lose(worker, str(error))
            raise ModelError(self._why) from error

    def _lose(self, worker: _Worker, why: str) -> None:
        if self._worker is not worker:
            return  # it has been closed meanwhile
        self._worker = None
        worker.end()
        if self._closed:
            return
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < SOON_S] + [now]
        if len(self._deaths) >= DEATHS:
            self._why = (
                f"the model's process was lost {DEATHS} times within {SOON_S:g} s, at last because "
                f"{why}; clean the node up, mend the cause and configure it again"
            )
            return
        self._why = f"{why}; another is being started"
        threading.Thread(target=self._revive, name="model", daemon=True).start()

    def _revive(self) -> None:
        worker = None
        try:
            worker = _Worker(self._settings, self._threads, self._log)
            worker.load(lambda: self._closed)
        except Exception as error:
            if worker is not None:
                worker.end()
            if not self._closed:
                why = (
                    f"the model's process could not be started again: {type(error).__name__}: "
                    f"{error}; clean the node up, mend the cause and configure it again"
                )
                self._log(logging.ERROR, f"model: {why}")
                self._why = why
            return
        self._worker = worker
        if self._closed:  # meanwhile
            self.close()
        else:
            self.restarts += 1
            self._log(logging.WARNING, "model: its process has been started again")


class _Worker:
    """One process and the way to it."""

    def __init__(
        self, settings: PolicySettings, threads: int, log: Callable[[int, str], None]
    ) -> None:
        context = _context(settings.device)
        self._ours, self._theirs = ends()
        weakref.finalize(self, self._ours.close)  # and not before: somebody may wait for it
        self._block, self._log = Block(), log
        self._process = context.Process(
            target=_serve, args=(self._theirs, self._block, settings, threads), daemon=True
        )
        self._ending = threading.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0
        line = next((one for one in status.splitlines() if one.startswith("VmRSS:")), "VmRSS: 0 kB")
        return int(line.split()[1]) * 1024

    @property
    def has_answered(self) -> bool:
        return self._exchange.has_come

    def load(self, is_given_up: Callable[[], bool]) -> Facts:
        """Starts the process, and waits for what it loads, or for nothing once that is given up."""
        self._start(is_given_up)
        self._exchange = Exchange(self._ours, self._block, dialogue.Answer)
        while True:
            with suppress(TimeoutError):
                return pickle.loads(self._answer(_LOOK_S).facts)
            if is_given_up():
                raise GivenUpError("loading was given up")

    def _start(self, is_given_up: Callable[[], bool]) -> None:
        """The first process of all waits while libraries load, which takes seconds."""
        failed: list[BaseException] = []

        def start() -> None:
            try:
                with _without_interrupts():
                    self._process.start()
            except BaseException as error:
                failed.append(error)
            finally:
                self._theirs.close()

        starting = threading.Thread(target=start, name="model", daemon=True)
        starting.start()
        while starting.is_alive():
            starting.join(_LOOK_S)
            if is_given_up():
                raise GivenUpError("loading was given up")
        if failed:
            raise failed[0]

    def ask(
        self, request: dialogue.Request, timeout_s: float, soon: Callable[[], None]
    ) -> dialogue.Answer:
        """soon: called where the process says that its answer is about to come; must not raise."""
        try:
            self._exchange.send(request)
        except OSError as error:
            raise _Lost(self._ended()) from error
        try:
            return self._answer(timeout_s, soon)
        except TimeoutError as error:
            raise _Lost(f"the model has not answered within {timeout_s:g} s") from error
        except (_Lost, ModelError, ModelRefusedError):
            raise
        except Exception as error:  # an answer that was not read would be taken for the next one
            why = f"{type(error).__name__}: {error}"
            raise _Lost(f"its answer could not be read: {why}") from error

    def end(self) -> None:
        with self._ending:
            if self._process.pid is None:  # one that is still being started ends with this process
                return
            self._process.kill()
            self._process.join(_JOIN_S)

    def _answer(
        self, timeout_s: float, soon: Callable[[], None] = nothing
    ) -> dialogue.Ready | dialogue.Done | dialogue.Decided | dialogue.Pictured:
        """TimeoutError where none comes within so long."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                answer = self._exchange.receive(max(until - time.monotonic(), _SHORTEST_S))
            except TimeoutError:
                raise
            except (EOFError, OSError) as error:
                raise _Lost(self._ended()) from error
            if isinstance(answer, dialogue.Soon):
                soon()
            elif isinstance(answer, dialogue.Log):
                self._log(answer.level, answer.line)
            elif isinstance(answer, dialogue.Refused):
                raise ModelRefusedError(answer.why)
            elif isinstance(answer, dialogue.Failed):
                raise ModelError(answer.why)
            else:
                return answer

    def _ended(self) -> str:
        self._process.join(_JOIN_S)
        return f"the model's process ended (exit code {self._process.exitcode})"


def _serve(*arguments) -> None:
    """Imported there, not here: it brings torch."""
    from canvas_robot.policy.model_server import serve

    serve(*arguments)
