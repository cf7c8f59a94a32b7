"""Laws of the tasks: SimplerEnv's instructions, poses, boxes and masses; draws that leave room."""

import math

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.kinematics import Arm
from canvas_robot.sim.registration import ENV_IDS
from canvas_robot.sim.scene import Scene, build_model
from canvas_robot.sim.tasks import TASK_NAMES, task_named
from canvas_robot.sim.things import DISTRACTORS

# ManiSkill2_real2sim, put_on_in_scene.py: instruction, half box and density of the source, half box
# of the target. The target's density stands where it is free.
PUBLISHED = {
    "spoon_on_towel": (
        "put the spoon on the towel",
        (0.070, 0.0173, 0.0130),
        1200,
        (0.05, 0.05, 0.005),
        330,
    ),
    "carrot_on_plate": (
        "put carrot on plate",
        (0.0575, 0.016, 0.019),
        700,
        (0.055, 0.055, 0.003),
        1000,
    ),
    "stack_cube": (
        "stack the green block on the yellow block",
        (0.015, 0.015, 0.015),
        1000,
        (0.015, 0.015, 0.015),
        1000,
    ),
    "eggplant_in_basket": (
        "put eggplant into yellow basket",
        (0.03915, 0.0187, 0.0190),
        400,
        (0.065, 0.04, 0.001),
        None,
    ),
}
NEAR_X, FAR_X, RIGHT_Y, LEFT_Y = 0.232, 0.382, -0.047, 0.103  # corners in `base_link`


def places(name: str, episode_id: int) -> tuple[np.ndarray, np.ndarray, float]:
    """x, y of source and target, and the source's yaw."""
    task = task_named(name)
    poses = task.episode(episode_id).poses
    source, target = poses[task.source.name], poses[task.target.name]
    yaw = math.atan2(source.rotation[1, 0], source.rotation[0, 0])
    return source.position[:2], target.position[:2], yaw


def same_angle(first: float, second: float) -> bool:
    return abs(math.remainder(first - second, 2 * math.pi)) < 1e-9


@pytest.mark.parametrize("name", PUBLISHED)
def test_words_boxes_and_densities_are_the_published_ones(name):
    task = task_named(name)
    instruction, half, density, target_half, target_density = PUBLISHED[name]
    assert task.instruction == instruction == task.episode(0).instruction
    assert task.source.half == half and task.source.density == density
    assert task.target.half == target_half
    assert task.target.fixed == (target_density is None)
    if target_density is not None:
        assert task.target.density == target_density
    assert task.published == 24 == len({str(task.episode(k).poses) for k in range(24)})


