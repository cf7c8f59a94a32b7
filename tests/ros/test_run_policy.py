"""Laws of the action ~/run_policy: which goals are taken, what is fed back, how each ends.

The action's messages are the installed ones, or made of the very file that is installed.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from tests.ros import driver_messages
from tests.ros.conftest import PATIENCE_S, TIMEOUT_S, NodeInThread

ACTIVE = {"autostart": True, "stand_in": "constant", "decision_timeout": PATIENCE_S}
TASK = "touch the red cube"
INTERFACES = (driver_messages.INTERFACES,)
SERVICES = ("send_goal", "cancel_goal", "get_result")
# What is under way when its caller goes is answered to nobody.
pytestmark = pytest.mark.filterwarnings("ignore:failed to send response:RuntimeWarning")


@pytest.fixture(scope="module", autouse=True)
def messages(tmp_path_factory):
    """The action's messages, from wherever they come."""
    driver_messages.provide(tmp_path_factory, INTERFACES)


class Caller:
    """A program that gives goals, and hears what becomes of them while the monitor is spun."""

    def __init__(self, monitor) -> None:
        from canvas_robot_interfaces.action import RunPolicy

        self.action, self._monitor = RunPolicy, monitor
        self._client = ActionClient(monitor.node, RunPolicy, "policy/run_policy")

    def close(self) -> None:
        self._client.destroy()

    @property
    def finds_it(self) -> bool:
        return self._client.server_is_ready()

    def meets(self, node: NodeInThread) -> NodeInThread:
        """The node, once each knows of the other: before that, answers are lost."""

        def met() -> bool:
            names = [f"/policy/run_policy/_action/{service}" for service in SERVICES]
            return self.finds_it and all(map(node.node.count_clients, names))

        assert self._monitor.wait_for(met, TIMEOUT_S)
        return node

    def ask(self, instruction: str = TASK, max_seconds: float = 0.0) -> Given:
        """Sends a goal; what has been answered."""
        goal = self.action.Goal(instruction=instruction, max_seconds=max_seconds)
        fed_back: list = []
        sent = self._client.send_goal_async(goal, lambda msg: fed_back.append(msg.feedback))
        assert self._monitor.wait_for(sent.done, TIMEOUT_S)
        return Given(self._monitor, sent.result(), fed_back)


class Given:
    """A goal that was given. accepted; feedback: as it came."""

    def __init__(self, monitor, handle, fed_back: list) -> None:
        self._monitor, self._handle, self.feedback = monitor, handle, fed_back
        self.accepted = handle.accepted
        self._ended = handle.get_result_async() if handle.accepted else None

    def cancel(self):
        return self._handle.cancel_goal_async()

    def end(self) -> tuple[int, object]:
        """Its status and result, once it has ended."""
        assert self._monitor.wait_for(self._ended.done, TIMEOUT_S)
        return self._ended.result().status, self._ended.result().result

    @property
    def under_way(self) -> bool:
        return not self._ended.done()


@pytest.fixture
def caller(monitor):
    caller = Caller(monitor)
    yield caller
    caller.close()


@pytest.fixture
def followed(start_policy, robot, monitor, caller):
    """A node, and a goal that it follows."""
    node = caller.meets(start_policy(**ACTIVE))
    assert monitor.wait_for(lambda: reasons(monitor)[-1:] == ["no_instruction"], TIMEOUT_S)
    given = caller.ask()
    assert given.accepted
    assert monitor.wait_for(lambda: follows(monitor, TASK), TIMEOUT_S)
    return node, given


def reasons(monitor) -> list[str]:
    return [status.values["reason"] for status in monitor.statuses]


def follows(monitor, instruction: str) -> bool:
    """Whether the last decision does, and commands came."""
    last = monitor.statuses[-1].values
    return last["instruction"] == instruction and len(monitor.motions) > 5


def is_silent(monitor, seconds: float = 0.5) -> bool:
    """Whether no command comes for so long."""
    monitor.wait_for(lambda: False, 0.2)  # what was under way
    count = len(monitor.poses)
    return not monitor.wait_for(lambda: len(monitor.poses) > count, seconds)


def call(monitor, name: str) -> None:
    client = monitor.node.create_client(Trigger, f"policy/{name}")
    assert monitor.wait_for(client.service_is_ready, TIMEOUT_S)
    answer = client.call_async(Trigger.Request())
    assert monitor.wait_for(answer.done, TIMEOUT_S)
    assert answer.result().success, answer.result().message
    monitor.node.destroy_client(client)


def holds_without_instruction(monitor) -> bool:
    return monitor.wait_for(lambda: reasons(monitor)[-1] == "no_instruction", TIMEOUT_S)


