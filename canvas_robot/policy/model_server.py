"""The process that holds the model: loads it, then answers requests until nobody asks any more."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import socket
import threading
import traceback
from multiprocessing.connection import wait
from multiprocessing.process import parent_process

import msgspec
import torch

from canvas_robot.allocator import keep_freed_memory
from canvas_robot.policy import dialogue
from canvas_robot.policy.assemble import assemble_policy, warm_up
from canvas_robot.policy.exchange import Block, Exchange
from canvas_robot.policy.model_process import Facts
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.policy.stand_in import StandIn
from canvas_robot.signals import Frames, Observation
from canvas_robot.timeslice import take_short_slices

_LINE_PART = 5_000  # of what is logged, first and last: more would lie where the next one does


class _Log(logging.Handler):
    """What the package says while it loads a policy goes to whoever asked for it."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if len(line) > 2 * _LINE_PART:
            line = f"{line[:_LINE_PART]}\n...\n{line[-_LINE_PART:]}"
        self._exchange.send(dialogue.Log(record.levelno, _sendable(line)))


def serve(end: socket.socket, block: Block, settings: PolicySettings, threads: int) -> None:
    """Runs in a process of its own: Ready, then an answer to each request.

    Refused for a ValueError, Failed for any other fault.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    exchange = Exchange(end, block, dialogue.Request)
    package = logging.getLogger("canvas_robot")
    package.setLevel(logging.INFO)
    package.addHandler(_Log(exchange))
    try:
        try:
            policy, facts = _load(settings, threads)
        except Exception as error:
            exchange.send(dialogue.Failed(_said(error)))
            return
        gc.collect()
        gc.freeze()  # a search for garbage among all that was loaded takes longer than a decision
        take_short_slices()  # who asks waits for this thread to wake
        served = _Served(policy)
        if hasattr(policy, "about_to_decide"):  # it can tell
            policy.about_to_decide = lambda: exchange.send(dialogue.Soon())
        exchange.send(dialogue.Ready(pickle.dumps(facts)))
        while True:
            _answer(exchange, served)
    except (EOFError, OSError):
        return  # nobody asks any more


def _load(settings: PolicySettings, threads: int) -> tuple[object, Facts]:
    if threads:
        torch.set_num_threads(threads)
    if settings.stand_in:
        policy, milliseconds, rows = StandIn(settings), settings.stand_in_ms, 0
    else:
        policy = assemble_policy(settings)
        milliseconds, rows = warm_up(policy), policy.model.plan.n_rows
    device_bytes = torch.cuda.memory_reserved() if settings.device != "cpu" else 0
    return policy, Facts(
        policy.schema,
        policy.binding,
        policy.horizon,
        policy.trained,
        rows,
        milliseconds,
        torch.get_num_threads(),
        device_bytes,
        policy.image_sizes,
    )


class _Served:
    """A policy that is asked by messages, and the frames that it was shown last."""

    def __init__(self, policy: object) -> None:
        self._policy = policy
        self._frames: dict[str, Frames] = {}

    def answer(self, request: dialogue.Request) -> dialogue.Answer:
        policy = self._policy
        match request:
            case dialogue.Act():
                return dialogue.Decided(policy.act(self._observed(request), request.going_on))
            case dialogue.Expect():
                self._observed(request)
            case dialogue.Work():
                policy.work()
            case dialogue.Imagine():
                return dialogue.Pictured(policy.imagined(request.seconds))
            case dialogue.Reset():
                policy.reset(request.instruction)
            case dialogue.Forget():
                policy.forget()
        return dialogue.Done()

    def _observed(self, request: dialogue.Expect | dialogue.Act) -> Observation:
        self._frames = {
            region: self._frames[region] if given is None else given
            for region, given in request.frames.items()
        }
        return Observation(request.tick, request.stamp_ns, dict(self._frames))


def _answer(exchange: Exchange, served: _Served) -> None:
    """Waits for one request, and answers it whatever happens: who asks waits for one answer each.

    Raises EOFError or OSError where nobody asks any more.
    """
    try:
        request = exchange.receive()
    except msgspec.ValidationError as error:
        exchange.send(dialogue.Refused(_said(error)))
        return
    try:
        answer = served.answer(request)
    except ValueError as error:
        answer = dialogue.Refused(_said(error))
    except Exception as error:
        logging.getLogger(__name__).error(traceback.format_exc())
        answer = dialogue.Failed(_said(error))
    try:
        exchange.send(answer)
    except (TypeError, ValueError) as error:
        exchange.send(dialogue.Failed(_said(error)))


def _said(error: Exception) -> str:
    return _sendable(f"{type(error).__name__}: {error}")


def _sendable(text: str) -> str:
    """Text without what is no character, such as of a file's name that is no UTF-8."""
    return text.encode(errors="replace").decode()


def _end_with_parent() -> None:
    """A hanging model must not outlive the process that asked."""
    wait([parent_process().sentinel])
    os._exit(1)
