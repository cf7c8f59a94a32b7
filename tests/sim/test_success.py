"""Laws of success, each on a scene placed for it: the rule, the grasp, and the three protocols."""

import gymnasium
import numpy as np
import pytest

from canvas_robot.kinematics import Arm, Command
from canvas_robot.signals.pose import BRIDGE_DEFAULT_ROTATION, Pose, matrix_from_rpy
from canvas_robot.sim.experts import expert_for
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.registration import ENV_IDS, register
from canvas_robot.sim.scene import Scene
from canvas_robot.sim.success import OnTarget, PlacingJudge, box_distance
from canvas_robot.sim.tasks import task_named

register()
ARM = Arm.load()
STACK = task_named("stack_cube")
LOW, HIGH = 0.0025 + 0.015, 0.0025 + 0.045  # heights of a cube's centre on the table, and stacked
CONTROL_S = 0.2


@pytest.fixture(scope="module")
def stack():
    sim = WidowXSim(ARM, Scene(STACK.props, physics_hz=250))
    yield sim
    sim.close()


def at(x: float, y: float, z: float, yaw: float = 0.0) -> Pose:
    return Pose(np.array([x, y, z]), matrix_from_rpy(np.array([0.0, 0.0, yaw])))


def placed(sim: WidowXSim, rule: OnTarget, green: Pose, yellow: Pose, **reset) -> PlacingJudge:
    sim.reset({"green": green, "yellow": yellow}, **reset)
    return PlacingJudge(rule, sim)


def wait(sim: WidowXSim, judge: PlacingJudge, steps: int) -> dict[str, bool]:
    for _ in range(steps):
        judge.watch(sim, round(CONTROL_S / sim.timestep))
        judge.note(sim)
    return judge.verdict()


def rule_holds(sim: WidowXSim, rule: OnTarget) -> bool:
    return rule.holds(sim, sim.contact_forces(rule.source.name))


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    "away_m, over_m, holds",
    [
        (0.0, 0.0, True),
        (0.024, 0.0, True),  # half the diagonal of the target and 3 mm: 24.2 mm
        (0.0245, 0.0, False),
        (0.0, 0.019, True),  # in the air, up to 2 cm
        (0.0, 0.021, False),
    ],
)
def test_the_centre_lies_within_half_the_diagonal_and_the_gap_is_small(
    stack, away_m, over_m, holds
):
    placed(stack, STACK.rule, at(0.3 + away_m, 0.0, HIGH + over_m), at(0.3, 0.0, LOW))
    assert rule_holds(stack, STACK.rule) is holds


def test_below_is_not_above(stack):
    placed(stack, STACK.rule, at(0.3, 0.0, LOW), at(0.3, 0.0, HIGH))
    assert not rule_holds(stack, STACK.rule)


@pytest.mark.parametrize(
    "name, xy_m, gap_m, alone",
    [
        ("spoon_on_towel", 0.0737, 0.02, False),
        ("carrot_on_plate", 0.0808, 0.02, True),
        ("stack_cube", 0.0242, 0.02, True),
        ("eggplant_in_basket", 0.0793, 0.06, False),
    ],
)
def test_thresholds_are_the_published_ones(name, xy_m, gap_m, alone):
    rule = task_named(name).rule
    assert rule.target.radius + 0.003 == pytest.approx(xy_m, abs=5e-5)
    assert rule.gap_m == gap_m and rule.touches_only_target is alone


def test_what_leans_on_the_target_and_on_the_table_is_not_on_the_target():
    task = task_named("cube_on_plate")
    sim = WidowXSim(ARM, Scene(task.props, physics_hz=250))
    for yaw in (0.0, 0.3):
        sim.reset({"red": at(0.3 + 0.058, 0.0, 0.03, yaw), "plate": at(0.3, 0.0, 0.0055)})
        sim.step(500)
        lenient = OnTarget(task.source, task.target, 0.02, touches_only_target=False)
        assert set(sim.contact_forces("red")) == {"world", "plate"}
        assert rule_holds(sim, lenient) and not rule_holds(sim, task.rule)
    sim.close()


# ---------------------------------------------------------------- the protocols


def test_what_stands_alone_for_a_second_is_held_and_not_sooner(stack):
    judge = placed(stack, STACK.rule, at(0.3, 0.0, HIGH), at(0.3, 0.0, LOW))
    assert judge.verdict()["success"] and not judge.verdict()["success_held"]
    assert not wait(stack, judge, 4)["success_held"]
    assert wait(stack, judge, 1) == {
        "success": True,
        "success_any": True,
        "success_held": True,
        "grasped": False,
        "moved_correct": False,
        "moved_wrong": False,
    }


def test_what_falls_off_was_placed_at_some_step_only(stack):
    judge = placed(stack, STACK.rule, at(0.3 + 0.02, 0.0, HIGH), at(0.3, 0.0, LOW))
    assert judge.verdict()["success"]
    verdict = wait(stack, judge, 10)
    assert stack.pose("green").position[2] == pytest.approx(LOW, abs=1e-3)
    assert verdict["success_any"]
    assert not verdict["success"] and not verdict["success_held"]


