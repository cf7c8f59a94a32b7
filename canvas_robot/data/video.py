"""Recorded clips as episodes: pictures from a video file, states from a table beside it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from canvas_robot.data.episode import STATE_SIZE, Episode

STATE_COLUMNS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
STATE_FORMATS = (".npy", ".csv", ".json")
# Slack when counting frames, so that 5.0 fps stored as 4.9999 still gives every frame.
_FRAME_SLACK = 1e-3


class RecordingError(ValueError):
    """A video or state file cannot be used."""


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """All frames (T, H, W, 3) uint8 RGB of a video file, and its frame rate in frames per second.

    Raises FileNotFoundError when the file is missing, RecordingError when it cannot be decoded,
    holds no frame or states no frame rate.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"video {path}: expected a video file, got nothing at this path")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise RecordingError(
                f"video {path}: expected a video that OpenCV can open, got {path.stat().st_size} "
                f"bytes it cannot; try: ffmpeg -i {path.name} -c:v libx264 converted.mp4"
            )
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        frames = []
        while True:
            decoded, frame = capture.read()
            if not decoded:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    if not frames:
        raise RecordingError(
            f"video {path}: expected at least one frame, got none; the file may be cut off"
        )
    if not (np.isfinite(fps) and fps > 0):
        raise RecordingError(f"video {path}: expected a positive frame rate, got {fps}")
    return np.stack(frames), fps


def read_states(path: str | Path) -> np.ndarray:
    """Bridge V2 states (T, 7) float32 from a .npy, .csv or .json file.

    A row is x, y, z (m), roll, pitch, yaw (rad), gripper (0 closed, 1 open). A CSV file may start
    with the line `x,y,z,roll,pitch,yaw,gripper`; a JSON file is a list of rows.

    Raises FileNotFoundError when the file is missing, RecordingError when it is not such a table.
    """
    path = Path(path)
    if path.suffix not in STATE_FORMATS:
        raise RecordingError(f"states {path}: expected one of {STATE_FORMATS}, got {path.suffix!r}")
    if not path.is_file():
        raise FileNotFoundError(f"states {path}: expected a table of states, got nothing here")
    try:
        rows = np.asarray(_READERS[path.suffix](path), dtype=np.float32)
    except ValueError as error:
        raise RecordingError(f"states {path}: expected numbers in rows of 7: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != STATE_SIZE or len(rows) == 0:
        raise RecordingError(
            f"states {path}: expected (T, 7) with columns {', '.join(STATE_COLUMNS)}, "
            f"got {rows.shape}"
        )
    if not np.isfinite(rows).all():
        row = int(np.argwhere(~np.isfinite(rows))[0][0])
        raise RecordingError(
            f"states {path}: expected finite numbers, got {rows[row].tolist()} in row {row}"
        )
    return rows


def episode_from_video(
    path: str | Path, instruction: str, states: np.ndarray, rate_hz: float = 5.0
) -> Episode:
    """A clip as an episode of `rate_hz` steps per second, without actions.

    Step k is at k / rate_hz and shows the newest frame at or before it.
    states: (N, 7) Bridge V2 states, one row per video frame or one per step.

    Raises RecordingError when the video is slower than `rate_hz` or the states match neither count.
    """
    frames, fps = read_video(path)
    if not 0 < rate_hz <= fps * (1 + _FRAME_SLACK):
        raise RecordingError(
            f"video {path}: expected a rate above 0 and at most its {fps:g} frames per second, "
            f"got rate_hz {rate_hz:g}"
        )
    count = int((len(frames) - 1) * rate_hz / fps + _FRAME_SLACK) + 1
    times_s = np.arange(count) / rate_hz
    shown = np.minimum((times_s * fps + _FRAME_SLACK).astype(int), len(frames) - 1)
    states = np.asarray(states, dtype=np.float32)
    if len(states) not in (len(frames), count):
        raise RecordingError(
            f"video {path}: states: expected one row per frame ({len(frames)}) or per step "
            f"({count} at {rate_hz:g} Hz), got {len(states)} rows"
        )
    return Episode(
        name=Path(path).name,
        instruction=instruction,
        images=frames[shown],
        states=states[shown] if len(states) == len(frames) else states,
        actions=None,
        stamps_ns=np.round(times_s * 1e9).astype(np.int64),
    )


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_csv(path: Path) -> np.ndarray:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    if lines and tuple(cell.strip() for cell in lines[0].split(",")) == STATE_COLUMNS:
        lines = lines[1:]
    return np.array([[float(cell) for cell in line.split(",")] for line in lines])


def _read_json(path: Path) -> np.ndarray:
    return np.array(json.loads(path.read_text()))


_READERS = {".npy": _read_npy, ".csv": _read_csv, ".json": _read_json}
