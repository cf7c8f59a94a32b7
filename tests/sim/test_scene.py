"""Laws of the scene: only free physics, real masses, and Bridge's camera."""

import mujoco
import numpy as np
import pytest
from PIL import Image

from canvas_robot.kinematics import Arm
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.props import Prop, Shape
from canvas_robot.sim.scene import CAMERA, Scene, build_model
from canvas_robot.sim.things import COLOURS, cube
from canvas_robot.sim.workplace import SINK, TABLE, TABLE_TOP_M

ARM = Arm.load()
RED, BLUE = (cube(name, COLOURS[name]) for name in ("red", "blue"))
PLACES = {
    "red": RED.resting(0.25, -0.05, 0.3, floor=TABLE_TOP_M),
    "blue": BLUE.resting(0.36, 0.09, -0.2, floor=TABLE_TOP_M),
}
BALL = Shape("ellipsoid", (0.01, 0.01, 0.01), (1.0, 0.0, 0.0))

# Link masses in kg, from the maker's description of the WidowX 250S.
MASSES = {
    "base_link": 0.538736,
    "shoulder_link": 0.480879,
    "upper_arm_link": 0.430811,
    "upper_forearm_link": 0.234589,
    "lower_forearm_link": 0.220991,
    "wrist_link": 0.084957,
    "gripper_link": 0.110084,
    "left_finger_link": 0.016246,
    "right_finger_link": 0.016246,
}


@pytest.fixture(scope="module")
def sim():
    sim = WidowXSim(ARM, Scene((RED, BLUE)))
    sim.reset(PLACES)
    yield sim
    sim.close()


@pytest.fixture(scope="module")
def model():
    return build_model(ARM, Scene((RED, BLUE)))


def pixel(model: mujoco.MjModel, point) -> np.ndarray:
    """Column and row of a point in `base_link` by a pinhole of focal length 623.588 at 640x480."""
    camera = model.camera(CAMERA)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    rotation = data.cam_xmat[camera.id].reshape(3, 3)
    right, up, backward = rotation.T @ (np.asarray(point) - data.cam_xpos[camera.id])
    return np.array([320.0, 240.0]) + 623.588 * np.array([right, -up]) / -backward


def test_nothing_holds_the_cubes_but_contact(model):
    assert model.nmocap == 0 and model.ntendon == 0
    equalities = [(model.equality(i).name, model.eq_type[i]) for i in range(model.neq)]
    assert equalities == [("mimic", mujoco.mjtEq.mjEQ_JOINT)]
    for prop in (RED, BLUE):
        body = model.body(prop.name)
        assert body.parentid[0] == 0 and model.body_gravcomp[body.id] == 0.0
        assert model.joint(prop.name).type[0] == mujoco.mjtJoint.mjJNT_FREE


def test_masses_gravity_and_force_limits_are_physical(model):
    for name, mass in MASSES.items():
        assert model.body(name).mass[0] == pytest.approx(mass, abs=1e-6)
    assert model.body("red").mass[0] == pytest.approx(0.03**3 * 1000.0)
    np.testing.assert_allclose(model.opt.gravity, [0.0, 0.0, -9.81])
    limits = [[-35.0, 35.0]] * 6 + [[-10.0, 10.0]]
    assert np.array_equal(model.actuator_forcerange, limits)
    assert model.opt.timestep == 0.002


def test_half_the_rate_is_twice_the_step():
    assert build_model(ARM, Scene((RED,), physics_hz=250)).opt.timestep == 0.004


@pytest.mark.parametrize("workplace", [TABLE, SINK], ids=lambda workplace: workplace.name)
def test_nothing_at_a_workplace_stands_in_the_hands_way(workplace):
    model = build_model(ARM, Scene((), workplace))
    data = mujoco.MjData(model)
    data.qpos[:6] = workplace.reset_joints
    mujoco.mj_forward(model, data)
    assert data.ncon == 0