def test_held_stays_true_when_it_is_swept_away_later(stack):
    judge = placed(stack, STACK.rule, at(0.3, 0.0, HIGH), at(0.3, 0.0, LOW))
    assert wait(stack, judge, 6)["success_held"]
    for x in np.linspace(0.28, 0.36, 9):
        stack.command(Command(Pose(np.array([x, 0.0, 0.05]), BRIDGE_DEFAULT_ROTATION), 0.0))
        verdict = wait(stack, judge, 1)
    assert verdict["success_held"] and verdict["success_any"] and not verdict["success"]


@pytest.mark.parametrize("over_m, held", [(0.045, False), (0.058, True)])
def test_a_hand_that_is_still_near_has_not_let_go(stack, over_m, held):
    top = HIGH + 0.015
    pose = Pose(np.array([0.3, 0.0, top + over_m]), BRIDGE_DEFAULT_ROTATION)
    joints = ARM.inverse(pose, np.array(STACK.workplace.reset_joints)).joints
    judge = placed(stack, STACK.rule, at(0.3, 0.0, HIGH), at(0.3, 0.0, LOW), joints=joints)
    assert wait(stack, judge, 10)["success_held"] is held
    assert judge.verdict()["success"]


def test_what_is_still_in_the_hand_counts_as_last_and_any_but_never_as_held():
    env = gymnasium.make(ENV_IDS["stack_cube"], obs="state", physics_hz=250)
    expert = expert_for("stack_cube")
    _, info = env.reset(options={"episode_id": 0})
    while not (info["grasped"] and info["success"]):
        assert not info["success_any"]
        *_, info = env.step(expert(env))
    for _ in range(8):
        *_, info = env.step(np.zeros(7, np.float32))
        assert info["success"] and info["grasped"] and not info["success_held"]
    for _ in range(14):
        *_, info = env.step(expert(env))
    assert info["success_held"] and not info["grasped"]
    env.close()


# ---------------------------------------------------------------- what moved, what is held


def test_a_thing_counts_as_moved_from_three_centimetres_on_and_by_who_moved_further(stack):
    judge = placed(stack, STACK.rule, at(0.36, 0.0, LOW), at(0.3, 0.12, LOW))
    moved = {}
    for y in np.linspace(-0.06, 0.06, 13):
        stack.command(Command(Pose(np.array([0.36, y, 0.022]), BRIDGE_DEFAULT_ROTATION), 0.0))
        verdict = wait(stack, judge, 1)
        way = np.linalg.norm(stack.pose("green").position[:2] - (0.36, 0.0))
        assert verdict["moved_correct"] == (way > 0.03) and not verdict["moved_wrong"]
        moved[way > 0.03] = True
    assert set(moved) == {True, False}


def test_the_wrong_thing_moved_is_said_to_be_so(stack):
    judge = placed(stack, STACK.rule, at(0.3, 0.12, LOW), at(0.36, 0.0, LOW))
    for y in np.linspace(-0.06, 0.06, 13):
        stack.command(Command(Pose(np.array([0.36, y, 0.022]), BRIDGE_DEFAULT_ROTATION), 0.0))
        verdict = wait(stack, judge, 1)
    assert verdict["moved_wrong"] and not verdict["moved_correct"]


def test_one_finger_alone_does_not_grasp(stack):
    judge = placed(stack, STACK.rule, at(0.36, 0.03, LOW), at(0.25, -0.1, LOW))
    pushed = False
    for y in np.linspace(-0.06, 0.06, 13):
        stack.command(Command(Pose(np.array([0.36, y, 0.022]), BRIDGE_DEFAULT_ROTATION), 0.0))
        verdict = wait(stack, judge, 1)
        pushed |= bool(stack.robot_bodies & set(stack.contact_forces("green")))
        assert not verdict["grasped"]
    assert pushed


def test_distance_to_a_box_is_zero_inside_and_to_its_nearest_point_outside():
    half, pose = (0.1, 0.2, 0.3), at(1.0, 0.0, 0.0, yaw=np.pi / 2)
    assert box_distance(np.array([1.1, 0.05, -0.2]), pose, half) == 0.0
    assert box_distance(np.array([1.25, 0.0, 0.0]), pose, half) == pytest.approx(0.05)
    assert box_distance(np.array([1.23, 0.14, 0.0]), pose, half) == pytest.approx(0.05)


def test_forces_on_what_lies_still_are_its_weight(stack):
    placed(stack, STACK.rule, at(0.3, 0.0, HIGH), at(0.3, 0.0, LOW))
    stack.step(500)  # long enough for the physics to leave both out
    weight = 0.03**3 * 1000.0 * 9.81
    forces = stack.contact_forces("yellow")
    np.testing.assert_allclose(forces["world"], [0, 0, 2 * weight], atol=0.02)
    np.testing.assert_allclose(forces["green"], [0, 0, -weight], atol=0.02)
    np.testing.assert_allclose(stack.contact_forces("green")["yellow"], [0, 0, weight], atol=0.02)
