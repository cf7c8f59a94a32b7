"""Declaration of what a Gymnasium environment takes: its action, its rate, its word for success.

Nothing is converted here: `canvas_robot.sim.env_actions` does what this says.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from canvas_robot.signals.env_sources import FixedRotation
from canvas_robot.signals.rotation_conventions import CONVENTIONS, RotationConvention
from canvas_robot.signals.signal import SignalError, VectorSignal

Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class _Declared(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    pass


class ScaledNumbers(_Declared, tag_field="type", tag="numbers", kw_only=True):
    """Components of the action, by name, times `scale` plus `offset`.

    scale, offset: one for all or one for each.
    spread: they are a change over the control tick: each of its environment steps gets its share.
    axes: orientation of the frame they are in, in the one that the environment means; for three
        components of a vector.
    """

    names: Names
    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    spread: bool = False
    axes: FixedRotation | None = None

    def __post_init__(self) -> None:
        for field in ("scale", "offset"):
            check_count(
                f"numbers {list(self.names)}: {field}", getattr(self, field), len(self.names)
            )
        if self.axes is not None and len(self.names) != 3:
            raise SignalError(
                f"numbers {list(self.names)}: axes: expected 3 components of a vector to turn, "
                f"got {len(self.names)}"
            )

    @property
    def size(self) -> int:
        """How many numbers of the environment's action it makes."""
        return len(self.names)


class TurnedRotation(_Declared, tag_field="type", tag="rotation", kw_only=True):
    """A rotation among the components, by name, written as the environment wants it.

    given, wanted: conventions of the action signal and of the environment.
    scale: factor of each number written. spread, axes: as of numbers.
    """

    names: Names
    wanted: RotationConvention
    given: RotationConvention = "rpy"
    scale: float = 1.0
    spread: bool = False
    axes: FixedRotation | None = None

    def __post_init__(self) -> None:
        expected = CONVENTIONS[self.given].size
        if len(self.names) != expected:
            raise SignalError(
                f"rotation {list(self.names)}: expected {expected} components for "
                f"{self.given!r}, got {len(self.names)}"
            )

    @property
    def size(self) -> int:
        """How many numbers of the environment's action it makes."""
        return CONVENTIONS[self.wanted].size


class GripperCommand(_Declared, tag_field="type", tag="gripper", kw_only=True):
    """A gripper component, 0 closed to 1 open, on the environment's scale from `closed` to `open`.

    threshold: above it the command is `open`, else `closed`; left out: all between are commanded.
    """

    name: str
    closed: float
    open: float
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.closed == self.open or not np.isfinite([self.closed, self.open]).all():
            raise SignalError(
                f"gripper {self.name!r}: expected finite, different closed and open, "
                f"got {self.closed} and {self.open}"
            )
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise SignalError(
                f"gripper {self.name!r}: threshold: expected 0 <= threshold < 1, "
                f"got {self.threshold}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The one component it reads."""
        return (self.name,)

    @property
    def size(self) -> int:
        """How many numbers of the environment's action it makes."""
        return 1


class FixedNumbers(_Declared, tag_field="type", tag="constant", kw_only=True):
    """Numbers that are the same in every action."""

    values: Annotated[tuple[float, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        if not np.isfinite(self.values).all():
            raise SignalError(f"constant: expected finite values, got {list(self.values)}")

    @property
    def names(self) -> tuple[str, ...]:
        """It reads no component."""
        return ()

    @property
    def size(self) -> int:
        """How many numbers of the environment's action it makes."""
        return len(self.values)


ActionPart = ScaledNumbers | TurnedRotation | GripperCommand | FixedNumbers


class Environment(_Declared):
    """What the environment takes; left out of a binding: the action signal as it is, once a tick.

    action: parts of the environment's action vector, in its order; left out: the signal as it is.
    unused: components of the action signal that the environment has no use for.
    step_rate_hz: environment steps in a second, a whole multiple of `control_rate_hz`; left out:
        one step a control tick.
    clip: to the bounds of the environment's action space.
    success: key of `info` that says whether the task is done.
    """

    action: tuple[ActionPart, ...] = ()
    unused: tuple[str, ...] = ()
    step_rate_hz: float | None = None
    clip: bool = True
    success: str | None = None

    def check(self, name: str, signal: VectorSignal) -> None:
        """Raises SignalError unless the parts use each component of the action signal `name`."""
        used = [component for part in self.action for component in part.names]
        if unknown := sorted({*used, *self.unused} - set(signal.names)):
            raise SignalError(
                f"environment.action: names components {unknown}; "
                f"signal {name!r} has {list(signal.names)}"
            )
        if self.unused and not self.action:
            raise SignalError(
                "environment.unused: the action signal goes out whole where environment.action is "
                "left out; declare its parts"
            )
        if both := sorted(set(used) & set(self.unused)):
            raise SignalError(f"environment.unused: names components {both}, which action uses")
        idle = [component for component in signal.names if component not in {*used, *self.unused}]
        if self.action and idle:
            raise SignalError(
                f"environment.action: leaves out components {idle} of signal {name!r}; "
                f"use them, or name them in environment.unused"
            )

    def steps_per_tick(self, control_rate_hz: float) -> int:
        """Environment steps in one control tick; raises SignalError where they do not fit in."""
        if self.step_rate_hz is None:
            return 1
        steps = self.step_rate_hz / control_rate_hz
        if not (np.isfinite(steps) and round(steps) >= 1 and abs(steps - round(steps)) < 1e-6):
            raise SignalError(
                f"environment.step_rate_hz: expected a whole multiple of control_rate_hz "
                f"{control_rate_hz}, got {self.step_rate_hz}"
            )
        return round(steps)


def check_count(what: str, numbers: float | tuple[float, ...], size: int) -> None:
    """Raises SignalError unless it is one finite number, or `size` of them."""
    given = np.atleast_1d(numbers)
    if not np.isfinite(given).all() or (
        not isinstance(numbers, float | int) and len(given) != size
    ):
        raise SignalError(
            f"{what}: expected one finite number or {size}, got "
            f"{numbers if isinstance(numbers, float | int) else list(numbers)}"
        )