def test_a_fixed_prop_has_no_joint_and_stands_where_it_was_put():
    basket = Prop("basket", (0.05, 0.05, 0.01), (Shape("box", (0.05, 0.05, 0.01), (1, 1, 0)),),
                  fixed=True)  # fmt: skip
    sim = WidowXSim(ARM, Scene((basket,)))
    for x in (0.25, 0.4):
        sim.reset({"basket": basket.resting(x, 0.1, floor=0.3)})
        sim.step(50)
        np.testing.assert_allclose(sim.pose("basket").position, [x, 0.1, 0.31])
    sim.close()


def test_the_camera_sees_what_bridges_sees(model):
    end_effector = ARM.forward(
        [-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.0015]
    )
    np.testing.assert_allclose(pixel(model, end_effector.position), [330, 138], atol=2)
    np.testing.assert_allclose(pixel(model, [0.307, 0.028, 0.0175]), [300, 241], atol=3)


def test_rendered_pixels_lie_where_the_pinhole_puts_them(sim, model):
    red, green, blue = np.moveaxis(sim.render(640, 480).astype(int), -1, 0)
    masks = {"red": (red > 90) & (green < 50), "blue": (blue > 90) & (red < 60)}
    for name, mask in masks.items():
        rows, columns = np.nonzero(mask)
        expected = pixel(model, sim.pose(name).position)
        np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=4)


def test_a_square_picture_is_the_squash_of_the_whole_view(sim):
    whole = Image.fromarray(sim.render(640, 480))
    squashed = np.asarray(whole.resize((256, 256), Image.Resampling.LANCZOS)).astype(float)
    assert np.abs(squashed - sim.render(256, 256)).mean() <= 1.0  # of 255
    cropped = np.asarray(whole.crop((80, 0, 560, 480)).resize((256, 256))).astype(float)
    assert np.abs(cropped - sim.render(256, 256)).mean() > 4.0


def test_shadows_and_multisampling_change_the_picture(sim):
    better = WidowXSim(ARM, Scene((RED, BLUE), shadows=True, multisamples=4))
    better.reset(PLACES)
    difference = np.abs(better.render(256, 256).astype(int) - sim.render(256, 256))
    better.close()
    assert difference.mean() > 1.0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cube("red", (2.0, 0.0, 0.0)), r"Shape.rgb: expected 3 numbers in \[0, 1\]"),
        (lambda: cube("red", (1.0, 0.0, 0.0), half=0.0), r"Shape.size: expected lengths in \(0, 5"),
        (lambda: Shape("box", (0.1,), (1.0, 0.0, 0.0)), "Shape: expected a kind and as many sizes"),
        (lambda: Shape("cone", (0.1, 0.1), (1.0, 0.0, 0.0)), "Shape: expected a kind and as many"),
        (
            lambda: Shape("box", (0.1,) * 3, (1.0, 0.0, 0.0), drawn=False, solid=False),
            "Shape: expected it to be drawn, solid or both",
        ),
        (
            lambda: Prop("a", (0.0, 0.1, 0.1), (BALL,)),
            r"prop 'a': expected three half sizes in \(0",
        ),
        (lambda: Prop("a", (0.1,) * 3, ()), "prop 'a': expected a solid shape, got none"),
        (lambda: Prop("a", (0.1,) * 3, (BALL,), density=0.0), "prop 'a': expected a density"),
        (lambda: Scene((RED, RED)), "Scene.props: expected different names"),
        (lambda: Scene((RED,), physics_hz=100), r"Scene.physics_hz: expected one of \(500, 250\)"),
        (lambda: Scene((RED,), tables=9), "Scene.tables: expected 1 to 4, got 9"),
        (lambda: Scene((RED,), multisamples=3), "Scene.multisamples: expected 0, 2, 4 or 8"),
    ],
)
def test_declarations_check_themselves(make, message):
    with pytest.raises(ValueError, match=message):
        make()
