"""Preparation: what a driver must have been asked, and have answered well, to be commanded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from rclpy.node import Node
from rclpy.task import Future

ANSWER_S = 2.0  # how long a driver may take to answer
AGAIN_S = 1.0  # after a refusal


@dataclass(frozen=True)
class Call:
    """One call of a service.

    kind, service: its type and name. request: what is asked. fault: of an answer, what is wrong
    with it, "" where it is good.
    """

    kind: type
    service: str
    request: Any
    fault: Callable[[Any], str]


@final
class Preparation:
    """Calls that are made at activation, and again when a server comes: one that starts again has
    forgotten them. Nothing waits for the answers.

    Args:
        node: owns the clients; its executor takes the answers in.
        calls: all made at once; each has to be answered well.
    """

    def __init__(self, node: Node, calls: Sequence[Call]) -> None:
        self._node, self._calls = node, tuple(calls)
        self._clients = [node.create_client(call.kind, call.service) for call in self._calls]
        self._servers = [0] * len(self._calls)
        self._futures: list[Future] = []
        self._since_s = -AGAIN_S  # when the calls were made, or answered badly
        self._fault = ""

    def close(self) -> None:
        for client in self._clients:
            self._node.destroy_client(client)

    def begin(self) -> None:
        """Everything has to be asked anew."""
        for client, future in zip(self._clients, self._futures, strict=False):
            client.remove_pending_request(future)
        self._futures, self._fault, self._since_s = [], "", -AGAIN_S

    def look(self) -> str:
        """Asks what has to be asked. What is still amiss; "" once the driver may be commanded."""
        servers = [self._node.count_services(client.service_name) for client in self._clients]
        if any(now > before for now, before in zip(servers, self._servers, strict=True)):
            self.begin()
        self._servers = servers
        for client in self._clients:
            if not client.service_is_ready():
                return f"{client.service_name} is not there; is its driver running?"
        if not self._futures:
            return self._ask()
        return self._judge()

    def _ask(self) -> str:
        now_s = time.monotonic()
        if now_s - self._since_s >= AGAIN_S:
            self._since_s = now_s
            self._futures = [
                client.call_async(call.request)
                for client, call in zip(self._clients, self._calls, strict=True)
            ]
        return self._fault or f"{self._calls[0].service} has not answered yet"

    def _judge(self) -> str:
        late = [
            call.service
            for call, future in zip(self._calls, self._futures, strict=True)
            if not future.done()
        ]
        passed_s = time.monotonic() - self._since_s
        if late and passed_s < ANSWER_S:
            return self._fault or f"{late[0]} has not answered yet"
        if late:
            faults = [f"{late[0]} has not answered for {ANSWER_S:g} s"]
        else:
            answers = zip(self._calls, self._futures, strict=True)
            faults = [fault for call, future in answers if (fault := call.fault(future.result()))]
        if not faults:
            return ""
        self.begin()
        self._fault, self._since_s = faults[0], time.monotonic()
        return self._fault
