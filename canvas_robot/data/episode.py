"""One recorded episode as numpy arrays, whatever it was read from. No file is opened here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

STATE_SIZE = 7
ACTION_SIZE = 7


class EpisodeError(ValueError):
    """An episode's arrays do not fit together."""


@dataclass(frozen=True, eq=False)
class Episode:
    """T steps of one robot episode, oldest first.

    name: where it came from, for messages and titles.
    instruction: the goal text; empty when the recording has none.
    images: (T, H, W, 3) uint8 RGB, of one camera.
    states: (T, 7) float32, Bridge V2 state: x, y, z (m), roll, pitch, yaw (rad), gripper (0 closed,
        1 open).
    actions: (T, 7) float32, Bridge V2 action, as recorded: dx, dy, dz (m), droll, dpitch, dyaw
        (rad), gripper target (absolute, 0 closed, 1 open); None when the recording has no actions.
    stamps_ns: (T,) int64, time of each step in nanoseconds, strictly increasing.
    camera: whose images they are, by the name that Bridge V2 stores it under.
    further: images of other cameras at the same steps, by theirs.

    Raises EpisodeError when an array has another shape or dtype, is not finite, or T is 0.
    """

    name: str
    instruction: str
    images: np.ndarray
    states: np.ndarray
    actions: np.ndarray | None
    stamps_ns: np.ndarray
    camera: str = "image_0"
    further: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = len(self.images)
        if steps == 0:
            raise EpisodeError(f"episode {self.name!r}: expected at least one step, got none")
        if self.camera in self.further:
            raise EpisodeError(
                f"episode {self.name!r}: expected each camera once, got {self.camera} twice"
            )
        for camera, images in self.pictures.items():
            if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
                raise EpisodeError(
                    f"episode {self.name!r}: {camera} images: expected (T, H, W, 3) uint8 RGB, "
                    f"got {images.shape} {images.dtype}"
                )
            if len(images) != steps:
                raise EpisodeError(
                    f"episode {self.name!r}: {camera} images: expected {steps}, as of "
                    f"{self.camera}, got {len(images)}"
                )
        self._check_rows("states", self.states, (steps, STATE_SIZE), np.float32)
        if self.actions is not None:
            self._check_rows("actions", self.actions, (steps, ACTION_SIZE), np.float32)
        self._check_rows("stamps_ns", self.stamps_ns, (steps,), np.int64)
        backward = np.flatnonzero(np.diff(self.stamps_ns) <= 0)
        if backward.size:
            step = int(backward[0]) + 1
            raise EpisodeError(
                f"episode {self.name!r}: stamps_ns: expected strictly increasing stamps, got "
                f"{self.stamps_ns[step - 1]} then {self.stamps_ns[step]} at step {step}; "
                "sort the steps and drop repeated ones"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """The images of every camera, by its name."""
        return {self.camera: self.images, **self.further}

    def _check_rows(self, name: str, rows: np.ndarray, shape: tuple, dtype: type) -> None:
        if rows.shape != shape or rows.dtype != dtype:
            raise EpisodeError(
                f"episode {self.name!r}: {name}: expected {shape} {np.dtype(dtype)} to match "
                f"{shape[0]} images, got {rows.shape} {rows.dtype}"
            )
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            raise EpisodeError(
                f"episode {self.name!r}: {name}: expected finite numbers, "
                f"got {rows[tuple(bad[0])]} at step {bad[0][0]}; cut the episode there"
            )
