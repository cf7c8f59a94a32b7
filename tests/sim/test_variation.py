"""Laws of variation: drawn by id, within its bounds, painted and undone, and none by default."""

import gymnasium
import numpy as np
import pytest

from canvas_robot.sim.registration import ENV_IDS, register
from canvas_robot.sim.tasks import task_named
from canvas_robot.sim.variation import Variation

register()
STACK = task_named("stack_cube")
MOVE = np.array([0.03, 0, 0, 0, 0, 0, 1], np.float32)


def make(task: str = "stack_cube", **options) -> gymnasium.Env:
    return gymnasium.make(ENV_IDS[task], **{"image_size": (96, 96), **options})


def draw(variation: Variation, episode_id: int):
    poses = STACK.episode(episode_id).poses
    return variation.draw(episode_id, poses, STACK.props, STACK.workplace)


def picture(env: gymnasium.Env, episode_id: int) -> np.ndarray:
    return env.reset(options={"episode_id": episode_id})[0]["image"].astype(int)


def test_by_default_nothing_varies():
    look = draw(Variation(), 50)
    assert look.action_delay_s == 0.0 and not look.distractors and look.table == 0
    for still in (look.camera_shift, look.aim_shift, look.turn):
        assert not still.any()
    for factor in (look.brightness, look.hue, look.tint):
        assert (factor == 1.0).all()


def test_poses_do_not_depend_on_variation():
    plain, varied = make(obs="state"), make(obs="state", camera_jitter=0.05, distractors=4)
    for episode_id in (3, 90_000):
        plain.reset(options={"episode_id": episode_id})
        varied.reset(options={"episode_id": episode_id})
        for name, pose in plain.unwrapped.episode.poses.items():
            assert np.array_equal(pose.position, varied.unwrapped.episode.poses[name].position)
    plain.close()
    varied.close()


@pytest.mark.parametrize(
    "option", [{"camera_jitter": 0.03}, {"lighting": 0.6}, {"table_texture": True},
               {"distractors": 4}], ids=lambda option: next(iter(option)))  # fmt: skip
def test_each_option_changes_the_picture_by_id_and_leaves_nothing_behind(option):
    plain, varied = make(), make(**option)
    before = picture(varied, 101)
    changes = [np.abs(picture(varied, k) - picture(plain, k)).mean() for k in range(100, 104)]
    assert sum(change > 0.5 for change in changes) >= 3 and max(changes) < 90
    assert np.array_equal(picture(varied, 101), before)
    plain.close()
    varied.close()


def test_a_jittered_camera_still_looks_at_the_table():
    env = make(camera_jitter=0.03, image_size=(120, 160))
    shifts = []
    for episode_id in range(100, 120):
        image = picture(env, episode_id)
        red, green, blue = np.moveaxis(image, -1, 0)
        assert ((red > 150) & (green > 100) & (blue < 60)).sum() > 20  # the yellow cube
        shifts.append(env.unwrapped.look.camera_shift)
    assert np.abs(shifts).max() <= 0.03 and np.std(shifts) > 0.01
    env.close()


@pytest.mark.parametrize(
    "delay_s, low_m, high_m", [(0.0, 0.024, 0.031), (0.1, 0.006, 0.020), (0.2, -1e-3, 1e-3)]
)
def test_a_motion_starts_after_the_delay_and_arrives_all_the_same(delay_s, low_m, high_m):
    env = make(obs="state", action_delay=delay_s)
    observation, _ = env.reset(options={"episode_id": 90_000})
    start = observation["state"][0]
    first = env.step(MOVE)[0]["state"][0] - start
    assert env.unwrapped.look.action_delay_s == delay_s
    assert low_m < first < high_m
    for _ in range(2):
        state = env.step(np.array([0, 0, 0, 0, 0, 0, 1], np.float32))[0]["state"]
    assert state[0] - start == pytest.approx(0.03, abs=0.003)
    env.close()


def test_delays_are_drawn_within_their_range():
    delays = [draw(Variation(action_delay=(0.05, 0.15)), k).action_delay_s for k in range(200)]
    assert 0.05 <= min(delays) < 0.06 and 0.14 < max(delays) <= 0.15


@pytest.mark.parametrize("task", list(ENV_IDS))
def test_distractors_stand_clear_of_the_task_and_lie_still(task):
    env = make(task, obs="state", distractors=4)
    shown = []
    for episode_id in range(100, 112):
        env.reset(options={"episode_id": episode_id})
        unwrapped, sim = env.unwrapped, env.unwrapped.sim
        visible = {n: p for n, p in unwrapped.look.distractors.items() if p.position[0] > 0}
        shown.append(len(visible))
        sim.step(150)
        for name, pose in visible.items():
            assert np.linalg.norm(sim.pose(name).position - pose.position) < 1e-3
            for prop in unwrapped.task.props:
                way = pose.position[:2] - unwrapped.episode.poses[prop.name].position[:2]
                assert np.linalg.norm(way) > prop.radius + 0.05
    assert len(set(shown)) > 1 and max(shown) >= 2
    env.close()