# ---------------------------------------------------------------- under way


def test_a_goal_is_followed_and_fed_back_and_has_no_end_of_its_own(followed, monitor):
    _, given = followed
    assert monitor.wait_for(lambda: len(given.feedback) >= 4, TIMEOUT_S)
    first, last = given.feedback[0], given.feedback[-1]
    assert not last.holding and last.reason == last.detail == ""
    assert last.decisions > first.decisions
    rate_hz = 3 / (given.feedback[3].seconds - first.seconds)
    assert 1.0 <= rate_hz <= 5.0
    assert 0.0 < last.image_age_s < 1.0
    assert given.under_way


def test_a_passing_hold_is_fed_back_and_the_goal_goes_on(followed, robot, monitor):
    _, given = followed
    picture, robot.picture = robot.picture, None
    assert monitor.wait_for(lambda: given.feedback[-1:] and given.feedback[-1].holding, TIMEOUT_S)
    assert given.feedback[-1].reason == "stale_input"
    assert "signal 'image'" in given.feedback[-1].detail
    robot.picture = picture
    assert monitor.wait_for(lambda: not given.feedback[-1].holding, TIMEOUT_S)
    assert given.under_way


# ---------------------------------------------------------------- ends


def test_a_cancelled_goal_holds_at_the_measured_pose_at_once_and_then_nothing_is_said(
    followed, robot, monitor
):
    _, given = followed
    given.cancel()
    status, result = given.end()
    assert status == GoalStatus.STATUS_CANCELED
    assert (result.outcome, result.message) == (result.CANCELLED, "the goal was cancelled")
    assert result.decisions >= 1
    assert is_silent(monitor)
    (hold,) = [s for s in monitor.statuses if s.message == "the goal was cancelled"]
    assert hold.values["index"] == -1  # between ticks
    assert hold.values["command_stamp_ns"] > 0
    pose, hold_at = monitor.poses[-1].pose.position, hold.values["target"]
    np.testing.assert_allclose([pose.x, pose.y, pose.z], hold_at)
    assert holds_without_instruction(monitor)


def test_a_goal_whose_time_is_over_holds(start_policy, robot, monitor, caller):
    caller.meets(start_policy(**ACTIVE))
    begun = time.monotonic()
    status, result = caller.ask(max_seconds=1.0).end()
    assert time.monotonic() - begun >= 1.0
    assert status == GoalStatus.STATUS_ABORTED
    assert (result.outcome, result.message) == (result.TIMED_OUT, "max_seconds (1) over")
    assert is_silent(monitor)
    assert holds_without_instruction(monitor)


def test_another_goal_supersedes_the_first_and_is_followed(followed, monitor, caller):
    _, first = followed
    second = caller.ask("lift it")
    status, result = first.end()
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, result.SUPERSEDED)
    assert monitor.wait_for(lambda: follows(monitor, "lift it"), TIMEOUT_S)
    assert second.under_way
    second.cancel()
    assert second.end()[0] == GoalStatus.STATUS_CANCELED


def test_an_instruction_on_the_topic_supersedes_a_goal_and_is_followed(followed, robot, monitor):
    _, given = followed
    robot.instruction.publish(String(data="lift it"))
    assert given.end()[1].outcome == "superseded"
    assert monitor.wait_for(lambda: follows(monitor, "lift it"), TIMEOUT_S)


def test_an_instruction_that_is_refused_ends_no_goal(followed, robot, monitor):
    _, given = followed
    told = len(monitor.statuses)
    robot.instruction.publish(String(data="lift\x07 it"))
    assert monitor.wait_for(
        lambda: any("refusal" in s.values for s in monitor.statuses[told:]), TIMEOUT_S
    )
    told = len(monitor.statuses)
    assert monitor.wait_for(lambda: any(s.active for s in monitor.statuses[told:]), TIMEOUT_S)
    assert given.under_way and not follows(monitor, "lift it")


@pytest.mark.parametrize("name", ["stop", "estop", "home"])
def test_what_stops_the_arm_ends_a_goal_and_start_does_not_go_on_with_it(followed, monitor, name):
    _, given = followed
    call(monitor, name)
    status, result = given.end()
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, result.STOPPED)
    reason = {"stop": "stopped"}.get(name, name)
    assert result.message.startswith(f"{reason}: ")
    call(monitor, "start")
    assert holds_without_instruction(monitor)
    assert is_silent(monitor)


