"""Laws of JointCommands: joints of a motion, no faster than declared, from where the arm is."""

import numpy as np
import pytest

from canvas_robot.kinematics import Arm
from canvas_robot.kinematics.joint_stream import UnreachableError
from canvas_robot.kinematics.limiter import SetPoint
from canvas_robot.resources import config_path
from canvas_robot.ros.decisions import Motion
from canvas_robot.ros.joint_commands import JointCommands
from canvas_robot.signals import BindingError, load_binding

WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))  # 3.14 rad/s of every joint
ARM = Arm.load("wx250s")
MEASURED = np.array([-0.13, -0.76, 0.44, -0.02, 1.76, -0.16, 0.02])
START_NS = 5_000_000_000
RATE_HZ, PERIOD_NS = 50.0, 20_000_000


def to(joints: np.ndarray, gripper: float = 1.0) -> Motion:
    """To where joints (7,) have the end effector."""
    return Motion(SetPoint(ARM.forward(joints[:6]), np.zeros(3), np.zeros(3)), gripper, 0, 0, 0)


def turned(by: float) -> np.ndarray:
    return MEASURED + by * np.eye(7)[0]


@pytest.fixture
def commands() -> JointCommands:
    """That follow an arm at rest, since a moment ago."""
    commands = JointCommands(WIDOWX, Arm.load("wx250s"), RATE_HZ)
    commands.follow(to(MEASURED), MEASURED, START_NS)
    return commands


def test_the_joints_are_those_of_the_motion_and_the_finger_that_of_its_gripper(commands):
    joints = commands.follow(to(turned(0.03), gripper=0.5), MEASURED, START_NS + PERIOD_NS)
    np.testing.assert_allclose(joints[:6], turned(0.03)[:6], atol=1e-3)
    assert joints[6] == pytest.approx(0.026)


def test_a_joint_turns_no_faster_than_the_binding_says(commands):
    with pytest.raises(UnreachableError, match=r"joint waist would turn at 5\.\d rad/s"):
        commands.follow(to(turned(0.1)), MEASURED, START_NS + PERIOD_NS)


@pytest.mark.parametrize("periods", [2, 500])
def test_after_a_hold_or_a_pause_joints_go_no_further_than_in_two_periods(commands, periods):
    allowed = WIDOWX.robot.joint_speed_limit * 2 / RATE_HZ
    later_ns = START_NS + periods * PERIOD_NS
    went = commands.follow(to(turned(0.95 * allowed)), MEASURED, later_ns)
    np.testing.assert_allclose(went[:6], turned(0.95 * allowed)[:6], atol=1e-3)
    commands.stop()
    with pytest.raises(UnreachableError, match="waist would turn at"):
        commands.follow(to(turned(1.05 * allowed)), MEASURED, 2 * later_ns)


@pytest.mark.parametrize("how", ["stop", "stay"])
def test_what_was_halted_begins_anew_at_the_measured_joints(commands, how):
    """However far these are from where it was halted."""
    commands.follow(to(turned(0.03)), MEASURED, START_NS + PERIOD_NS)
    if how == "stop":
        commands.stop()
    else:
        assert np.array_equal(commands.stay(turned(1.0), 0.0)[:6], turned(1.0)[:6])
    joints = commands.follow(to(turned(1.01)), turned(1.0), START_NS + 2 * PERIOD_NS)
    np.testing.assert_allclose(joints[:6], turned(1.01)[:6], atol=1e-3)


def test_without_measured_joints_there_is_nowhere_to_begin():
    with pytest.raises(BindingError, match="expected a source of type joint_states"):
        JointCommands(load_binding(config_path("bindings", "widowx_pose.yaml")), ARM, RATE_HZ)
