"""SimEpisodes: sends the policy node through episodes of the simulated robot, one after another.

Both nodes run all the time. Between two episodes the policy holds, because it has no instruction.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gymnasium
import msgspec
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import Trigger

from canvas_robot.ros.messages import values_from_msg
from canvas_robot.ros.monitor import Monitor
from canvas_robot.sim.registration import ENV_IDS, register

ANSWER_S = 20.0
_FRAMES = 2  # pictures of the new scene before the policy is told its goal
_KEPT = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class SimEpisodesError(RuntimeError):
    """A node does not answer, or not as the simulated robot and the policy do."""


class SimEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """One episode as the robot judged it.

    periods: of 0.2 s, from the first command on. success_any, success_held: as of the task's
    protocols; held is None where the task has none. ticks: the policy's first and last active one.
    """

    task: str
    episode: int
    instruction: str
    periods: int
    success: bool
    success_any: bool
    success_held: bool | None = None
    ticks: tuple[int, int] = (0, 0)


class SimEpisodes:
    """Runs episodes; `begin` prepares the next one, `over` says when it is over.

    monitor: listens to the policy and to the camera, in the domain of both nodes.
    robot, policy: names of the nodes.
    """

    def __init__(self, monitor: Monitor, robot: str = "sim_robot", policy: str = "policy") -> None:
        self._monitor, node = monitor, monitor.node
        self._facts: dict[str, Any] = {}
        node.create_subscription(DiagnosticStatus, f"{robot}/episode", self._on_episode, _KEPT)
        self._next = node.create_client(Trigger, f"{robot}/next_episode")
        self._reset = node.create_client(Trigger, f"{policy}/reset")
        self._set = node.create_client(SetParameters, f"{policy}/set_parameters")
        self._first = True

    def begin(self) -> dict[str, Any]:
        """Puts the next episode's scene in place, then tells the policy its goal: the facts.

        Raises SimEpisodesError where a node does not answer.
        """
        self._tell("")
        statuses = self._monitor.statuses
        seen = len(statuses)
        self._wait(lambda: any(not s.active for s in statuses[seen:]), "the policy did not hold")
        if self._first:  # the scene that the robot started with
            self._wait(lambda: bool(self._facts), "the simulated robot says nothing")
            self._first = False
        else:
            answer = self._called(self._next, Trigger.Request(), "next_episode")
            if not answer.success:
                raise SimEpisodesError(f"next_episode: {answer.message}")
            wanted = json.loads(answer.message)["episode"]
            self._wait(lambda: self._facts.get("episode") == wanted, "no episode came")
        frames = self._monitor.frames
        enough = len(frames) + _FRAMES
        self._wait(lambda: len(frames) >= enough, "the camera is silent")
        self._called(self._reset, Trigger.Request(), "reset")
        self._began = len(statuses)
        self._tell(self._facts["instruction"])
        return self._facts

    @property
    def over(self) -> bool:
        """Whether it is decided, or has taken as long as the task's environment allows."""
        facts = self._facts
        return (
            facts["ended"]
            or facts.get("success_held", False)
            or facts["periods"] >= most_periods(facts["task"])
        )

    def result(self) -> SimEpisode:
        """The episode as it stands."""
        active = [s.values["index"] for s in self._monitor.statuses[self._began :] if s.active]
        ticks = (active[0], active[-1]) if active else (0, 0)
        return msgspec.convert({**self._facts, "ticks": ticks}, SimEpisode)

    def _tell(self, instruction: str) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=instruction)
        request = SetParameters.Request(parameters=[Parameter(name="instruction", value=value)])
        (result,) = self._called(self._set, request, "set_parameters").results
        if not result.successful:
            raise SimEpisodesError(f"instruction {instruction!r}: {result.reason}")

    def _called(self, client, request, name: str):
        self._wait(client.service_is_ready, f"service {name}: not there")
        future = client.call_async(request)
        self._wait(future.done, f"service {name}: no answer")
        return future.result()

    def _wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        if not self._monitor.wait_for(condition, ANSWER_S):
            raise SimEpisodesError(f"{otherwise} within {ANSWER_S:.0f} s")

    def _on_episode(self, msg: DiagnosticStatus) -> None:
        self._facts = values_from_msg(msg)


def most_periods(task: str) -> int:
    """How many control periods the task's Gymnasium environment gives an episode."""
    register()
    return gymnasium.spec(ENV_IDS[task]).max_episode_steps
