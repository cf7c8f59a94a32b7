"""Laws of arms that a robot_state_publisher describes: they are driven as those of a file."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from canvas_robot.resources import config_path
from canvas_robot.ros import description
from canvas_robot.ros.description import arm_of
from canvas_robot.ros.doctor import Doctor
from canvas_robot.ros.inputs import check_sources
from canvas_robot.ros.messages import pose_from_msg
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import BindingError, load_binding
from tests.kinematics.descriptions import seven_joints, widowx
from tests.ros.conftest import FOLLOWING, TIMEOUT_S

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
WIDOWX = config_path("bindings", "widowx.yaml").read_text()
SEVEN_NAMES = [f"joint{i}" for i in range(1, 8)]
SEVEN_AT = np.array([0.1, 0.4, 0.2, -0.8, 0.1, 0.4, 0.0])


def binding(folder, **replaced: str) -> str:
    """The path of widowx.yaml with some lines' values replaced."""
    lines = []
    for line in WIDOWX.splitlines():
        name = line.strip().partition(":")[0]
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(f"{indent}{name}: {replaced.pop(name)}" if name in replaced else line)
    assert not replaced
    (folder / "arm.yaml").write_text("\n".join(lines))
    return str(folder / "arm.yaml")


def seven(folder) -> str:
    return binding(
        folder,
        joints=f"[{', '.join(SEVEN_NAMES)}]",
        finger="grip",
        arm="/robot_description\n  tool: [0.0, 0.0, 0.05, 0.0, 1.5707963, 0.0]\n"
        "  finger_range: [0.8, 0.0]",
        base_frame="link0",
        ee_frame="link7",
        box_low="[-1.0, -1.0, 0.0]",
        box_high="[1.0, 1.0, 1.2]",
    )


@pytest.fixture
def describe(robot):
    """Latches a description, as a robot_state_publisher does."""

    def latch(text: str) -> None:
        robot.node.create_publisher(String, "robot_description", LATCHED).publish(String(data=text))

    return latch


def following(monitor) -> bool:
    return monitor.wait_for(lambda: sum(s.active for s in monitor.statuses) >= 2, TIMEOUT_S)


def test_an_arm_is_driven_by_its_description(start_policy, robot, monitor, describe, tmp_path):
    describe(widowx())
    start_policy(**FOLLOWING, binding=binding(tmp_path, arm="/robot_description"))
    assert following(monitor)


def test_an_arm_of_seven_joints_is_driven(start_policy, robot, monitor, describe, tmp_path):
    describe(seven_joints(((0.4, -0.2, 0.9), (0.0, 0.3, 1.2))))
    robot.names, robot.positions = (*SEVEN_NAMES, "grip"), np.append(SEVEN_AT, 0.4)
    heard: list[JointTrajectory] = []
    monitor.node.create_subscription(
        JointTrajectory, "policy/joint_trajectory", heard.append, QoSProfile(depth=10)
    )
    path = seven(tmp_path)
    start_policy(**FOLLOWING, binding=path, joint_output=True)
    assert following(monitor) and monitor.wait_for(lambda: bool(heard), TIMEOUT_S)
    assert list(heard[0].joint_names) == SEVEN_NAMES
    arm = arm_of(load_binding(path), seven_joints())
    start = pose_from_msg(monitor.poses[0]).position
    assert np.linalg.norm(start - arm.forward(SEVEN_AT).position) < 0.1
    joints = np.array(heard[0].points[0].positions)
    assert np.abs(joints - SEVEN_AT).max() < 0.5


def test_a_reload_hears_the_description(start_policy, robot, monitor, describe, tmp_path):
    describe(widowx())
    node = start_policy(**FOLLOWING).node
    assert following(monitor)
    described = Parameter("binding", value=binding(tmp_path, arm="/robot_description"))
    assert node.set_parameters([described])[0].successful
    reload = monitor.node.create_client(Trigger, "policy/reload")
    assert monitor.wait_for(reload.service_is_ready, TIMEOUT_S)
    answer = reload.call_async(Trigger.Request())
    assert monitor.wait_for(answer.done, TIMEOUT_S) and answer.result().success
    assert node._session.arm.path is None
    monitor.statuses.clear()
    assert following(monitor)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "expected a URDF on /robot_description, none came within 0.2 s"),
        ("<mujoco/>", "whose first element is robot, got 'mujoco'"),
        (seven_joints(), "expected base_frame 'wx250s/base_link' among its frames"),
    ],
    ids=["silent", "no URDF", "another arm"],
)
def test_without_its_arm_the_node_does_not_configure(
    start_policy, robot, describe, tmp_path, monkeypatch, capfd, text, told
):
    if text is not None:
        describe(text)
    else:
        monkeypatch.setattr(description, "WAIT_S", 0.2)
    path = binding(tmp_path, arm="/robot_description")
    node = start_policy(stand_in="constant", binding=path).node
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert told in capfd.readouterr().err
    assert node._session is None


def test_the_doctor_knows_the_described_arm(robot, describe, domain_id, tmp_path):
    describe(widowx())
    declared = load_binding(binding(tmp_path, arm="/robot_description"))
    with Doctor(declared, "policy", domain_id) as doctor:
        doctor.listen(0.5)
        found = {f.subject: f.level for f in doctor.examine()}
    assert found["measured pose"] == "ok"


def test_joints_of_the_model_in_another_order_are_refused(tmp_path):
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    turned = "[shoulder, waist, elbow, forearm_roll, wrist_angle, wrist_rotate]"
    declared = load_binding(binding(tmp_path, joints=turned))
    with pytest.raises(BindingError, match=r"base to wrist \['waist', 'shoulder'"):
        check_sources(declared, arm_of(declared), schema)
    other = load_binding(binding(tmp_path, joints="[a, b, c, d, e, f]"))
    check_sources(other, arm_of(other), schema)
