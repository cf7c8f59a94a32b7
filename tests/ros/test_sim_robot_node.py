"""Laws of the simulated robot's parameters: what would end its physics is refused at the start."""

from __future__ import annotations

import math

import pytest
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter

from canvas_robot.ros.sim_robot_node import SimRobotNode


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("episode", -1, "expected the first episode's number, from 0, got -1"),
        ("camera_rate", -15.0, "expected a number in (0, 500], got -15.0"),
        ("camera_rate", 15, "expected a number with a decimal point, got 15"),
        ("joint_rate", math.nan, "expected a number in (0, 500], got nan"),
        ("real_time_factor", math.inf, "expected a number in (0, 500], got inf"),
        ("motion_time", math.nan, "expected seconds in (0, 10], got nan"),
        ("image_height", 4000, "expected 16x16 to 1920x1080 pixels, got 640x4000"),
        ("task", "tidy", "expected one of ['carrot_on_plate', "),
        ("colours", ["purple"], "expected at least two different ones of "),
        ("colours", None, "expected at least two different ones of "),
        ("clock", "mine", "expected wall or sim, got 'mine'"),
        ("image_topic", "a b", "expected a ROS name such as /robot/image_topic, got 'a b'"),
        ("joint_topic", "", "expected a ROS name such as /robot/joint_topic, got ''"),
    ],
)
def test_what_the_physics_would_die_of_is_refused_at_the_start(domain_id, name, value, words):
    given = Parameter(name, value=value)  # None: an empty list, as ROS reads it
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    try:
        with pytest.raises(ValueError, match=rf"^[a-z_, ]*{name}: ") as refused:
            SimRobotNode(context=context, parameter_overrides=[given])
    finally:
        rclpy.try_shutdown(context=context)
    assert words in str(refused.value)