def test_a_deactivation_ends_a_goal_and_cleanup_leaves_nothing_behind(followed, monitor, caller):
    node, given = followed[0].node, followed[1]
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    status, result = given.end()
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, result.DEACTIVATED)
    assert result.message == "the node was deactivated"
    assert monitor.wait_for(lambda: not caller.finds_it, TIMEOUT_S)

    def held() -> list[int]:
        return [len(list(kind)) for kind in (node.waitables, node.guards, node.timers)]

    before = held()
    for _ in range(3):
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert held() > before
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert held() == before


def test_the_end_of_the_process_answers_who_waits(followed):
    node, given = followed
    node.close()
    assert given.end()[1].outcome == "deactivated"


def test_another_policy_ends_a_goal_and_does_not_go_on_with_it(followed, monitor, caller):
    _, given = followed
    call(monitor, "reload")
    status, result = given.end()
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, result.RELOADED)
    assert holds_without_instruction(monitor)
    caller.meets(followed[0])
    assert caller.ask().accepted
    assert monitor.wait_for(lambda: follows(monitor, TASK), TIMEOUT_S)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    "instruction, max_seconds, why",
    [
        (" ", 0.0, "instruction: expected a task, got a blank text"),
        ("touch\x07it", 0.0, "expected printable characters only"),
        ("x" * 2000, 0.0, "bytes of text, got more"),
        (TASK, -1.0, "max_seconds: expected 0 (no limit) or more, got -1.0"),
        (TASK, math.nan, "max_seconds: expected 0 (no limit) or more, got nan"),
        (TASK, math.inf, "max_seconds: expected 0 (no limit) or more, got inf"),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused_and_the_one_under_way_goes_on(
    followed, monitor, caller, instruction, max_seconds, why
):
    _, given = followed
    assert not caller.ask(instruction, max_seconds).accepted
    assert monitor.wait_for(
        lambda: any(why in s.values["refusal"] for s in monitor.statuses), TIMEOUT_S
    )
    count = len(given.feedback)
    assert monitor.wait_for(lambda: len(given.feedback) > count + 1, TIMEOUT_S)
    assert given.under_way and not given.feedback[-1].holding


def test_no_goal_is_taken_while_the_node_is_not_active(start_policy, robot, monitor, caller):
    node = caller.meets(start_policy(autoconfigure=True, stand_in="constant")).node
    assert not caller.ask().accepted
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert caller.ask().accepted


def test_no_goal_is_taken_while_the_arm_is_stopped(start_policy, robot, monitor, caller):
    topics = {"estop_topic": "estop", "deadman_topic": "deadman"}
    caller.meets(start_policy(**ACTIVE, **topics))
    assert monitor.wait_for(lambda: reasons(monitor)[-1:] == ["deadman_released"], TIMEOUT_S)
    assert not caller.ask().accepted
    deadman = monitor.node.create_publisher(Bool, "deadman", 1)
    estop = monitor.node.create_publisher(Bool, "estop", 1)
    monitor.node.create_timer(0.1, lambda: deadman.publish(Bool(data=True)))
    assert holds_without_instruction(monitor)
    assert caller.ask().accepted
    estop.publish(Bool(data=True))
    assert monitor.wait_for(lambda: reasons(monitor)[-1] == "estop", TIMEOUT_S)
    assert not caller.ask().accepted
    assert monitor.wait_for(
        lambda: monitor.statuses[-1].values["refusal"].startswith("goal refused: estop: "),
        TIMEOUT_S,
    )


def test_an_instruction_that_only_the_model_refuses_ends_its_goal_with_why(
    start_policy, robot, monitor, caller
):
    parameters = {"autostart": True, "instruction": "lift it", "decision_timeout": PATIENCE_S}
    caller.meets(start_policy(**parameters))
    assert monitor.wait_for(lambda: follows_any(monitor), TIMEOUT_S)
    given = caller.ask("é" * 64)  # more tokens than the tiny backbone's text stream holds
    assert given.accepted
    status, result = given.end()
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, result.REFUSED)
    assert "instruction refused" in result.message
    assert holds_without_instruction(monitor)


def follows_any(monitor) -> bool:
    return bool(monitor.statuses) and monitor.statuses[-1].active


def test_without_its_package_there_is_no_action_and_the_node_works(
    start_policy, robot, monitor, caller, monkeypatch
):
    monkeypatch.delitem(sys.modules, "canvas_robot.ros.run_policy", raising=False)
    for name in [n for n in sys.modules if n.split(".")[0] == driver_messages.INTERFACES]:
        monkeypatch.setitem(sys.modules, name, None)
    start_policy(**ACTIVE, instruction=TASK)
    assert monitor.wait_for(lambda: follows_any(monitor), TIMEOUT_S)
    assert not caller.finds_it
