"""Laws of joint commands: no joint is sent further than its speed allows. No ROS."""

from __future__ import annotations

import numpy as np
import pytest

from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.joint_stream import UnreachableError
from canvas_robot.kinematics.limiter import SetPoint
from canvas_robot.resources import config_path
from canvas_robot.ros.decisions import Motion
from canvas_robot.ros.joint_commands import JointCommands
from canvas_robot.signals import load_binding
from tests.ros.conftest import RESET

RATE_HZ, NS = 50.0, 1_000_000_000
BINDING = load_binding(config_path("bindings", "widowx.yaml"))
ARM = Arm.load("wx250s")
LIMIT = BINDING.robot.joint_speed_limit


def turned(radians: float) -> Motion:
    """To the measured pose, but for the waist."""
    pose = ARM.forward(RESET[:-1] + np.eye(6)[0] * radians)
    return Motion(SetPoint(pose, np.zeros(3), np.zeros(3)), 1.0, 0, 0, 0)


@pytest.fixture
def commands() -> JointCommands:
    return JointCommands(BINDING, Arm.load("wx250s"), RATE_HZ)


@pytest.mark.parametrize("seconds", [2 / RATE_HZ, 10.0])
def test_after_a_hold_or_a_pause_joints_go_no_further_than_in_two_periods(commands, seconds):
    allowed = LIMIT * 2 / RATE_HZ
    commands.follow(turned(0.0), RESET, 5 * NS)
    went = commands.follow(turned(0.95 * allowed), RESET, round((5 + seconds) * NS))
    assert went[0] - RESET[0] == pytest.approx(0.95 * allowed, abs=1e-3)
    commands.stop()
    with pytest.raises(UnreachableError, match="waist would turn at"):
        commands.follow(turned(1.05 * allowed), RESET, round((5 + 2 * seconds) * NS))
