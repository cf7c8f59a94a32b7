"""StoredEpisode: one record of a data set, parsed; its pictures stay JPEG until asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from canvas_robot.data.episode import Episode, EpisodeError
from canvas_robot.data.example import Example, ExampleError
from canvas_robot.data.layout import Column, DatasetLayout
from canvas_robot.data.rlds import STEP_NS


class StoredEpisode:
    """T steps of one robot episode as stored, oldest first.

    name: where it came from, for messages and titles.
    instruction: the goal text of the first step; empty when the recording has none.
    states: (T, 7) float32: x, y, z (m), roll, pitch, yaw (rad), gripper (0 closed, 1 open).
    actions: (T, 7) float32, as recorded: dx, dy, dz (m), droll, dpitch, dyaw (rad), gripper target
        (absolute, 0 closed, 1 open).

    Raises EpisodeError when the record is no episode of this layout, has no step, or holds numbers
    that are not finite.
    """

    def __init__(self, name: str, record: bytes | memoryview, layout: DatasetLayout) -> None:
        self.name, self.layout = name, layout
        try:
            self._example = Example(record)
            self.states = self._rows([layout.state])
            self.actions = self._rows(layout.action)
            text = next(self._example.blobs(layout.instruction), b"")
        except ExampleError as error:
            raise EpisodeError(f"episode {name!r}: {error}") from error
        self.instruction = str(text, "utf-8", "replace")
        if len(self.states) == 0 or len(self.actions) != len(self.states):
            raise EpisodeError(
                f"episode {name!r}: expected as many states as actions, and one at least, "
                f"got {len(self.states)} states and {len(self.actions)} actions"
            )
        self._record, self._places = memoryview(record), {}

    def __len__(self) -> int:
        return len(self.states)

    def __repr__(self) -> str:
        return f"StoredEpisode({self.name!r}, {len(self)} steps)"

    def encoded(self, camera: str, step: int) -> memoryview:
        """The picture as stored, JPEG. Raises as `image` does."""
        places = self.places(camera)
        if not -len(self) <= step < len(self):
            raise IndexError(f"{self!r}: expected a step below {len(self)}, got {step}")
        start, stop = places[step].tolist()
        return self._record[start:stop]

    def places(self, camera: str) -> np.ndarray:
        """(T, 2) int64, where in the record the picture of each step starts and stops."""
        if camera not in self._places:
            places = list(self._picture_places(camera))
            if len(places) != len(self):
                raise EpisodeError(
                    f"episode {self.name!r}: {camera}: expected a picture for each of {len(self)} "
                    f"steps, got {len(places)}"
                )
            self._places[camera] = np.array(places, dtype=np.int64)
        return self._places[camera]

    def image(self, camera: str, step: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one step; black where the episode lacks the camera.

        Raises BridgeDataError for an unknown camera, IndexError for a step outside the episode,
        EpisodeError when the stored bytes are no picture.
        """
        return self.images(camera, [step])[0]

    def images(self, camera: str, steps: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB of these steps, in the order asked; n is at least 1."""
        encoded = [self.encoded(camera, int(step)) for step in steps]
        return decode_images(encoded, self.name, camera, steps)

    def has_picture(self, camera: str) -> bool:
        """Whether the first picture is not black. Raises EpisodeError when it is no picture.

        The published `has_image_*` flags do not say it: they are false in episodes that have
        pictures (rail-berkeley/bridge_data_v2#40).
        """
        start, stop = next(self._picture_places(camera), (0, 0))
        first = self._record[start:stop]
        small = decode_bgr(first, cv2.IMREAD_REDUCED_COLOR_8)  # means of 8x8 pixels
        if small is None:
            raise _no_picture(self.name, camera, 0, first)
        return bool(small.any())

    def episode(self, camera: str) -> Episode:
        """All steps, seen by one camera; step k is stamped k x 200 ms."""
        return Episode(
            name=self.name,
            instruction=self.instruction,
            images=self.images(camera, range(len(self))),
            states=self.states,
            actions=self.actions,
            stamps_ns=np.arange(len(self), dtype=np.int64) * STEP_NS,
            camera=camera,
        )

    def _picture_places(self, camera: str) -> Iterator[tuple[int, int]]:
        try:
            yield from self._example.places(self.layout.picture_key(camera))
        except ExampleError as error:
            raise EpisodeError(f"episode {self.name!r}: {error}") from error

    def _rows(self, columns: Sequence[Column]) -> np.ndarray:
        parts = [self._column(column) for column in columns]
        if len({len(part) for part in parts}) > 1:
            lengths = {column.key: len(part) for column, part in zip(columns, parts, strict=True)}
            raise ExampleError(f"expected one row a step in each feature, got {lengths}")
        rows = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        if not np.isfinite(rows).all():
            step = int(np.argwhere(~np.isfinite(rows))[0][0])
            raise ExampleError(f"{columns[0].key}: expected finite numbers, got others at {step}")
        return rows

    def _column(self, column: Column) -> np.ndarray:
        read = self._example.integers if column.flag else self._example.floats
        values = read(column.key).astype(np.float32, copy=False)
        if len(values) % column.size:
            raise ExampleError(
                f"{column.key}: expected {column.size} numbers a step, got {len(values)} numbers"
            )
        return values.reshape(-1, column.size)


def decode_images(
    encoded: Sequence[memoryview], name: str, camera: str, steps: Sequence[int] | np.ndarray
) -> np.ndarray:
    """(n, H, W, 3) uint8 RGB of stored pictures; the rest says whose they are.

    Raises EpisodeError where one is no picture or of another size than the first.
    """
    images = np.empty(0)
    for n, (step, picture) in enumerate(zip(steps, encoded, strict=True)):
        decoded = decode_bgr(picture)
        if decoded is None:
            raise _no_picture(name, camera, step, picture)
        if n == 0:
            images = np.empty((len(encoded), *decoded.shape), np.uint8)
        elif decoded.shape != images.shape[1:]:
            raise EpisodeError(
                f"episode {name!r}: {camera}: expected pictures of one size, "
                f"got {images.shape[1:]} and {decoded.shape} at step {step}"
            )
        cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=images[n])
    return images


def decode_bgr(encoded: memoryview, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """(H, W, 3) uint8 BGR of a stored picture, None when the bytes are none.

    OpenCV's decoder, as in TFDS's own NumPy path: bit for bit what TensorFlow's decode_jpeg gives
    with dct_method="INTEGER_ACCURATE", in two thirds of Pillow's time. TensorFlow's default is a
    faster transform that is off by up to 17 of 255.
    """
    if len(encoded) == 0:
        return None
    data = np.frombuffer(encoded, np.uint8)
    return cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)


def _no_picture(name: str, camera: str, step: int, encoded: memoryview) -> EpisodeError:
    return EpisodeError(
        f"episode {name!r}: {camera}: expected a JPEG or PNG picture at step {step}, "
        f"got {len(encoded)} bytes that are none"
    )
