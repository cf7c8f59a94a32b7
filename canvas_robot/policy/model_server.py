"""The process that holds the model: loads it, then answers requests until nobody asks any more."""

from __future__ import annotations

import gc
import logging
import os
import threading
import traceback
from multiprocessing.connection import Connection, wait
from multiprocessing.process import parent_process

import torch

from canvas_robot.allocator import keep_freed_memory
from canvas_robot.policy.assemble import assemble_policy, warm_up
from canvas_robot.policy.exchange import Block, Exchange
from canvas_robot.policy.model_process import Facts
from canvas_robot.policy.settings import PolicySettings
from canvas_robot.policy.stand_in import StandIn
from canvas_robot.signals import Frames, Observation


class _Log(logging.Handler):
    """What the package says while it loads a policy goes to whoever asked for it."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def emit(self, record: logging.LogRecord) -> None:
        self._exchange.send(("log", record.levelno, record.getMessage()))


def serve(connection: Connection, block: Block, settings: PolicySettings, threads: int) -> None:
    """Runs in a process of its own: ("ready", Facts), then an answer to each request.

    Requests are as `_Served` takes them; answers ("done", result), ("refused", text) for
    a ValueError, and ("failed", text) for any other fault.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    exchange = Exchange(connection, block)
    package = logging.getLogger("canvas_robot")
    package.setLevel(logging.INFO)
    package.addHandler(_Log(exchange))
    try:
        try:
            policy, facts = _load(settings, threads)
        except Exception as error:
            exchange.send(("failed", _said(error)))
            return
        gc.collect()
        gc.freeze()  # a search for garbage among all that was loaded takes longer than a decision
        served = _Served(policy)
        exchange.send(("ready", facts))
        while True:
            exchange.send(_answer(served, exchange.receive()))
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
    """A policy that is asked by (method, *arguments).

    Of an observation, for `expect` and `act`, come tick, stamp and frames by region: None where
    they are the same as the last time.
    """

    def __init__(self, policy: object) -> None:
        self._policy = policy
        self._frames: dict[str, Frames] = {}

    def asked(self, method: str, *arguments: object) -> object:
        if method == "expect":
            self._observed(*arguments)
            return None
        if method == "act":
            *seen, going_on = arguments
            return self._policy.act(self._observed(*seen), going_on)
        return getattr(self._policy, method)(*arguments)

    def _observed(self, tick: int, stamp_ns: int, frames: dict[str, Frames | None]) -> Observation:
        self._frames = {
            region: self._frames[region] if given is None else given
            for region, given in frames.items()
        }
        return Observation(tick, stamp_ns, dict(self._frames))


def _answer(served: _Served, request: tuple) -> tuple[str, object]:
    try:
        return "done", served.asked(*request)
    except ValueError as error:
        return "refused", _said(error)
    except Exception as error:
        logging.getLogger(__name__).error(traceback.format_exc())
        return "failed", _said(error)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    """A hanging model must not outlive the process that asked."""
    wait([parent_process().sentinel])
    os._exit(1)
