"""The bindings of SimplerEnv and ManiSkill's Bridge tasks, in environments of the same spaces.

Neither can be installed beside this package, or without a GPU; what they show and take is written
out here from their sources (SimplerEnv's maniskill2_evaluator.py; mani_skill 3.0.1, base_env.py and
pd_ee_pose.py), and the numbers are worked out by hand.
"""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from scipy.spatial.transform import Rotation

from canvas_robot.sim.canvas_wrapper import CanvasWrapper

S = np.sqrt(0.5)
# Of the table tasks at reset: joints (rad) and fingers (m); where the base stands in the world.
QPOS = [-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, 0.037, 0.037]
BASE = [0.147, 0.028, 0.870, 0.0, 0.0, 0.0, 1.0]  # half way round: (w, x, y, z)
PICTURE = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def numbers(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


def array(values) -> np.ndarray:
    return np.array(values, dtype=np.float32)


class Bridge(gymnasium.Env):
    """An environment that shows what it was given and keeps the action that it took."""

    def __init__(self, shown: dict) -> None:
        self.shown, self.taken = shown, None
        self.observation_space = _space_of(shown)
        turn = np.pi / 2  # of the arm's controller, whose actions are not normalised
        high = array([1, 1, 1, turn, turn, turn, 1])
        self.action_space = spaces.Box(-high, high)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.shown, {}

    def step(self, action):
        self.taken = action
        return self.shown, 0.0, False, False, {"success": np.bool_(True)}

    def get_language_instruction(self):
        return ["put carrot on plate"]


def _space_of(shown) -> spaces.Space:
    if isinstance(shown, dict):
        return spaces.Dict({key: _space_of(value) for key, value in shown.items()})
    if shown.dtype == np.uint8:
        return spaces.Box(0, 255, shown.shape, np.uint8)
    return numbers(len(shown))


def simpler(tcp_pose, qpos=QPOS) -> Bridge:
    return Bridge(
        {
            "agent": {"qpos": array(qpos), "qvel": array([0] * 8), "base_pose": array(BASE)},
            "extra": {"tcp_pose": array(tcp_pose)},
            "image": {"3rd_view_camera": {"rgb": PICTURE}},
        }
    )


def maniskill(qpos=QPOS) -> Bridge:
    target = array([0.2921, -0.0061, 0.1353, S, 0, S, 0])
    return Bridge(
        {
            "agent": {
                "qpos": array(qpos),
                "qvel": array([0] * 8),
                "controller": {"arm": {"target_pose": target}},
            },
            "extra": {},
            "sensor_data": {"3rd_view_camera": {"rgb": PICTURE}},
        }
    )


def state_of(env: Bridge, binding: str) -> np.ndarray:
    seen, _ = CanvasWrapper(env, binding, "widowx_tiny").reset()
    assert np.array_equal(seen["visual"][-1], PICTURE)
    return seen["proprio"][-1]


def test_a_hand_that_points_down_before_the_base_is_seen_from_the_base():
    """0.3 before and 0.1 left of a base that looks along the world's -x, 0.2 above it.

    Its rotation is a half turn about z after a quarter about y: (0; -S, 0, S) as (w; x, y, z).
    """
    tcp = [0.147 - 0.3, 0.028 - 0.1, 0.870 + 0.2, 0.0, -S, 0.0, S]
    state = state_of(simpler(tcp), "simpler_widowx.yaml")
    np.testing.assert_allclose(state, [0.3, 0.1, 0.2, 0, 0, 0, 1.08], atol=1e-5)


def test_a_hand_that_is_turned_has_bridges_roll_pitch_and_yaw():
    """Turned about the base's axes: first roll 0.1, then pitch 0.2, then yaw 0.3."""
    down = Rotation.from_euler("y", 90, degrees=True)
    turned = Rotation.from_euler("xyz", [0.1, 0.2, 0.3]) * down
    in_world = Rotation.from_euler("z", 180, degrees=True) * turned
    quaternion = np.roll(in_world.as_quat(), 1)
    state = state_of(simpler([0.0, 0.0, 1.0, *quaternion]), "simpler_widowx.yaml")
    np.testing.assert_allclose(state[:6], [0.147, 0.028, 0.13, 0.1, 0.2, 0.3], atol=1e-5)


@pytest.mark.parametrize(
    "finger, gripper", [(0.010, 0.0), (0.015, 0.2), (0.035, 1.0), (0.037, 1.08)]
)
def test_the_gripper_is_on_bridges_scale(finger, gripper):
    qpos = [*QPOS[:6], finger, finger]
    for env, binding in (
        (simpler([0, 0, 1, 1, 0, 0, 0], qpos), "simpler_widowx.yaml"),
        (maniskill(qpos), "maniskill_bridge.yaml"),
    ):
        assert state_of(env, binding)[6] == pytest.approx(gripper, abs=1e-5)


def test_joints_at_the_reset_give_the_published_pose_and_agree_with_the_hands():
    """The reset's pose is known to 1e-4 m and rad; both simulators then show the same state."""
    expected = [0.2921, -0.0061, 0.1353, -0.0045, 0.0568, -0.0190, 1.08]
    by_joints = state_of(maniskill(), "maniskill_bridge.yaml")
    np.testing.assert_allclose(by_joints, expected, atol=1e-4)
    down = Rotation.from_euler("y", 90, degrees=True)
    turned = Rotation.from_euler("xyz", by_joints[3:6]) * down
    in_world = Rotation.from_euler("z", 180, degrees=True)
    at = array(BASE[:3]) + in_world.apply(by_joints[:3])
    tcp = [*at, *np.roll((in_world * turned).as_quat(), 1)]
    by_pose = state_of(simpler(tcp), "simpler_widowx.yaml")
    np.testing.assert_allclose(by_pose, by_joints, atol=1e-5)


ACTION = array([0.01, -0.02, 0.03, 0.1, 0.2, -0.1, 0.7])


@pytest.mark.parametrize(
    "env, binding, read",
    [
        (simpler([0, 0, 1, 1, 0, 0, 0]), "simpler_widowx.yaml", Rotation.from_rotvec),
        # R = Rx Ry Rz: euler_angles_to_matrix(..., "XYZ") in pd_ee_pose.py.
        (
            maniskill(),
            "maniskill_bridge.yaml",
            lambda angles: (
                Rotation.from_euler("x", angles[0])
                * Rotation.from_euler("y", angles[1])
                * Rotation.from_euler("z", angles[2])
            ),
        ),
    ],
    ids=["axis and angle", "moving axes"],
)
def test_an_action_turns_the_hand_as_bridges_rule_would(env, binding, read):
    """R(rpy) = Rz(yaw) Ry(pitch) Rx(roll) about the base's axes; 0.7 is open."""
    wrapped = CanvasWrapper(env, binding, "widowx_tiny")
    wrapped.reset()
    *_, info = wrapped.step(ACTION)
    assert info["success"] is True and info["instruction"] == "put carrot on plate"
    assert env.taken.dtype == np.float32 and env.taken in env.action_space
    np.testing.assert_allclose(env.taken[:3], ACTION[:3], atol=1e-7)
    roll, pitch, yaw = map(Rotation.from_euler, "xyz", ACTION[3:6])
    meant = yaw * pitch * roll
    assert (read(env.taken[3:6].astype(float)) * meant.inv()).magnitude() < 1e-6
    assert env.taken[6] == 1.0
    wrapped.step(ACTION * array([1, 1, 1, 1, 1, 1, 0.5]))
    assert env.taken[6] == -1.0


def test_a_turn_about_one_axis_is_known_by_hand():
    """About one axis all conventions agree: 0.2 rad of yaw is 0.2 about z."""
    for env, binding in (
        (simpler([0, 0, 1, 1, 0, 0, 0]), "simpler_widowx.yaml"),
        (maniskill(), "maniskill_bridge.yaml"),
    ):
        wrapped = CanvasWrapper(env, binding, "widowx_tiny")
        wrapped.reset()
        wrapped.step(array([0, 0, 0, 0, 0, 0.2, 0]))
        np.testing.assert_allclose(env.taken, [0, 0, 0, 0, 0, 0.2, -1], atol=1e-6)
