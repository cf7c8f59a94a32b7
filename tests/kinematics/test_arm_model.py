"""Laws of arms read from files and descriptions: names, frames, limits, and what is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.kinematics import Arm
from canvas_robot.kinematics.arm_model import ArmModelError, is_topic, read_arm
from canvas_robot.resources import config_path
from canvas_robot.signals import BindingError, load_binding
from canvas_robot.signals.pose import Pose, angle_between, matrix_from_rpy
from tests.kinematics.descriptions import seven_joints, widowx

ROBOT = load_binding(config_path("bindings", "widowx.yaml")).robot
ARM = Arm.load()
PEDESTAL = ((0.4, -0.2, 0.9), (0.0, 0.3, 1.2))
SEVEN = {
    "arm": "/robot_description",
    "base_frame": "link0",
    "ee_frame": "link7",
    "finger_range": (0.8, 0.0),
}


def declared(description: str = "", finger: str = "left_finger", **fields) -> Arm:
    return Arm.declared(msgspec.structs.replace(ROBOT, **fields), finger, description)


def seven(pedestal=((0, 0, 0), (0, 0, 0)), **fields) -> Arm:
    return declared(seven_joints(pedestal), "grip", **{**SEVEN, **fields})


joints_of_widowx = st.tuples(
    *(st.floats(low, high) for low, high in zip(ARM.lower, ARM.upper, strict=True))
).map(np.array)
joints_of_seven = st.tuples(*[st.floats(-2.4, 2.4)] * 7).map(np.array)


def assert_same(first: Pose, second: Pose, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(first.position, second.position, atol=atol)
    np.testing.assert_allclose(first.rotation, second.rotation, atol=atol)


# ---------------------------------------------------------------- what is read


URDF = declared(widowx(), arm="/robot_description")


@settings(max_examples=30, deadline=None)
@given(joints_of_widowx)
def test_the_makers_urdf_is_the_arm_that_ships(joints):
    assert_same(URDF.forward(joints), ARM.forward(joints))


@pytest.mark.parametrize("prefix", ["", "wx250s/", "left/"])
def test_names_limits_and_gripper_are_read_whatever_the_prefix(prefix, tmp_path):
    file = tmp_path / "arm.urdf"
    file.write_text(widowx(prefix))
    arm = declared(arm=str(file))
    assert (arm.joint_names, arm.finger_range) == (ARM.joint_names, ARM.finger_range)
    np.testing.assert_array_equal(arm.lower, ARM.lower)
    np.testing.assert_array_equal(arm.upper, ARM.upper)
    assert arm.path == file
    assert arm.bridge_gripper_from_finger(0.02) == ARM.bridge_gripper_from_finger(0.02)


@settings(max_examples=30, deadline=None)
@given(joints_of_seven)
def test_poses_are_those_in_the_base_wherever_it_stands(joints):
    assert_same(seven(PEDESTAL).forward(joints), seven().forward(joints))


@settings(max_examples=30, deadline=None)
@given(joints_of_seven, st.integers(0, 2**32 - 1))
def test_seven_joints_come_back_to_their_pose_on_any_pedestal(joints, seed):
    arm = seven(PEDESTAL, tool=(0.0, 0.02, 0.1, 0.0, -1.5708, 0.0))
    assert len(arm.joint_names) == 7
    target = arm.forward(joints)
    start = joints + np.random.default_rng(seed).uniform(-0.05, 0.05, 7)
    solution = arm.inverse(target, start)
    if not solution.converged:  # near a singular pose
        return
    reached = arm.forward(solution.joints)
    assert np.linalg.norm(reached.position - target.position) <= 1e-4
    assert angle_between(reached.rotation, target.rotation) <= 1e-3


def test_most_near_poses_are_found_again():
    arm, random = seven(PEDESTAL), np.random.default_rng(0)
    joints = random.uniform(-1.5, 1.5, (50, 7))
    found = [arm.inverse(arm.forward(q), q + random.uniform(-0.05, 0.05, 7)) for q in joints]
    assert np.mean([solution.converged for solution in found]) >= 0.9


def test_what_narrowed_joints_reach_is_found_from_near():
    arm, random = seven(PEDESTAL, joint_limits={"joint2": (-0.5, 0.5)}), np.random.default_rng(1)
    low, high = np.maximum(arm.lower, -1.5), np.minimum(arm.upper, 1.5)
    for joints in random.uniform(low, high, (150, 7)):
        start = joints + random.uniform(-0.6, 0.6, 7)
        assert arm.inverse(arm.forward(joints), start).converged


def test_arms_of_one_model_do_not_narrow_each_other():
    model = read_arm(seven_joints(), "link0", "link7")
    Arm(model, "grip", {"joint2": (-0.5, 0.5)}, (0.8, 0.0))
    assert Arm(model, "grip", None, (0.8, 0.0)).lower[1] == -2.5


@pytest.mark.parametrize("ee_frame", ["ee_gripper_link", "gripper_link"])
def test_a_tool_is_moved_in_place_of_its_frame(ee_frame):
    tool = (0.1, -0.02, 0.03, 0.3, -0.5, 1.0)
    plain, held = declared(ee_frame=ee_frame), declared(ee_frame=ee_frame, tool=tool)
    joints = np.array([0.3, -0.4, 0.5, 0.2, 0.7, -0.3])
    hand, moved = plain.forward(joints), held.forward(joints)
    position = hand.position + hand.rotation @ np.array(tool[:3])
    assert_same(moved, Pose(position, hand.rotation @ matrix_from_rpy(np.array(tool[3:]))))


def test_a_binding_narrows_joints_and_gives_the_gripper_its_range():
    arm = seven(joint_limits={"joint1": (-1.0, 2.0), "joint3": (-3.0, 0.5)})
    assert (arm.lower[0], arm.upper[0]) == (-1.0, 2.0)
    assert (arm.lower[2], arm.upper[2]) == (-2.5, 0.5)
    assert (seven().lower[0], seven().upper[0]) == (-np.inf, np.inf)
    assert arm.finger_from_gripper(0.0) == 0.8 and arm.finger_from_gripper(1.0) == 0.0
    assert arm.bridge_gripper_from_finger(0.8) == pytest.approx(0.2)
    assert arm.bridge_gripper_from_finger(0.0) == pytest.approx(1.08)


@pytest.mark.parametrize(
    ("arm", "topic"),
    [
        ("/robot_description", True),
        ("/left/robot_description", True),
        ("/home/me/arm.urdf", False),
        ("/opt/arm.xml", False),
        ("wx250s", False),
    ],
)
def test_a_topic_is_told_from_a_file(arm, topic):
    assert is_topic(arm) == topic


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"base_frame": "link9"}, r"expected base_frame 'link9' among its frames, got .*link0"),
        ({"ee_frame": "hand"}, r"expected ee_frame 'hand' among its frames"),
        ({"ee_frame": "slider"}, r"hinge joints alone from base_frame to ee_frame.*got rail"),
        ({"ee_frame": "link0"}, r"at least one; got none"),
        ({"base_frame": "link7", "ee_frame": "link3"}, r"hang on base_frame 'link7'"),
        ({"joint_limits": {"elbow": (-1.0, 1.0)}}, r"joints of the arm, joint1, .*got elbow"),
        ({"joint_limits": {"joint2": (2.6, 3.0)}}, r"joint_limits\.joint2: .*leave room"),
    ],
)
def test_what_does_not_fit_the_model_is_named_with_what_it_has(fields, words):
    with pytest.raises(ArmModelError, match=words):
        seven(**fields)


@pytest.mark.parametrize("finger", ["grip", "no_such_joint", "left_finger"])
def test_no_models_limits_say_which_is_closed_but_the_widowxs(finger):
    with pytest.raises(ArmModelError, match=rf"robot\.finger_range: expected .*'{finger}' closed"):
        declared(seven_joints(), finger, **{**SEVEN, "finger_range": None})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "<mujoco><include file='/etc/passwd'/></mujoco>",
            "first element is robot, got 'mujoco'",
        ),
        ("<!-- <robot> --><mujoco/>", "got 'mujoco'"),
        ("hello", "got 'hello'"),
        ("", "got ''"),
        ("<robot name='r'><link name='a'></robot>", "robot description: "),
        ("<robot name='r'/>", "robot description: "),
        ("<robot>" + " " * (9 << 20), "at most 8,388,608 characters"),
    ],
    ids=range(7),
)
def test_a_text_that_is_no_urdf_is_refused(text, words):
    with pytest.raises(ArmModelError, match=words):
        read_arm(text, "a", "b")


def test_a_file_that_is_none_is_refused(tmp_path):
    for name in ("arm.xml", "arm.urdf"):
        with pytest.raises(FileNotFoundError, match=name):
            declared(arm=str(tmp_path / name))
        (tmp_path / name).write_text("<robot")
        with pytest.raises(ArmModelError, match=name):
            declared(arm=str(tmp_path / name))


def test_a_topic_is_no_file_where_no_node_hears_it():
    with pytest.raises(ArmModelError, match=r"topic /robot_description, .*save the description"):
        declared(arm="/robot_description")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tool": (np.nan,) + (0.0,) * 5}, r"robot\.tool: expected finite"),
        ({"joint_limits": {"waist": (1.0, 1.0)}}, r"robot\.joint_limits\.waist: expected low < hi"),
        ({"finger_range": (0.1, 0.1)}, r"robot\.finger_range: expected two finite positions"),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_the_binding(fields, words):
    with pytest.raises(BindingError, match=words):
        msgspec.structs.replace(ROBOT, **fields).__post_init__()
