"""Laws of reading numbers by path: from any message, by name, and what is not there says so."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped, TwistStamped, WrenchStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from canvas_robot.ros.fields import FieldReader
from canvas_robot.ros.messages import MessageError
from canvas_robot.signals import BindingError
from canvas_robot.signals.binding import RosFields


def reader(message: str, *fields: str) -> FieldReader:
    return FieldReader(RosFields(topic="x", message=message, fields=fields))


def test_numbers_are_read_in_the_order_of_their_paths():
    msg = WrenchStamped()
    msg.wrench.force.x, msg.wrench.torque.z = 1.5, -2.0
    read = reader("geometry_msgs/msg/WrenchStamped", "wrench.torque.z", "wrench.force.x")
    assert read.read(msg).tolist() == [-2.0, 1.5]
    twist = TwistStamped()
    twist.twist.linear.y = 0.25
    assert reader("geometry_msgs/msg/TwistStamped", "twist.linear.y").read(twist)[0] == 0.25


def test_arrays_are_read_by_number():
    msg = Float64MultiArray(data=[3.0, 4.0, 5.0])
    read = reader("std_msgs/msg/Float64MultiArray", "data[2]", "data[0]")
    assert read.read(msg).tolist() == [5.0, 3.0]
    pose = PoseWithCovarianceStamped()
    pose.pose.covariance[7] = 9.0
    fixed = reader("geometry_msgs/msg/PoseWithCovarianceStamped", "pose.covariance[7]")
    assert fixed.read(pose).tolist() == [9.0]


def test_joints_are_read_by_name_in_any_order():
    read = reader("sensor_msgs/msg/JointState", "velocity[waist]", "effort[elbow]")
    msg = JointState(name=["elbow", "waist"], velocity=[1.0, 2.0], effort=[3.0, 4.0])
    assert read.read(msg).tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("msg", "words"),
    [
        (JointState(name=["elbow"], velocity=[1.0]), "expected 'waist' among the names, there are"),
        (JointState(), "there are none"),
        (JointState(name=["elbow", "waist"], velocity=[1.0]), "expected more than 1 values, got 1"),
    ],
)
def test_what_a_message_lacks_is_named(msg, words):
    with pytest.raises(MessageError, match=words):
        reader("sensor_msgs/msg/JointState", "velocity[waist]").read(msg)


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        ("geometry_msgs/msg/Wrench", "force.w", "Vector3 has no 'w'; it has x, y, z"),
        ("geometry_msgs/msg/Wrench", "force", "expected a number, force is geometry_msgs/Vector3"),
        ("geometry_msgs/msg/Wrench", "force.x.y", "x is double, it has no parts"),
        ("geometry_msgs/msg/Wrench", "force[0]", "expected no brackets"),
        ("sensor_msgs/msg/JointState", "position", "expected a number or name in brackets"),
        ("sensor_msgs/msg/JointState", "name[0]", "expected a number, name is"),
        ("std_msgs/msg/Float64MultiArray", "data[waist]", "no array 'name' to find 'waist' in"),
        ("sensor_msgs/msg/JointState", "position[", "expected names joined by dots"),
        ("nobody_msgs/msg/Thing", "x", "No module named 'nobody_msgs'"),
        ("geometry_msgs/msg/Nothing", "x", "install the package ros-<distro>-geometry-msgs"),
    ],
)
def test_paths_that_a_type_does_not_have_are_refused_before_any_message(message, field, words):
    with pytest.raises(BindingError) as error:
        reader(message, field)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "message", ["os", "os/path", "../x/msg/Y", "std_msgs/srv/Empty", "a.b/msg/C"]
)
def test_only_message_types_can_be_named(message):
    with pytest.raises(BindingError, match="message: expected a type such as"):
        RosFields(topic="x", message=message, fields=("data",))


def test_numbers_that_are_not_finite_pass_to_the_signal_which_refuses_them():
    msg = Float64MultiArray(data=[float("nan")])
    assert np.isnan(reader("std_msgs/msg/Float64MultiArray", "data[0]").read(msg)).all()
