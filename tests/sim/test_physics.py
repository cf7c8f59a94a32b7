"""Laws of the physics: servos track within limits, and friction alone holds what is grasped."""

import numpy as np
import pytest

from canvas_robot.kinematics import Arm, Command, Limits, compose
from canvas_robot.signals.pose import BRIDGE_DEFAULT_ROTATION, Pose
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.scene import Scene
from canvas_robot.sim.tasks import TASK_NAMES, task_named
from canvas_robot.sim.things import COLOURS, cube
from canvas_robot.sim.workplace import SINK, TABLE_RESET, TABLE_TOP_M

ARM = Arm.load()
RED = cube("red", COLOURS["red"])
AWAY = {"red": RED.resting(0.6, 0.4, floor=TABLE_TOP_M)}
DOWN = BRIDGE_DEFAULT_ROTATION
LIMITS = Limits([0.05] * 3 + [0.25] * 3, [0.15, -0.15, 0.03], [0.42, 0.2, 0.25])
FORCE_LIMITS = np.array([35.0] * 6 + [10.0])


@pytest.fixture(scope="module")
def sim():
    sim = WidowXSim(ARM, Scene((RED,)))
    yield sim
    sim.close()


def end_effector(sim: WidowXSim) -> np.ndarray:
    return ARM.forward(sim.joints).position


def move(sim: WidowXSim, position, gripper: float, steps: int = 4) -> None:
    """Straight to a position (m), pointing down, `steps` commands of 0.2 s each."""
    start = sim.target.position
    for fraction in np.linspace(0.0, 1.0, steps + 1)[1:]:
        waypoint = start + fraction * (np.array(position) - start)
        assert sim.command(Command(Pose(waypoint, DOWN), gripper)).converged
        sim.step_until(sim.time + 0.2)


def test_reset_starts_at_rest_where_it_was_told(sim):
    sim.reset({"red": RED.resting(0.3, 0.1, 0.4, floor=TABLE_TOP_M)})
    assert sim.time == 0.0 and sim.finger == 0.037
    assert np.array_equal(sim.joints, TABLE_RESET)
    np.testing.assert_allclose(sim.pose("red").position, [0.3, 0.1, 0.0175], atol=1e-9)
    np.testing.assert_allclose(
        sim.pose("red").rotation, RED.resting(0.3, 0.1, 0.4, floor=TABLE_TOP_M).rotation, atol=1e-9
    )
    with pytest.raises(ValueError, match=r"poses: expected \['red'\], got \['green'\]"):
        sim.reset({"green": RED.resting(0.3, 0.1, floor=TABLE_TOP_M)})


def test_time_advances_by_physics_steps(sim):
    sim.reset(AWAY)
    sim.step()
    assert sim.time == pytest.approx(0.002)
    sim.step_until(0.2)
    assert sim.time == pytest.approx(0.2, abs=1e-9)
    sim.step_until(0.1)
    assert sim.time == pytest.approx(0.2, abs=1e-9)


@pytest.mark.parametrize("position", [(0.2, -0.1, 0.1), (0.3, 0.0, 0.05), (0.4, 0.2, 0.15)])
def test_steady_error_under_gravity_is_below_five_millimetres(sim, position):
    sim.reset(AWAY)
    assert sim.command(Command(Pose(np.array(position), DOWN), 1.0)).converged
    sim.step_until(2.0)
    assert np.linalg.norm(end_effector(sim) - position) < 0.005


@pytest.mark.parametrize("step", [(0.05, 0, 0), (0, 0.05, 0), (0, 0, -0.05)])
def test_ninety_percent_of_a_step_within_three_tenths_of_a_second(sim, step):
    sim.reset(AWAY)
    start = sim.target
    sim.command(Command(Pose(start.position + step, start.rotation), 1.0))
    sim.step_until(0.3)
    done = (end_effector(sim) - start.position) @ np.array(step) / 0.05**2
    assert 0.9 <= done <= 1.05


def test_friction_alone_lifts_a_cube_and_opening_drops_it(sim):
    sim.reset({"red": RED.resting(0.3, 0.02, floor=TABLE_TOP_M)})
    move(sim, (0.3, 0.02, 0.10), gripper=1.0, steps=3)
    move(sim, (0.3, 0.02, 0.021), gripper=1.0)
    assert sim.fingertip_contacts() == frozenset()
    move(sim, (0.3, 0.02, 0.021), gripper=0.0, steps=3)
    assert sim.fingertip_contacts() == {"red"}
    move(sim, (0.3, 0.02, 0.15), gripper=0.0)
    lifted = sim.pose("red").position
    assert lifted[2] > 0.13
    sim.step_until(sim.time + 1.0)
    held = sim.pose("red").position
    assert np.linalg.norm(held - lifted) < 0.002
    assert sim.finger == pytest.approx(0.027, abs=0.001)  # pads 12 mm in, half the cube 15 mm
    sim.command(Command(sim.target, 1.0))
    sim.step_until(sim.time + 1.0)
    assert sim.pose("red").position[2] == pytest.approx(0.0175, abs=0.001)


