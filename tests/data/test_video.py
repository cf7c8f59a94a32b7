"""A clip and its states become an episode, or the file at fault is named."""

import json

import cv2
import numpy as np
import pytest

from canvas_robot.data.video import RecordingError, episode_from_video, read_states, read_video


@pytest.fixture
def clip(tmp_path):
    """12 frames at 10 a second; frame k is red with strength 20 k."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for k in range(12):
        writer.write(np.full((48, 64, 3), (0, 0, 20 * k), np.uint8))
    writer.release()
    return path


def states(rows):
    return np.arange(rows * 7, dtype=np.float32).reshape(rows, 7)


def test_frames_are_rgb_in_order(clip):
    frames, fps = read_video(clip)
    assert frames.shape == (12, 48, 64, 3) and frames.dtype == np.uint8 and fps == 10
    np.testing.assert_allclose(frames[:, 0, 0, 0], 20 * np.arange(12), atol=4)
    assert frames[..., 2].max() < 5


def test_a_real_clip_is_read(bridge_clip):
    frames, fps = read_video(bridge_clip)
    assert frames.shape == (37, 480, 640, 3) and fps == pytest.approx(5.0)


def test_at_its_own_rate_a_clip_keeps_every_frame(bridge_clip):
    episode = episode_from_video(bridge_clip, "put the can in the pot", states(37))
    assert len(episode) == 37
    np.testing.assert_array_equal(episode.images, read_video(bridge_clip)[0])
    np.testing.assert_array_equal(np.diff(episode.stamps_ns), 200_000_000)


def test_a_recording_has_no_actions(clip):
    assert episode_from_video(clip, "go", states(12), rate_hz=10).actions is None


def test_a_step_shows_the_newest_frame_at_or_before_it(clip):
    episode = episode_from_video(clip, "go", states(12), rate_hz=4)
    # Steps at 0, 250, 500, 750, 1000 ms; frames every 100 ms.
    shown = [0, 2, 5, 7, 10]
    np.testing.assert_allclose(episode.images[:, 0, 0, 0], 20 * np.array(shown), atol=4)
    np.testing.assert_array_equal(episode.states, states(12)[shown])


def test_states_may_come_one_per_step(clip):
    episode = episode_from_video(clip, "go", states(6), rate_hz=5)
    np.testing.assert_array_equal(episode.states, states(6))


def test_states_that_match_neither_count_are_refused(clip):
    with pytest.raises(RecordingError, match=r"per frame \(12\) or per step \(6 at 5 Hz\), got 7"):
        episode_from_video(clip, "go", states(7))


def test_a_rate_above_the_videos_is_refused(clip):
    with pytest.raises(RecordingError, match="at most its 10 frames per second, got rate_hz 20"):
        episode_from_video(clip, "go", states(12), rate_hz=20)


def test_a_missing_video_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.mp4: expected a video file"):
        read_video(tmp_path / "no.mp4")


def test_a_file_that_is_no_video_is_refused(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(RecordingError, match=r"text\.mp4: expected a video that OpenCV can open"):
        read_video(path)


def test_a_video_without_frames_is_refused(tmp_path):
    path = tmp_path / "empty.avi"
    cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48)).release()
    with pytest.raises(RecordingError, match=r"empty\.avi: expected"):
        read_video(path)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".json"])
def test_states_read_alike_from_every_format(tmp_path, suffix):
    path, rows = tmp_path / f"states{suffix}", states(3)
    if suffix == ".npy":
        np.save(path, rows)
    elif suffix == ".csv":
        header = "x,y,z,roll,pitch,yaw,gripper"
        path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    else:
        path.write_text(json.dumps(rows.tolist()))
    np.testing.assert_array_equal(read_states(path), rows)
    assert read_states(path).dtype == np.float32


def test_a_csv_needs_no_header(tmp_path):
    path = tmp_path / "states.csv"
    path.write_text("1,2,3,4,5,6,7\n")
    np.testing.assert_array_equal(read_states(path), [[1, 2, 3, 4, 5, 6, 7]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("states.txt", "", r"expected one of \('.npy', '.csv', '.json'\), got '.txt'"),
        ("states.csv", "1,2,3\n", r"expected \(T, 7\) with columns x, y, .* got \(1, 3\)"),
        ("states.csv", "1,2,3,4,5,6,seven\n", "expected numbers in rows of 7: could not convert"),
        ("states.csv", "", r"expected \(T, 7\)"),
        ("states.json", "[[1, 2, 3, 4, 5, 6, NaN]]", "expected finite numbers, got .* in row 0"),
        ("states.json", "[[1, 2], [3]]", "expected numbers in rows of 7"),
        ("states.json", "{", "expected numbers in rows of 7"),
    ],
)
def test_states_that_are_no_table_are_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(RecordingError, match=message):
        read_states(path)


def test_missing_states_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.csv: expected a table of states"):
        read_states(tmp_path / "no.csv")
