"""Declarations of where a Gymnasium environment shows each signal, and in which unit and frame.

Nothing is read here: `canvas_robot.sim.env_sources` reads what these say.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
import numpy as np

from canvas_robot.signals.rotation_conventions import CONVENTIONS, RotationConvention
from canvas_robot.signals.signal import ImageSignal, Signal, SignalError, TextSignal, VectorSignal

Size = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Flip = Literal["vertical", "horizontal"]

_SLICE = re.compile(r"(-?\d{1,6})?:(-?\d{1,6})?")
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class _Declared(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    pass


class Pick(_Declared):
    """Numbers of one observation.

    key: of the observation; dots lead into nested ones; "." is the whole observation.
    take: indices, or a slice such as "3:7"; left out: all. Arrays count row by row.
    """

    key: str
    take: tuple[int, ...] | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.take, str) and not _SLICE.fullmatch(self.take):
            raise SignalError(
                f'key {self.key!r}: take: expected a list of indices or a slice like "3:7", '
                f"got {self.take!r}"
            )

    def indices(self, size: int) -> np.ndarray:
        """Which of `size` numbers are taken; raises SignalError where there are none there."""
        if self.take is None:
            return np.arange(size)
        if isinstance(self.take, str):
            start, stop = (int(end) if end else None for end in self.take.split(":"))
            taken = np.arange(size)[start:stop]
            ends = [end or 0 for end in (start, stop)]
            inside = len(taken) > 0 and max(ends) <= size and min(ends) >= -size
        else:
            taken = np.array(self.take, dtype=int)
            inside = len(taken) > 0 and bool(((taken >= -size) & (taken < size)).all())
            taken = taken % size if inside else taken
        if not inside:
            raise SignalError(
                f"key {self.key!r}: take: expected some of its {size} numbers, "
                f"0 to {size - 1}, got {self.take!r}"
            )
        return taken


class Rotated(Pick, kw_only=True):
    """A rotation among an observation's numbers, written as `convention` says."""

    convention: RotationConvention


class FixedRotation(_Declared):
    """A rotation that never changes, written as `convention` says."""

    rotation: tuple[float, ...]
    convention: RotationConvention

    def __post_init__(self) -> None:
        expected = CONVENTIONS[self.convention].size
        if len(self.rotation) != expected or not np.isfinite(self.rotation).all():
            raise SignalError(
                f"rotation: expected {expected} finite numbers for {self.convention!r}, "
                f"got {list(self.rotation)}"
            )
        try:
            self.matrix()
        except ValueError as error:
            raise SignalError(str(error)) from error

    def matrix(self) -> np.ndarray:
        """The rotation as a matrix (3, 3)."""
        return CONVENTIONS[self.convention].to_matrix(np.array(self.rotation))


class FixedPose(FixedRotation, tag_field="type", tag="fixed"):
    """A pose that never changes: position in metres, and its rotation."""

    position: tuple[float, float, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.isfinite(self.position).all():
            raise SignalError(f"position: expected finite metres, got {list(self.position)}")


class ObservedPose(_Declared, tag_field="type", tag="observed"):
    """A pose that the environment shows, in metres."""

    position: Pick
    rotation: Rotated


class Numbers(Pick, tag_field="type", tag="numbers"):
    """Numbers times `scale` plus `offset`, each one for all or one for each."""

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0


class PoseNumbers(_Declared, tag_field="type", tag="pose"):
    """x, y, z in metres and three angles in radians of the end effector in the arm's base frame.

    position, rotation: where the environment shows the end effector.
    base: pose of the arm's base in that same frame; left out: it is the base frame already.
    tool: pose of the wanted end-effector frame in the one that is shown; left out: they are one.
    angles: "bridge": roll, pitch, yaw in Bridge V2's convention, 0 where the gripper points down;
        "rpy": about the base's axes.
    """

    position: Pick
    rotation: Rotated
    base: FixedPose | ObservedPose | None = None
    tool: FixedPose | None = None
    angles: Literal["bridge", "rpy"] = "bridge"


class GripperNumber(Pick, tag_field="type", tag="gripper", kw_only=True):
    """One number: 0 where the fingers are at `closed`, 1 at `open`, their mean where it takes more.

    It is not clipped: Bridge V2's gripper (closed 0.010 m, open 0.035 m of one finger) reads more
    than 1 where the fingers stop at 0.037 m.
    """

    closed: float
    open: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.isfinite([self.closed, self.open]).all() or self.closed == self.open:
            raise SignalError(
                f"key {self.key!r}: gripper: expected finite, different closed and open, "
                f"got {self.closed} and {self.open}"
            )


class EnvVector(_Declared, tag_field="type", tag="vector"):
    """A vector put together from parts, in the order of the signal's components."""

    parts: tuple[Numbers | PoseNumbers | GripperNumber, ...]


class EnvJoints(_Declared, tag_field="type", tag="joints"):
    """Bridge V2's state by forward kinematics of the arm that `robot.arm` names.

    joints: the six arm joints in rad, base to wrist; finger: the left finger in metres.
    """

    joints: Pick
    finger: Pick


class EnvImage(_Declared, tag_field="type", tag="image"):
    """A picture in the observation, uint8 RGB; `channels` says where its colours lie."""

    key: str
    channels: Literal["last", "first"] = "last"
    flip: tuple[Flip, ...] = ()


class EnvPicture(_Declared, tag_field="type", tag="render"):
    """The picture that `env.render()` gives, of this (H, W)."""

    size: tuple[Size, Size]
    flip: tuple[Flip, ...] = ()


class EnvInfo(_Declared, tag_field="type", tag="info"):
    """Text under a key of `info`; dots lead into nested ones."""

    key: str


class EnvAttribute(_Declared, tag_field="type", tag="attribute"):
    """Text that an attribute of the environment holds, or gives when called without arguments."""

    name: str

    def __post_init__(self) -> None:
        if not _ATTRIBUTE.fullmatch(self.name):
            raise SignalError(
                f"attribute: expected the name of a public attribute, got {self.name[:80]!r}"
            )


class EnvText(_Declared, tag_field="type", tag="text"):
    """The same text in every episode."""

    text: str


ImageSource = EnvImage | EnvPicture
VectorSource = EnvVector | EnvJoints
TextSource = EnvInfo | EnvAttribute | EnvText
EnvSource = (  # a string is an observation key
    str | EnvImage | EnvPicture | EnvVector | EnvJoints | EnvInfo | EnvAttribute | EnvText
)

_FOR_SIGNAL = {ImageSignal: ImageSource, VectorSignal: VectorSource, TextSignal: TextSource}


def check_env_source(name: str, signal: Signal, source: EnvSource) -> None:
    """Raises SignalError unless a source gives what its signal is."""
    fitting = _FOR_SIGNAL[type(signal)]
    if not isinstance(source, str | fitting):
        types = [kind.__struct_config__.tag for kind in fitting.__args__]
        raise SignalError(
            f"sources.env.{name}: expected for a {type(signal).__name__} an observation key or a "
            f"source of type {' or '.join(types)}, got type {source.__struct_config__.tag!r}"
        )
