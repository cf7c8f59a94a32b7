"""Laws of the outputs for one driver each: what they say, when they say it, when they hold.

The drivers' messages are the real ones where they are installed, else made from their definitions;
either way they go over DDS.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
import rclpy
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.task import Future
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from canvas_robot.kinematics import Arm
from canvas_robot.resources import config_path
from canvas_robot.ros.doctor import Doctor
from canvas_robot.ros.messages import trajectory_from_msg
from canvas_robot.ros.openings import STEP
from canvas_robot.ros.preparation import Call, Preparation
from canvas_robot.signals import load_binding
from tests.ros import driver_messages
from tests.ros.conftest import JOINTS, RESET, TIMEOUT_S

pytestmark = pytest.mark.slow  # in all: compiling messages, and a driver that starts again

STAND_IN = {"stand_in": "constant", "instruction": "touch it", "decision_timeout": 5.0}
ACTION = "gripper_controller/gripper_cmd"
ARM = Arm.load("wx250s")
WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))


@pytest.fixture(scope="module", autouse=True)
def messages(tmp_path_factory):
    """The messages of drivers, from wherever they come."""
    driver_messages.provide(tmp_path_factory)


@pytest.fixture
def node(domain_id):
    """A node of ours without a policy, spun by a thread."""
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = LifecycleNode("ours", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spinning = SpinningThread(executor)
    yield node
    spinning.close()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


class SpinningThread:
    def __init__(self, executor) -> None:
        self._executor, self._stop = executor, False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stop:
            self._executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        self._executor.shutdown()


class Gripper:
    """A gripper's controller, served while the monitor is spun.

    goals: positions of the goals in m, and names, as they came. accepts: whether the next is taken.
    ends: how those end that are taken.
    """

    def __init__(self, monitor) -> None:
        from control_msgs.action import ParallelGripperCommand

        self._result = ParallelGripperCommand.Result
        self.goals: list[float] = []
        self.names: list[str] = []
        self.accepts, self.ends = True, GoalStatus.STATUS_SUCCEEDED
        self._monitor, self._under_way, self._cancelled = monitor, 0, Future()
        self._server = ActionServer(
            monitor.node,
            ParallelGripperCommand,
            ACTION,
            self._carry_out,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )

    def _on_goal(self, goal) -> GoalResponse:
        (position,), self.names = goal.command.position, list(goal.command.name)
        self.goals.append(position)
        self._under_way += self.accepts
        return GoalResponse.ACCEPT if self.accepts else GoalResponse.REJECT

    def _on_cancel(self, handle) -> CancelResponse:
        self._cancelled.set_result(True)
        return CancelResponse.ACCEPT

    async def _carry_out(self, handle):
        result = self._result(state=handle.request.command)
        if self.ends == GoalStatus.STATUS_SUCCEEDED:
            result.reached_goal = True
            handle.succeed()
        elif self.ends == GoalStatus.STATUS_CANCELED:
            await self._cancelled
            handle.canceled()
        else:
            result.stalled = True
            handle.abort()
        self._under_way -= 1
        return result

    def close(self) -> None:
        assert self._monitor.wait_for(lambda: not self._under_way, TIMEOUT_S)
        self._monitor.spin_once()  # to the end of the last one
        self._server.destroy()


@pytest.fixture
def gripper(monitor):
    gripper = Gripper(monitor)
    yield gripper
    gripper.close()


@pytest.fixture
def hand(node):
    """Our side of the gripper's action, and what it warned of."""
    from canvas_robot.ros.gripper_action import GripperAction

    warned: list[str] = []
    hand = GripperAction(node, ACTION, ARM, "left_finger", warned.append)
    yield hand, warned
    hand.close()


def asks(hand, monitor, share: float, goals: list, count: int, seconds: float = 5.0) -> bool:
    """Wants an opening again and again, as the node does, until so many goals have come."""

    def want() -> bool:
        hand.open_to(share, 1)
        return len(goals) >= count

    return monitor.wait_for(want, seconds)


def test_the_doctor_finds_a_driver_that_is_there(gripper, robot, domain_id):
    with Doctor(WIDOWX, "policy", domain_id, {"gripper_action": ACTION}) as doctor:
        doctor.listen(1.0)
        found = {(f.level, f.subject): f.found for f in doctor.examine()}
    assert found["ok", f"/{ACTION}"] == "control_msgs/action/ParallelGripperCommand"
    assert not [subject for level, subject in found if level == "fault" and "driver" in subject]