@pytest.mark.parametrize("name", ["spoon_on_towel", "carrot_on_plate"])
def test_corners_come_in_ordered_pairs_each_at_two_yaws(name):
    corners = [(FAR_X, LEFT_Y), (FAR_X, RIGHT_Y), (NEAR_X, LEFT_Y), (NEAR_X, RIGHT_Y)]
    # The arm looks along the world's -x, so a yaw of the world is half a turn more.
    yaws = {"spoon_on_towel": (math.pi, -math.pi / 2), "carrot_on_plate": (0.0, math.pi / 2)}[name]
    pairs = [(a, b) for a in corners for b in corners if a != b]
    for episode_id in range(24):
        source, target, yaw = places(name, episode_id)
        expected_source, expected_target = pairs[episode_id // 2]
        np.testing.assert_allclose(source, expected_source, atol=1e-9)
        np.testing.assert_allclose(target, expected_target, atol=1e-9)
        assert same_angle(yaw, yaws[episode_id % 2])


def test_cubes_stack_from_two_squares_around_one_centre():
    for episode_id in range(24):
        source, target, yaw = places("stack_cube", episode_id)
        half_edge = 0.05 if episode_id < 12 else 0.10
        for place in (source, target):
            np.testing.assert_allclose(np.abs(place - (0.307, 0.028)), half_edge, atol=1e-9)
        assert np.linalg.norm(source - target) >= 2 * half_edge - 1e-9 and same_angle(yaw, math.pi)
    np.testing.assert_allclose(places("stack_cube", 0)[0], (0.357, 0.078), atol=1e-9)
    np.testing.assert_allclose(places("stack_cube", 23)[1], (0.207, 0.028 + 0.10), atol=1e-9)


def test_the_eggplant_lies_on_a_small_grid_before_a_basket_that_never_moves():
    seen = [places("eggplant_in_basket", k) for k in range(24)]
    for k, (source, target, yaw) in enumerate(seen):
        np.testing.assert_allclose(target, (0.252, 0.035), atol=1e-9)
        assert same_angle(yaw, (math.pi, -3 * math.pi / 4, 3 * math.pi / 4)[k % 3])
        aside = 0.005 if k // 3 in (1, 2, 5, 6) else 0.015
        np.testing.assert_allclose(np.abs(source - (0.232, -0.146)), (0.010, aside), atol=1e-9)
    np.testing.assert_allclose(seen[0][0], (0.242, -0.131), atol=1e-9)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_what_is_drawn_stays_within_the_box_and_weighs_what_its_solids_do(name):
    task = task_named(name)
    model = build_model(Arm.load(), Scene(task.props, task.workplace))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    for prop in task.props:
        body = model.body(prop.name)
        volumes = 0.0
        for geom in range(body.geomadr[0], body.geomadr[0] + body.geomnum[0]):
            # Of each shape, its own box turned into the prop's frame: centre and half sizes.
            rotation = data.geom_xmat[geom].reshape(3, 3)
            centre = (
                data.geom_xpos[geom] - data.xpos[body.id] + rotation @ model.geom_aabb[geom, :3]
            )
            half = np.abs(rotation) @ model.geom_aabb[geom, 3:]
            if not prop.walls:
                assert (np.abs(centre) + half <= np.array(prop.half) + 1e-3).all(), geom
            if model.geom_contype[geom]:
                size = model.geom_size[geom]
                volumes += {
                    mujoco.mjtGeom.mjGEOM_BOX: 8 * size.prod(),
                    mujoco.mjtGeom.mjGEOM_ELLIPSOID: 4 / 3 * np.pi * size.prod(),
                    mujoco.mjtGeom.mjGEOM_CYLINDER: 2 * np.pi * size[0] ** 2 * size[1],
                }[mujoco.mjtGeom(model.geom_type[geom])]
        assert body.mass[0] == pytest.approx(prop.density * volumes)


@pytest.mark.parametrize("name", TASK_NAMES)
@settings(deadline=None)
@given(episode_id=st.integers(24, 2**40))
def test_a_draw_depends_on_the_id_alone_and_stands_on_the_floor_within_the_box(name, episode_id):
    task = task_named(name)
    poses = task.episode(episode_id).poses
    again = task_named(name).episode(episode_id)
    assert again.target == task.episode(episode_id).target
    for prop in task.props:
        pose = poses[prop.name]
        assert np.array_equal(pose.position, again.poses[prop.name].position)
        assert np.array_equal(pose.rotation, again.poses[prop.name].rotation)
        assert pose.position[2] == pytest.approx(task.workplace.floor + prop.half[2])
        x, y = pose.position[:2]
        assert 0.2 < x < 0.41 and -0.162 <= y <= 0.131


@pytest.mark.parametrize("name", [name for name in TASK_NAMES if name != "reach"])
@settings(deadline=None)
@given(episode_id=st.integers(24, 2**31))
def test_what_is_drawn_never_overlaps_and_leaves_room_for_the_hand(name, episode_id):
    task = task_named(name)
    poses = task.episode(episode_id).poses
    source, target = poses[task.source.name], poses[task.target.name]
    half_x, half_y, _ = task.source.half
    xs, ys = np.meshgrid(np.linspace(-half_x, half_x, 9), np.linspace(-half_y, half_y, 5))
    corners = np.stack([xs.ravel(), ys.ravel(), 0 * xs.ravel()], axis=1) @ source.rotation.T
    local = np.abs((corners + source.position - target.position) @ target.rotation)[:, :2]
    assert not (local < task.target.half[:2]).all(axis=1).any()
    hand = np.abs((source.position - target.position) @ target.rotation)[:2]
    gap = np.linalg.norm(np.maximum(hand - task.target.half[:2], 0.0))
    assert gap >= 0.05  # the open gripper reaches 45 mm to each side


def test_every_task_has_an_environment():
    assert set(ENV_IDS) == set(TASK_NAMES)


def test_distractors_do_not_look_like_what_the_tasks_name():
    named = {prop.name for name in TASK_NAMES for prop in task_named(name).props}
    assert not named & {prop.name for prop in DISTRACTORS}
