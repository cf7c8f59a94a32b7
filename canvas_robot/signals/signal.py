"""Signal declarations: what a physical stream is, and whether a value is one.

No streams are read here.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np


class SignalError(ValueError):
    """A value is not what its signal declares, or a signal's declaration is wrong."""


class _Declared(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    pass


class ImageSignal(_Declared, tag="image"):
    """Camera images, (H, W, 3) uint8 RGB.

    sizes: accepted (H, W) in pixels; the size must not change between two resets.
    max_age_s: age in seconds beyond which a sample must not be acted on.
    max_skew_s: by how many seconds its stamp may lag behind the newest sample that is acted on with
        it; left out: by any.
    """

    sizes: tuple[tuple[int, int], ...]
    max_age_s: float = 0.5
    max_skew_s: float | None = None

    def __post_init__(self) -> None:
        _check_times(self)
        if not self.sizes or any(h < 1 or w < 1 for h, w in self.sizes):
            raise SignalError(f"sizes: expected at least one positive (H, W), got {self.sizes}")

    def checked(self, name: str, value: np.ndarray) -> np.ndarray:
        """`value` itself; raises SignalError unless it is an accepted image."""
        if (
            not isinstance(value, np.ndarray)
            or value.dtype != np.uint8
            or value.ndim != 3
            or value.shape[2] != 3
        ):
            raise SignalError(
                f"signal {name!r}: expected (H, W, 3) uint8 RGB, got {_describe(value)}"
            )
        if value.shape[:2] not in self.sizes:
            accepted = ", ".join(f"{w}x{h}" for h, w in self.sizes)
            raise SignalError(
                f"signal {name!r}: expected an image of {accepted} (width x height), got "
                f"{value.shape[1]}x{value.shape[0]}; set the camera to one of these "
                f"or add the size to the binding"
            )
        return value


class VectorSignal(_Declared, tag="vector"):
    """A vector of named physical components.

    names, units: one per component.
    low, high: physical range of each component, in its unit; a value outside is refused.
    frame: coordinate frame of the components.
    representation: "absolute", or "delta" for a change from the previous target.
    rotation: order and convention of the Euler angles among the components, if any.
    max_age_s, max_skew_s: as of ImageSignal.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    frame: str
    representation: Literal["absolute", "delta"] = "absolute"
    rotation: str | None = None
    max_age_s: float = 0.5
    max_skew_s: float | None = None

    def __post_init__(self) -> None:
        _check_times(self)
        for field in ("units", "low", "high"):
            if len(getattr(self, field)) != len(self.names):
                raise SignalError(
                    f"{field}: expected {len(self.names)} entries, "
                    f"one per name {list(self.names)}, got {len(getattr(self, field))}"
                )
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise SignalError(
                    f"component {name!r}: expected finite low < high, got {low} and {high}"
                )

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.names)

    def checked(self, name: str, value: np.ndarray) -> np.ndarray:
        """`value` as float32.

        Raises SignalError for a wrong shape, a non-finite or an out-of-range component.
        """
        vector = np.asarray(value)
        if vector.shape != (self.size,) or vector.dtype.kind != "f":
            raise SignalError(
                f"signal {name!r}: expected ({self.size},) floats, got {_describe(value)}"
            )
        vector = vector.astype(np.float32)
        inside = (vector >= np.float32(self.low)) & (
            vector <= np.float32(self.high)
        )  # False for NaN
        if not inside.all():
            i = int(np.argmin(inside))
            raise SignalError(
                f"signal {name!r}: expected component {self.names[i]!r} in "
                f"[{self.low[i]}, {self.high[i]}] {self.units[i]}, got {vector[i]}; "
                f"check the source's unit, frame and sign"
            )
        return vector


class TextSignal(_Declared, tag="text"):
    """An instruction in plain language. max_bytes: accepted length in UTF-8."""

    max_bytes: int = 1024

    def checked(self, name: str, value: str) -> str:
        """`value` itself; raises SignalError unless it is printable text of at most `max_bytes`."""
        if not isinstance(value, str):
            raise SignalError(f"signal {name!r}: expected text, got {_describe(value)}")
        if len(value) > self.max_bytes or len(value.encode("utf-8", "replace")) > self.max_bytes:
            raise SignalError(
                f"signal {name!r}: expected at most {self.max_bytes} bytes of text, got more"
            )
        if not value.isprintable():
            raise SignalError(
                f"signal {name!r}: expected printable characters only, got {value[:80]!r}"
            )
        return value


Signal = ImageSignal | VectorSignal | TextSignal


def _check_times(signal: ImageSignal | VectorSignal) -> None:
    _require_positive("max_age_s", signal.max_age_s)
    if signal.max_skew_s is not None:
        _require_positive("max_skew_s", signal.max_skew_s)


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise SignalError(f"{name}: expected a finite number > 0, got {value}")


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return type(value).__name__