# ---------------------------------------------------------------- the gripper's action


def test_an_opening_becomes_a_goal_in_metres_and_the_same_one_no_other(gripper, hand, monitor):
    hand, warned = hand
    assert monitor.wait_for(lambda: not hand.look(), TIMEOUT_S)
    assert asks(hand, monitor, 0.5, gripper.goals, 1)
    assert gripper.goals == pytest.approx([ARM.finger_from_gripper(0.5)])
    assert gripper.names == ["left_finger"]
    assert not asks(hand, monitor, 0.5 + 0.9 * STEP, gripper.goals, 2, seconds=0.4)
    assert asks(hand, monitor, 0.5 + 1.1 * STEP, gripper.goals, 2)
    hand.begin()
    assert asks(hand, monitor, 0.5 + 1.1 * STEP, gripper.goals, 3)
    assert not warned


def test_a_refused_goal_is_told_and_given_again(gripper, hand, monitor):
    hand, warned = hand
    gripper.accepts = False
    assert monitor.wait_for(lambda: not hand.look(), TIMEOUT_S)
    assert asks(hand, monitor, 0.0, gripper.goals, 1)
    assert monitor.wait_for(lambda: bool(warned), TIMEOUT_S)
    assert warned == ["gripper goal: 0.0150 m was refused"]
    assert not asks(hand, monitor, 0.0, gripper.goals, 2, seconds=0.4)
    gripper.accepts = True
    assert asks(hand, monitor, 0.0, gripper.goals, 2)


def test_a_hand_that_stalls_on_an_object_is_left_pressing(gripper, hand, monitor):
    hand, warned = hand
    gripper.ends = GoalStatus.STATUS_ABORTED
    assert monitor.wait_for(lambda: not hand.look(), TIMEOUT_S)
    assert asks(hand, monitor, 0.0, gripper.goals, 1)
    assert not asks(hand, monitor, 0.0, gripper.goals, 2, seconds=1.5)
    assert not warned and not hand.rivals()


def test_a_goal_that_somebody_else_cancels_makes_them_a_rival_for_a_while(gripper, hand, monitor):
    hand, warned = hand
    gripper.ends = GoalStatus.STATUS_CANCELED
    assert monitor.wait_for(lambda: not hand.look(), TIMEOUT_S)
    assert asks(hand, monitor, 0.0, gripper.goals, 1)
    assert not hand.rivals()
    client = monitor.node.create_client(CancelGoal, f"{ACTION}/_action/cancel_goal")
    assert monitor.wait_for(client.service_is_ready, TIMEOUT_S)
    client.call_async(CancelGoal.Request())  # all of them
    assert monitor.wait_for(lambda: hand.rivals() == [f"goals of {ACTION}"], TIMEOUT_S)
    assert "was cancelled, by somebody else or by its controller" in warned[0]
    gripper.ends = GoalStatus.STATUS_SUCCEEDED
    assert asks(hand, monitor, 0.0, gripper.goals, 2)
    assert not hand.rivals()


def test_without_a_server_it_says_so_and_one_that_comes_gets_the_goal(hand, monitor):
    hand, _ = hand
    assert hand.look() == (
        f"the action {ACTION} is not there; is the gripper's controller running?"
    )
    hand.open_to(1.0, 1)
    gripper = Gripper(monitor)
    assert monitor.wait_for(lambda: not hand.look(), TIMEOUT_S)
    assert asks(hand, monitor, 1.0, gripper.goals, 1)
    gripper.close()
    assert monitor.wait_for(lambda: bool(hand.look()), TIMEOUT_S)
    again = Gripper(monitor)
    assert monitor.wait_for(lambda: not hand.look(), TIMEOUT_S)
    assert asks(hand, monitor, 1.0, again.goals, 1)
    again.close()


# ---------------------------------------------------------------- MoveIt Servo


class Servo:
    """MoveIt Servo's switch, served while the monitor is spun. asked: the command types."""

    def __init__(self, monitor) -> None:
        from moveit_msgs.srv import ServoCommandType

        self.asked: list[int] = []
        self.accepts = True
        self._node = monitor.node
        self._service = self._node.create_service(
            ServoCommandType, "servo_node/switch_command_type", self._on_switch
        )

    def _on_switch(self, request, response):
        self.asked.append(request.command_type)
        response.success = self.accepts
        return response

    def close(self) -> None:
        self._node.destroy_service(self._service)


