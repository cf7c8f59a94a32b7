"""Laws of the managed node's states: every walk ends where ROS 2 says, and nothing is left over."""

from __future__ import annotations

import gc
import os
import random
import threading
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from canvas_robot.ros import process_tree
from tests.ros.conftest import PATIENCE_S, TIMEOUT_S

# What ROS 2 allows: by state, each transition and where it leads.
WAYS = {
    State.PRIMARY_STATE_UNCONFIGURED: {
        Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    },
    State.PRIMARY_STATE_INACTIVE: {
        Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
        Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
    },
    State.PRIMARY_STATE_ACTIVE: {
        Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    },
}
TRANSITIONS = sorted({transition for ways in WAYS.values() for transition in ways})
STAND_IN = {"stand_in": "constant", "instruction": "touch it"}


class Remote:
    """The node's states as `ros2 lifecycle` sees them."""

    def __init__(self, monitor) -> None:
        self._monitor = monitor
        self._change = monitor.node.create_client(ChangeState, "/policy/change_state")
        self._get = monitor.node.create_client(GetState, "/policy/get_state")
        for client in (self._change, self._get):
            assert monitor.wait_for(client.service_is_ready, TIMEOUT_S)

    def _call(self, client, request):
        future = client.call_async(request)
        assert self._monitor.wait_for(future.done, TIMEOUT_S)
        return future.result()

    def change(self, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return self._call(self._change, request).success

    @property
    def state(self) -> int:
        return self._call(self._get, GetState.Request()).current_state.id


def check_walk(seed: int, steps: int, node, remote: Remote) -> None:
    """Asks for one transition after the other, whether it is allowed or not; some must fail."""
    rng = random.Random(seed)
    state = remote.state
    for _ in range(steps):
        allowed = WAYS[state]
        transition = rng.choice(TRANSITIONS if rng.random() < 0.3 else sorted(allowed))
        broken = transition == Transition.TRANSITION_CONFIGURE and rng.random() < 0.3
        if state == State.PRIMARY_STATE_UNCONFIGURED:
            schema = "nowhere.json" if broken else ""
            node.set_parameters([Parameter("schema", value=schema)])
        succeeded = remote.change(transition)
        assert succeeded == (transition in allowed and not broken), (state, transition, broken)
        state = allowed[transition] if succeeded else state
        assert remote.state == state
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        if transition in WAYS[state]:
            assert remote.change(transition)
            state = WAYS[state][transition]
    node.set_parameters([Parameter("schema", value="")])
    assert state == State.PRIMARY_STATE_UNCONFIGURED


def held_by_us() -> tuple[int, int, int]:
    """Threads, open files and child processes."""
    gc.collect()
    return (
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
        len(process_tree.family(os.getpid())),
    )


def topics_heard(node) -> list[str]:
    return sorted(subscription.topic_name for subscription in node.subscriptions)


def resident_mb() -> float:
    gc.collect()
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in one)
    return int(line.split()[1]) / 1024


def cycle(node, activate: bool) -> None:
    ways = [node.trigger_configure, node.trigger_cleanup]
    if activate:
        ways[1:1] = [node.trigger_activate, node.trigger_deactivate]
    for transition in ways:
        assert transition() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize(
    "walks", [10, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_random_walks_end_where_ros_2_says(start_policy, robot, monitor, walks):
    node = start_policy(**STAND_IN).node
    remote = Remote(monitor)
    for seed in range(walks):
        check_walk(seed, 12, node, remote)


@pytest.mark.parametrize(
    "cycles, parameters",
    [
        (10, STAND_IN),
        pytest.param(50, STAND_IN, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param(
            50,
            {"instruction": "touch the red cube"},
            marks=[pytest.mark.slow, pytest.mark.timeout(1200)],
        ),
    ],
    ids=["10", "50", "50 of the tiny model"],
)
def test_configuring_again_and_again_leaks_nothing(start_policy, robot, cycles, parameters):
    node = start_policy(**parameters).node
    for _ in range(3):  # what is made once and kept
        cycle(node, activate=True)
    held, resident = held_by_us(), resident_mb()
    for index in range(cycles):
        cycle(node, activate=index % 2 == 0)
    assert held_by_us() == held
    assert resident_mb() < resident + 4 + 0.2 * cycles


def test_a_node_whose_own_code_fails_holds_and_deactivates_itself(
    start_policy, robot, monitor, monkeypatch
):
    """From the thread that failed, through the executor's; and it can be activated again."""
    node = start_policy(autostart=True, decision_timeout=PATIENCE_S, **STAND_IN).node
    remote = Remote(monitor)
    assert monitor.wait_for(lambda: sum(s.active for s in monitor.statuses) >= 2, TIMEOUT_S)

    def fail(index, stamp_ns):
        raise KeyError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(node._session.loop, "tick", fail)
        assert monitor.wait_for(
            lambda: any("deactivated itself" in s.message for s in monitor.statuses), TIMEOUT_S
        )
        assert remote.state == State.PRIMARY_STATE_INACTIVE
    first, *_, last = [s for s in monitor.statuses if not s.active]
    assert (first.values["reason"], first.values["reaction"]) == ("internal_error", "deactivate")
    assert first.values["command_stamp_ns"], "it held at the measured pose before that"
    assert (
        last.message == "the node deactivated itself: internal_error: KeyError: 'a fault of ours'"
    )
    before = len(monitor.statuses)
    assert remote.change(Transition.TRANSITION_ACTIVATE)
    assert monitor.wait_for(
        lambda: sum(s.active for s in monitor.statuses[before:]) >= 2, TIMEOUT_S
    )


@pytest.mark.parametrize("what", ["drivers", "control", "commands"])
def test_an_activation_that_fails_leaves_nothing_active_and_can_be_repeated(
    start_policy, robot, monitor, monkeypatch, what
):
    """Where a driver cannot be asked, and where the machine has no room for one more thread."""
    node = start_policy(autoconfigure=True, decision_timeout=PATIENCE_S, **STAND_IN).node
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS  # makes what lasts
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    held, heard = held_by_us(), topics_heard(node)
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == what:
            raise RuntimeError("can't start new thread")
        begin(thread)

    def refuse() -> None:
        raise RuntimeError("no more clients")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        if what == "drivers":
            patch.setattr(node._running.drivers, "begin", refuse)
        assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert not node._is_active
    assert (held_by_us(), topics_heard(node)) == (held, heard)
    assert gc.get_freeze_count() == 0
    before = len(monitor.statuses)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert monitor.wait_for(
        lambda: sum(s.active for s in monitor.statuses[before:]) >= 2, TIMEOUT_S
    )


def test_a_node_can_be_shut_down_from_every_state(start_policy):
    for ways in (
        [],
        ["trigger_configure"],
        ["trigger_configure", "trigger_activate"],
        ["trigger_configure", "trigger_activate", "trigger_deactivate"],
    ):
        running = start_policy(**STAND_IN)
        for way in ways:
            assert getattr(running.node, way)() == TransitionCallbackReturn.SUCCESS
        assert running.node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
        assert running.node._session is None