def test_forces_stay_within_limits_when_pressed_into_the_table(sim):
    sim.reset(AWAY)
    largest = np.zeros(7)
    for depth in np.linspace(0.1, -0.1, 6):
        sim.command(Command(Pose(np.array([0.3, 0.0, depth]), DOWN), 0.0))
        for _ in range(100):
            sim.step()
            largest = np.maximum(largest, np.abs(sim.actuator_forces))
    assert (largest <= FORCE_LIMITS + 1e-9).all()
    assert largest[1] > 20.0  # it did press
    assert np.linalg.norm(end_effector(sim) - sim.target.position) > 0.08  # and was stopped


def test_fast_random_motion_respects_force_and_joint_limits(sim):
    sim.reset(AWAY)
    random = np.random.default_rng(0)
    for k in range(30):
        action = np.append(np.sign(random.normal(size=6)) * LIMITS.step, random.uniform())
        sim.command(compose(sim.target, action, LIMITS))
        sim.step_until(0.2 * (k + 1))
        assert (np.abs(sim.actuator_forces) <= FORCE_LIMITS + 1e-9).all()
        assert (sim.joints >= ARM.lower - 0.02).all() and (sim.joints <= ARM.upper + 0.02).all()
        assert 0.014 <= sim.finger <= 0.038


def test_the_measured_pose_follows_decisions_within_half_a_centimetre(sim):
    sim.reset(AWAY)
    random = np.random.default_rng(1)
    for k in range(20):
        action = np.concatenate([random.uniform(-0.03, 0.03, 3), random.uniform(-0.1, 0.1, 3), [1]])
        sim.command(compose(sim.target, action, LIMITS))
        sim.step_until(0.2 * (k + 1))
        assert np.linalg.norm(end_effector(sim) - sim.target.position) < 0.005


def test_equal_commands_give_equal_bits(sim):
    def trace() -> np.ndarray:
        sim.reset({"red": RED.resting(0.3, 0.02, floor=TABLE_TOP_M)})
        move(sim, (0.3, 0.02, 0.021), gripper=1.0, steps=3)
        move(sim, (0.3, 0.02, 0.1), gripper=0.0, steps=3)
        return np.concatenate([sim.joints, sim.pose("red").position, sim.render(64, 64).ravel()])

    assert np.array_equal(trace(), trace())


def test_close_can_be_repeated_and_rendering_starts_again(sim):
    sim.reset(AWAY)
    before = sim.render(64, 48)
    sim.close()
    sim.close()
    after = sim.render(64, 48)
    assert before.shape == (48, 64, 3) and before.dtype == np.uint8
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_what_a_task_places_lies_still(name):
    task = task_named(name)
    sim = WidowXSim(ARM, Scene(task.props, task.workplace))
    poses = task.episode(100).poses
    sim.reset(poses)
    sim.step_until(2.0)
    for prop, pose in poses.items():
        assert np.linalg.norm(sim.pose(prop).position - pose.position) < 5e-4
        np.testing.assert_allclose(sim.pose(prop).rotation, pose.rotation, atol=5e-3)
    sim.close()


def test_the_sink_has_its_own_joints_and_floor():
    sim = WidowXSim(ARM, Scene((RED,), SINK))
    sim.reset({"red": RED.resting(0.3, 0.0, floor=SINK.floor + 0.02)})
    assert np.array_equal(sim.joints, SINK.reset_joints)
    sim.step_until(1.0)
    assert sim.pose("red").position[2] == pytest.approx(SINK.floor + 0.015, abs=1e-3)
    sim.close()


def test_how_time_is_sliced_does_not_matter(sim):
    def run(slices) -> np.ndarray:
        sim.reset({"red": RED.resting(0.3, 0.02, floor=TABLE_TOP_M)})
        sim.command(Command(Pose(np.array([0.3, 0.05, 0.1]), DOWN), 0.0))
        for count in slices:
            sim.step(count)
        return np.append(sim.joints, sim.finger)

    assert np.array_equal(run([100]), run([1, 2] * 33 + [1]))


def test_a_step_to_touch_stops_at_the_first_finger_on_one_that_matters(sim):
    sim.reset({"red": RED.resting(0.3, 0.02, floor=TABLE_TOP_M)})
    move(sim, (0.3, 0.02, 0.09), gripper=0.0)
    sim.command(Command(Pose(np.array([0.3, 0.02, 0.03]), DOWN), 0.0))
    before = sim.time
    assert sim.step_to_touch(100, frozenset({"red"})) == {"red"} == sim.fingertip_contacts()
    assert before < sim.time < before + 0.2
    assert sim.step_to_touch(3, frozenset()) == frozenset()