def states(monitor) -> list[tuple[str, str]]:
    return [(s.values["reason"], s.message) for s in monitor.statuses]


def moves(monitor) -> bool:
    before = len(monitor.motions)
    return monitor.wait_for(lambda: len(monitor.motions) > before + 5, TIMEOUT_S)


@pytest.mark.parametrize("command, number", [("twist", 1), ("pose", 2)])
def test_servo_is_told_what_it_hears_before_anything_moves_and_again_when_it_restarts(
    start_policy, robot, monitor, command, number
):
    start_policy(autostart=True, servo=command, **STAND_IN)
    assert monitor.wait_for(lambda: len(monitor.statuses) >= 3, TIMEOUT_S)
    assert {reason for reason, _ in states(monitor)} == {"driver_not_ready"}
    assert "switch_command_type is not there" in states(monitor)[-1][1]
    assert not monitor.poses
    servo = Servo(monitor)
    servo.accepts = False
    assert monitor.wait_for(
        lambda: f"MoveIt Servo refuses the command type {command}" in states(monitor)[-1][1],
        TIMEOUT_S,
    )
    servo.accepts = True
    assert moves(monitor)
    assert set(servo.asked) == {number}
    servo.close()
    assert monitor.wait_for(lambda: states(monitor)[-1][0] == "driver_not_ready", TIMEOUT_S)
    again = Servo(monitor)
    assert moves(monitor)
    assert again.asked == [number]


def test_a_service_that_does_not_answer_is_asked_again(node, monitor):
    from moveit_msgs.srv import ServoCommandType

    asked = []

    def never(request, response):
        asked.append(request.command_type)
        raise TimeoutError("a driver that hangs")

    service = monitor.node.create_service(ServoCommandType, "switch", never)
    request = ServoCommandType.Request(command_type=1)
    preparation = Preparation(node, [Call(ServoCommandType, "switch", request, lambda a: "")])

    def look() -> str:
        try:
            monitor.spin_once(0.05)
        except TimeoutError:
            pass
        return preparation.look()

    for _ in range(200):
        if "has not answered for" in look():
            break
    else:
        pytest.fail("it was never told")
    assert asked == [1]
    monitor.node.destroy_service(service)
    preparation.close()


# ---------------------------------------------------------------- joints


class Xs:
    """Interbotix's driver, served while the monitor is spun.

    modes: mode and profile by name. joints: of the group. registers: as set. groups, singles: the
    commands that came.
    """

    def __init__(self, monitor, **modes) -> None:
        from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
        from interbotix_xs_msgs.srv import RegisterValues, RobotInfo

        self.modes = {"arm": "position", "gripper": "linear_position", **modes}
        self.joints = list(JOINTS[:6])
        self.registers: dict[str, int] = {}
        self.groups, self.singles = [], []
        node = monitor.node
        node.create_service(RobotInfo, "wx250s/get_robot_info", self._on_info)
        node.create_service(RegisterValues, "wx250s/set_motor_registers", self._on_register)
        topic = "wx250s/commands/joint_"
        node.create_subscription(JointGroupCommand, f"{topic}group", self.groups.append, 10)
        node.create_subscription(JointSingleCommand, f"{topic}single", self.singles.append, 10)

    def _on_info(self, request, response):
        assert (request.cmd_type == "group") == (request.name == "arm")
        response.mode, response.profile_type = self.modes[request.name], "time"
        response.joint_names = self.joints if request.name == "arm" else ["left_finger"]
        return response

    def _on_register(self, request, response):
        assert (request.cmd_type, request.name) == ("group", "arm")
        self.registers[request.reg] = request.value
        return response


