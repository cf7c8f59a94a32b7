"""Laws of Running: what becomes of a decision and of set-points, over real DDS."""

from __future__ import annotations

import numpy as np
from rclpy.time import Time
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from canvas_robot.kinematics import Arm
from canvas_robot.kinematics.limiter import SetPoint
from canvas_robot.resources import config_path
from canvas_robot.ros.decisions import Motion
from canvas_robot.ros.messages import trajectory_from_msg
from tests.ros.conftest import PATIENCE_S, RESET, TIMEOUT_S

ARM = Arm.load("wx250s")
JOINTS_OF_NO_MOTION = {
    "autostart": True,
    "stand_in": "constant",
    "instruction": "touch it",
    "joint_output": True,
    "decision_timeout": PATIENCE_S,
}


def turned(by: float) -> np.ndarray:
    """The robot's joints and finger (7,), the waist further by some radians."""
    return RESET + by * np.eye(7)[0]


def heard_joints(monitor) -> list:
    told: list = []
    monitor.node.create_subscription(JointTrajectory, "policy/joint_trajectory", told.append, 100)
    return told


def call(monitor, service: str) -> None:
    client = monitor.node.create_client(Trigger, service)
    assert monitor.wait_for(client.service_is_ready, TIMEOUT_S)
    assert monitor.wait_for(client.call_async(Trigger.Request()).done, TIMEOUT_S)


def test_a_stepped_system_clock_lets_no_jump_of_joints_pass(
    start_policy, robot, monitor, monkeypatch
):
    """By the robot's clock a minute passes between two set-points, by the steady one hardly any.

    Of several pairs, as a machine may pause within one of them.
    """
    told = heard_joints(monitor)
    node = start_policy(**JOINTS_OF_NO_MOTION).node
    assert monitor.wait_for(lambda: len(told) >= 2, TIMEOUT_S)
    running, clock = node._running, node.get_clock()
    period, stood = running.period, clock.now().nanoseconds
    assert period.commands.stop(TIMEOUT_S) and period.ticker.stop(TIMEOUT_S)
    ways = iter([turned(0.0), turned(0.1)] * 5)

    def motion() -> Motion:
        still = SetPoint(ARM.forward(next(ways)[:6]), np.zeros(3), np.zeros(3))
        return Motion(still, 1.0, 0, 0, 0)

    monkeypatch.setattr(running.session.loop, "motion", motion)
    clock._set_ros_time_is_active(True)
    for minutes in range(10):
        clock.set_ros_time_override(Time(nanoseconds=stood + minutes * 60_000_000_000))
        running.move(0.0)
    assert monitor.wait_for(
        lambda: any("joint waist would turn at" in s.message for s in monitor.statuses), TIMEOUT_S
    )


def test_joints_that_were_halted_begin_anew_where_they_are_measured(
    start_policy, robot, monitor, tmp_path
):
    """Without a command to stay somewhere, the arm may be anywhere when it goes on."""
    text = config_path("bindings", "widowx.yaml").read_text()
    assert "  anchor:" in text
    halting = text.replace("  anchor:", "  reactions: {stopped: zero_twist}\n  anchor:")
    (tmp_path / "halting.yaml").write_text(halting)
    told = heard_joints(monitor)
    node = start_policy(**JOINTS_OF_NO_MOTION, binding=str(tmp_path / "halting.yaml")).node
    assert monitor.wait_for(lambda: len(told) >= 2, TIMEOUT_S)
    call(monitor, "policy/stop")
    robot.positions = turned(0.5)
    inputs = node._running.period.inputs
    assert monitor.wait_for(lambda: np.array_equal(inputs.joints, turned(0.5)), TIMEOUT_S)
    before, statuses = len(told), len(monitor.statuses)
    call(monitor, "policy/start")
    assert monitor.wait_for(lambda: len(told) > before + 1, TIMEOUT_S)
    joints = trajectory_from_msg(told[before])[1]
    np.testing.assert_allclose(joints, turned(0.5)[:6], atol=0.01)
    held = {s.values["reason"] for s in monitor.statuses[statuses:] if not s.active}
    assert "unreachable" not in held
