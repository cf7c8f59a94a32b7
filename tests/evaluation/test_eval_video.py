"""Laws of videos: which episodes are shown, and a file that browsers play."""

import subprocess

import cv2
import imageio_ffmpeg
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.evaluation.eval_film import Camera
from canvas_robot.evaluation.eval_session import EpisodeRow
from canvas_robot.evaluation.eval_video import (
    BAD,
    FRAME,
    GAP,
    GOOD,
    HEAD,
    chosen,
    file_name,
    label,
    write_grid,
)

ROW = EpisodeRow(
    env="A-v0", number=0, variant=0, episode_id=0, seed=0, instruction="go", told="go",
    success_last=True, success_any=True, success_held=None, steps=4, steps_to_success=3,
    terminated=True, failure="", stages={}, reward=1.0, action_change=None, decision_ms=[1.0],
    seconds=0.1,
)  # fmt: skip


def rows_of(failures) -> list[EpisodeRow]:
    return [
        msgspec.structs.replace(ROW, number=number, failure="out of steps" if failed else "")
        for number, failed in enumerate(failures)
    ]


def film_of(steps, level=120, fps=5.0):
    camera = Camera(fps, width=64)
    for _ in range(steps + 1):
        camera.take(np.full((48, 64, 3), level, np.uint8))
    return camera.film()


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 16))
def test_as_many_failures_as_successes_are_shown_while_there_are(failures, most):
    rows = rows_of(failures)
    shown = chosen(rows, most)
    bad = sum(bool(row.failure) for row in shown)
    good = len(shown) - bad
    assert len(shown) == min(most, len(rows))
    assert shown == sorted(shown, key=lambda row: row.number)
    if bad < sum(failures) and good < len(failures) - sum(failures):
        assert good == most // 2


def test_the_first_episodes_of_each_kind_are_shown():
    shown = chosen(rows_of([False] * 20 + [True] * 2), most=6)
    assert [row.number for row in shown] == [0, 1, 2, 3, 20, 21]


def test_labels_say_in_words_what_colour_says():
    assert label(ROW) == "✓ success at step 3"
    assert label(rows_of([True])[0]) == "✗ out of steps"


def test_an_id_becomes_part_of_a_file_name():
    assert file_name("package:canvas_robot/Reach-v0") == "package_canvas_robot_Reach-v0"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Five cells: the second failed, the last is short."""
    rows = rows_of([False, True, False, False, False])
    rows[-1] = msgspec.structs.replace(rows[-1], steps=2)
    episodes = [(row, film_of(row.steps)) for row in rows]
    path = tmp_path_factory.mktemp("video") / "videos.mp4"
    write_grid(path, episodes, "A-v0 · expert")
    return path


def test_a_browser_can_play_it(video):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(video)]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert "h264" in said and "yuv420p" in said
    head = video.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # it plays before all of it is there


def test_each_step_is_a_picture_and_the_end_stands(video):
    clip = cv2.VideoCapture(str(video))
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == 5 + 20
    assert clip.get(cv2.CAP_PROP_FPS) == 10
    assert clip.get(cv2.CAP_PROP_FRAME_WIDTH) % 2 == clip.get(cv2.CAP_PROP_FRAME_HEIGHT) % 2 == 0


def test_frames_have_the_colour_of_what_the_episode_came_to(video):
    clip = cv2.VideoCapture(str(video))
    picture = cv2.cvtColor(clip.read()[1], cv2.COLOR_BGR2RGB)
    cell = 288 + 2 * FRAME + GAP
    for place, colour in enumerate((GOOD, BAD, GOOD)):
        corner = picture[HEAD + 40, GAP + place * cell + FRAME // 2]
        np.testing.assert_allclose(corner, colour, atol=25)