def test_interbotix_gets_the_joints_and_the_way_between_the_fingers(start_policy, robot, monitor):
    xs = Xs(monitor)
    trajectories = []
    monitor.node.create_subscription(
        JointTrajectory, "policy/joint_trajectory", trajectories.append, 100
    )
    node = start_policy(autostart=True, interbotix="wx250s", joint_output=True, **STAND_IN).node
    assert monitor.wait_for(lambda: len(xs.groups) >= 10 and trajectories, TIMEOUT_S)
    assert xs.registers == {"Profile_Velocity": 200, "Profile_Acceleration": 100}
    (group,) = {msg.name for msg in xs.groups}
    assert group == "arm"
    told = [trajectory_from_msg(msg)[1] for msg in trajectories]
    close = [np.abs(np.array(told) - np.array(msg.cmd)).max(axis=1).min() for msg in xs.groups]
    assert np.median(close) < 1e-6
    (single,) = xs.singles
    share = monitor.grippers[-1]
    assert (single.name, single.cmd) == (
        "gripper",
        pytest.approx(2 * ARM.finger_from_gripper(share)),
    )
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    monitor.wait_for(lambda: False, 0.3)
    np.testing.assert_allclose(xs.groups[-1].cmd, RESET[:6], atol=1e-6)  # the hold
    count = len(xs.groups)
    assert not monitor.wait_for(lambda: len(xs.groups) > count, 0.5)


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"arm": "velocity"}, "Interbotix's arm: expected mode 'position' on a 'time' profile"),
        ({"gripper": "pwm"}, "Interbotix's gripper: expected mode 'linear_position'"),
        ({"joints": ["elbow"]}, "Interbotix's group 'arm': expected the joints ('waist', "),
    ],
)
def test_interbotix_in_another_mode_is_not_commanded(start_policy, robot, monitor, wrong, told):
    xs = Xs(monitor, **{name: mode for name, mode in wrong.items() if name != "joints"})
    xs.joints = wrong.get("joints", xs.joints)
    start_policy(autostart=True, interbotix="wx250s", **STAND_IN)
    assert monitor.wait_for(
        lambda: any(told in message for _, message in states(monitor)), TIMEOUT_S
    )
    assert {reason for reason, _ in states(monitor)} == {"driver_not_ready"}
    assert not xs.groups and not xs.singles


def test_interbotix_is_not_commanded_before_its_modes_are_known(node, monitor):
    """Not even to stay: in another mode the numbers would mean speeds."""
    from canvas_robot.ros.interbotix import Interbotix

    xs = Xs(monitor)
    driver = Interbotix(node, "/wx250s", JOINTS[:6], ARM)
    for publisher in driver.publishers:
        publisher.on_activate(None)

    def heard(everything) -> bool:
        driver.move_joints(RESET[:6])
        driver.open_to(0.0, 1)
        return everything([xs.groups, xs.singles])

    def matched() -> bool:
        return all(publisher.get_subscription_count() for publisher in driver.publishers)

    assert monitor.wait_for(matched, TIMEOUT_S)
    assert not monitor.wait_for(lambda: heard(any), 0.5)
    assert monitor.wait_for(lambda: not driver.look(), TIMEOUT_S)
    assert monitor.wait_for(lambda: heard(all), TIMEOUT_S)
    driver.close()


def test_bare_positions_are_those_of_the_trajectories_and_a_hold_keeps_the_grip(
    start_policy, robot, monitor
):
    topics = ("joint_trajectory", "gripper_trajectory", "joint_positions", "gripper_position")
    kinds = (JointTrajectory, JointTrajectory, Float64MultiArray, Float64MultiArray)
    told = {topic: [] for topic in topics}
    for topic, kind in zip(topics, kinds, strict=True):
        monitor.node.create_subscription(kind, f"policy/{topic}", told[topic].append, 100)
    robot.positions = np.append(RESET[:6], 0.02)  # something is between the fingers
    node = start_policy(autostart=True, joint_output=True, joint_positions=True, **STAND_IN).node
    assert monitor.wait_for(lambda: len(told["joint_positions"]) >= 10, TIMEOUT_S)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    monitor.wait_for(lambda: False, 0.3)
    for bare, named in (("joint_positions", topics[0]), ("gripper_position", topics[1])):
        both = min(len(told[bare]), len(told[named]))
        assert both >= 10
        for one, other in zip(told[bare][-both:], told[named][-both:], strict=True):
            assert list(one.data) == list(trajectory_from_msg(other)[1])
    np.testing.assert_allclose(told["joint_positions"][-1].data, RESET[:6], atol=1e-9)
    (finger,) = told["gripper_position"][-1].data
    assert finger == pytest.approx(ARM.finger_from_gripper(monitor.grippers[-1]))


# ---------------------------------------------------------------- all of them


def everything() -> dict:
    return {
        "joint_positions": True,
        "gripper_action": ACTION,
        "servo": "twist",
        "interbotix": "wx250s",
    }


