"""Laws of the action ~/record_episode: a bag for each goal, and how each ends.

The action's messages are the installed ones, or made of the very file that is installed.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import yaml
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rosbags.rosbag2 import Reader

from canvas_robot.resources import config_path
from canvas_robot.ros.record import Recorder, RecordError
from canvas_robot.ros.record_run import unused
from canvas_robot.signals import load_binding
from tests.ros import driver_messages
from tests.ros.conftest import TIMEOUT_S

WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))
INTERFACES = (driver_messages.INTERFACES,)
SERVICES = ("send_goal", "cancel_goal", "get_result")
TASK = "put the cup on the plate"
# What is under way when its caller goes is answered to nobody.
pytestmark = pytest.mark.filterwarnings("ignore:failed to send response:RuntimeWarning")


@pytest.fixture(scope="module", autouse=True)
def messages(tmp_path_factory):
    """The action's messages, from wherever they come."""
    driver_messages.provide(tmp_path_factory, INTERFACES)


class Goals:
    """A recorder of goals in a thread; bags are `folder`/1, 2, ..."""

    def __init__(self, folder: Path, domain_id: int) -> None:
        from canvas_robot.ros.record_goals import RecordGoals

        self._folder, self._domain_id, self.begun = folder, domain_id, 0
        self._goals, self._stop = RecordGoals(self._begin, domain_id), threading.Event()
        self.node = self._goals.node
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _begin(self, instruction: str) -> Recorder:
        if instruction == "nothing":
            raise RecordError("/lamp: expected somebody to publish it")
        self.begun += 1
        about = {"canvas_robot.instruction": instruction}
        bag = self._folder / str(self.begun)
        return Recorder(bag, WIDOWX, "raw", "policy", self._domain_id, about=about)

    def _run(self) -> None:
        with self._goals as goals:
            while not self._stop.is_set():
                goals.spin_once()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def goals(tmp_path, domain_id):
    goals = Goals(tmp_path, domain_id)
    yield goals
    goals.close()


class Caller:
    """Gives goals, and hears what becomes of them while the monitor is spun."""

    def __init__(self, monitor, goals: Goals) -> None:
        from canvas_robot_interfaces.action import RecordEpisode

        self.action, self._monitor = RecordEpisode, monitor
        self._client = ActionClient(monitor.node, RecordEpisode, "recorder/record_episode")
        self.feedback: list = []
        names = [f"/recorder/record_episode/_action/{service}" for service in SERVICES]

        def met() -> bool:  # before that, answers are lost
            return self._client.server_is_ready() and all(map(goals.node.count_clients, names))

        assert monitor.wait_for(met, TIMEOUT_S)

    def close(self) -> None:
        self._client.destroy()

    def __call__(self, instruction: str = TASK, max_seconds: float = 0.0):
        goal = self.action.Goal(instruction=instruction, max_seconds=max_seconds)

        def hear(msg) -> None:
            self.feedback.append(msg.feedback)

        return self.got(self._client.send_goal_async(goal, feedback_callback=hear))

    def got(self, future):
        assert self._monitor.wait_for(future.done, TIMEOUT_S)
        return future.result()

    def hears(self, times: int) -> bool:
        """Whether it has been fed back so often since something was recorded."""
        return self._monitor.wait_for(
            lambda: sum(one.messages > 0 for one in self.feedback) >= times, TIMEOUT_S
        )


@pytest.fixture
def call(goals, robot, monitor):
    caller = Caller(monitor, goals)
    yield caller
    caller.close()


def test_a_goal_that_is_cancelled_leaves_a_whole_bag_that_says_what_is_shown(call):
    goal = call()
    assert goal.accepted and call.hears(1)
    result = goal.get_result_async()
    call.got(goal.cancel_goal_async())
    answer = call.got(result)
    assert answer.status == GoalStatus.STATUS_CANCELED
    told = answer.result
    assert (told.outcome, told.message) == (told.STOPPED, "the goal was cancelled")
    with Reader(Path(told.bag)) as reader:
        assert reader.message_count == told.messages > 0
        topics = {one.topic for one in reader.connections if one.msgcount}
    assert topics <= {"/camera/image_raw", "/joint_states"} and topics
    metadata = yaml.safe_load((Path(told.bag) / "metadata.yaml").read_text())
    about = metadata["rosbag2_bagfile_information"]["custom_data"]
    assert about["canvas_robot.instruction"] == TASK


def test_a_goal_ends_with_its_time_and_the_next_has_a_bag_of_its_own(call):
    bags = []
    for _ in range(2):
        answer = call.got(call(max_seconds=4.0).get_result_async())
        assert answer.status == GoalStatus.STATUS_SUCCEEDED
        assert answer.result.outcome == answer.result.TIMED_OUT
        bags.append(answer.result.bag)
    assert len(set(bags)) == 2 and all((Path(bag) / "metadata.yaml").is_file() for bag in bags)


def test_one_episode_at_a_time_and_no_time_that_is_none(call, goals):
    assert not call(max_seconds=-1.0).accepted and not call(max_seconds=float("nan")).accepted
    goal = call()
    assert goal.accepted and not call().accepted
    result = goal.get_result_async()
    call.got(goal.cancel_goal_async())
    call.got(result)
    assert goals.begun == 1


def test_a_bag_that_cannot_be_begun_aborts_its_goal_and_no_other(call):
    answer = call.got(call("nothing").get_result_async())
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert answer.result.outcome == answer.result.FAILED and answer.result.bag == ""
    assert "expected somebody to publish it" in answer.result.message
    assert call(max_seconds=0.1).accepted


def test_an_episode_that_nothing_came_of_leaves_no_bag_and_says_so(goals, monitor, tmp_path):
    caller = Caller(monitor, goals)  # and no robot
    answer = caller.got(caller(max_seconds=0.1).get_result_async())
    assert answer.status == GoalStatus.STATUS_ABORTED
    told = answer.result
    assert (told.outcome, told.bag, told.messages) == (told.FAILED, "", 0)
    assert told.message.startswith("max_seconds over; nothing came of /camera/image_raw, ")
    goal = caller()
    result = goal.get_result_async()
    caller.got(goal.cancel_goal_async())
    answer = caller.got(result)
    assert answer.status == GoalStatus.STATUS_CANCELED and answer.result.bag == ""
    assert answer.result.outcome == answer.result.STOPPED
    assert list(tmp_path.iterdir()) == []
    caller.close()


def test_a_bag_of_the_same_second_is_another(tmp_path):
    one = tmp_path / "2026-01-02_03-04-05"
    assert unused(one) == one
    for number in ("", "_2"):
        one.with_name(one.name + number).mkdir()
    assert unused(one).name == "2026-01-02_03-04-05_3"


def test_a_recorder_that_ends_closes_its_bag_and_says_so(call, goals):
    goal = call()
    result = goal.get_result_async()
    assert call.hears(3)  # the result is asked for by then
    goals.close()
    answer = call.got(result)
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert answer.result.outcome == answer.result.ENDED
    assert (Path(answer.result.bag) / "metadata.yaml").is_file()
