"""Records that cross the border between robot and policy.

An observation goes in, an action chunk comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Frames:
    """The samples that fill one region at one tick, oldest first.

    values: (T, ...) samples as the signal declares them.
    stamps_ns: (T,) int64, when each sample was taken.
    missing: (T,) bool, True where the past did not exist and the first sample stands in.
    """

    values: np.ndarray
    stamps_ns: np.ndarray
    missing: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.values) == len(self.stamps_ns) == len(self.missing) > 0:
            raise ValueError(
                f"Frames: expected equal, positive lengths, got values {len(self.values)}, "
                f"stamps {len(self.stamps_ns)}, missing {len(self.missing)}"
            )


@dataclass(frozen=True, eq=False)
class Observation:
    """What the policy sees at one control tick: frames by region name.

    `tick` counts from the reset.
    """

    tick: int
    stamp_ns: int
    frames: dict[str, Frames]


@dataclass(frozen=True, eq=False)
class GoingOn:
    """What is carried out while the next chunk is decided.

    rows: (n, size) float32 in the action signal's units; row j is for control tick `tick` + j of
        the decision to come.
    frozen: how many of them will have begun when it comes, as far as can be told.
    """

    rows: np.ndarray
    frozen: int

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.frozen < 0:
            raise ValueError(
                f"GoingOn: expected rows (n, size) and 0 or more frozen, "
                f"got {self.rows.shape} and {self.frozen}"
            )


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """What the policy decides at one control tick.

    name: signal name of the action.
    values: (horizon, size) float32 in the signal's units; row j is for control tick `tick` + j.
    timings_ms: milliseconds by stage of the decision: "codec", samples to tokens, and of that
        "squash", pictures to the codec's size; "forward", tokens to actions.
    stamps_ns: by observed region, the newest sample's stamp of what was acted on.
    ages: by observed region, ticks since what was acted on was observed.
    continues: what was going on that it was drawn to go on with; None where it was decided without.
    """

    name: str
    tick: int
    values: np.ndarray
    timings_ms: dict[str, float] = field(default_factory=dict)
    stamps_ns: dict[str, int] = field(default_factory=dict)
    ages: dict[str, int] = field(default_factory=dict)
    continues: GoingOn | None = None

    @property
    def horizon(self) -> int:
        return len(self.values)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=True if copy is None else copy)