def test_with_all_drivers_there_the_arm_moves_and_a_second_publisher_holds_it(
    start_policy, robot, monitor, gripper
):
    servo, xs = Servo(monitor), Xs(monitor)
    start_policy(autostart=True, teleop_topic="teleop", **everything(), **STAND_IN)
    assert moves(monitor)
    assert servo.asked == [1] and xs.groups
    assert monitor.wait_for(lambda: len(gripper.goals) == 1, TIMEOUT_S)
    rival = monitor.node.create_publisher(Float64MultiArray, "policy/joint_positions", 1)
    assert monitor.wait_for(lambda: states(monitor)[-1][0] == "second_publisher", TIMEOUT_S)
    monitor.node.destroy_publisher(rival)
    assert moves(monitor)


def test_a_dry_run_calls_and_commands_no_driver(start_policy, robot, monitor, gripper):
    servo, xs = Servo(monitor), Xs(monitor)
    start_policy(autostart=True, dry_run=True, **everything(), **STAND_IN)
    assert moves(monitor)
    assert not (servo.asked or xs.registers or gripper.goals or xs.groups)
    for topic in ("/policy/joint_positions", "/wx250s/commands/joint_group"):
        assert monitor.node.count_publishers(topic) == 0
    for service in ("/servo_node/switch_command_type", f"/{ACTION}/_action/send_goal"):
        assert monitor.node.count_clients(service) == 0


@pytest.mark.parametrize(
    "parameter, value, package, remedy",
    [
        ("gripper_action", ACTION, "control_msgs", "apt install ros-jazzy-control-msgs"),
        ("servo", "pose", "moveit_msgs", "apt install ros-jazzy-moveit-msgs"),
        ("interbotix", "wx250s", "interbotix_xs_msgs", "source the workspace of Interbotix's"),
    ],
)
def test_a_driver_whose_package_is_not_installed_is_refused_at_configure(
    start_policy, monkeypatch, caplog, parameter, value, package, remedy
):
    from canvas_robot.ros.drivers import DriverError, check_drivers
    from canvas_robot.ros.parameters import read_settings

    monkeypatch.delenv("ROS_DISTRO", raising=False)
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    node = start_policy(**STAND_IN, **{parameter: value}).node
    with pytest.raises(DriverError, match=rf"^{parameter}: expected .*{package}.*; {remedy}"):
        check_drivers(read_settings(node))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_all_drivers_whose_packages_are_not_installed_are_told_at_once(start_policy, monkeypatch):
    from canvas_robot.ros.drivers import DriverError, check_drivers
    from canvas_robot.ros.parameters import read_settings

    driver_messages.hide(monkeypatch)
    node = start_policy(**STAND_IN, **everything()).node
    with pytest.raises(DriverError) as refused:
        check_drivers(read_settings(node))
    for told in ("gripper_action: expected", "servo: expected", "interbotix: expected"):
        assert told in str(refused.value)


def test_servo_cannot_be_told_to_hear_what_the_node_does_not_say(start_policy):
    from canvas_robot.ros.parameters import ParameterError, read_settings

    node = start_policy(servo="joint_jog", **STAND_IN).node
    refused = "servo: expected one of twist, pose, nothing, got 'joint"
    with pytest.raises(ParameterError, match=refused):
        read_settings(node)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_drivers_leave_nothing_behind_when_the_node_is_cleaned_up(start_policy, robot):
    node = start_policy(**STAND_IN, **everything()).node

    def held() -> list[int]:
        kinds = (node.publishers, node.clients, node.waitables, node.guards)
        return [len(list(kind)) for kind in kinds]

    before = held()
    for _ in range(3):
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert held() > before
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert held() == before


def test_a_hand_that_leads_the_arm_leads_the_gripper_too(start_policy, robot, monitor, gripper):
    from geometry_msgs.msg import TwistStamped

    start_policy(autostart=True, gripper_action=ACTION, teleop_topic="teleop", **STAND_IN)
    assert moves(monitor)
    speed = monitor.node.create_publisher(TwistStamped, "teleop", 1)
    opening = monitor.node.create_publisher(Float64, "teleop_gripper", 1)

    def closed() -> bool:
        speed.publish(TwistStamped())
        opening.publish(Float64(data=0.0))
        return gripper.goals[-1:] == [pytest.approx(ARM.finger_from_gripper(0.0))]

    assert monitor.wait_for(closed, TIMEOUT_S)
