"""What a run leaves behind: a `TickRecord` per control tick, and `RunMeta` about the whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

STATES = ("active", "hold")
# In the order in which they happen.
STAGES = ("transport", "wait", "assembly", "model", "publish")


@dataclass(frozen=True, eq=False)
class TickRecord:
    """One control tick.

    tick: number of the tick, counted by the control timer (a skipped tick leaves a gap).
    wall_s: seconds from the start of the run to the command, on the camera frames' clock.
    image_stamp_ns: stamp of the newest image used, nanoseconds; 0 when no image had come yet.
    command_stamp_ns: stamp of the command, nanoseconds.
    transport_ms: from the image's stamp to its arrival.
    assembly_ms: making the observation.
    model_ms: the policy.
    publish_ms: from the policy's answer to the command being sent.
    total_ms: from the image's stamp to the command.
    position: (3,) commanded end-effector position in the base frame, metres.
    gripper: commanded opening, 0 closed to 1 open.
    state: "active", or "hold" when the policy's action was not executed.
    reason: why the robot holds, in constant words (the report counts equal ones); "" when active.

    In a hold, the latencies may be NaN (nothing to measure), and position and gripper too (no
    target). Raises ValueError for other values that do not fit.
    """

    tick: int
    wall_s: float
    image_stamp_ns: int
    command_stamp_ns: int
    transport_ms: float
    assembly_ms: float
    model_ms: float
    publish_ms: float
    total_ms: float
    position: np.ndarray
    gripper: float
    state: str
    reason: str = ""

    def __post_init__(self) -> None:
        position = np.array(self.position, dtype=np.float64)
        name = f"TickRecord {self.tick}"
        if position.shape != (3,):
            raise ValueError(f"{name}: expected position (3,) in metres, got {position.shape}")
        if self.state not in STATES:
            raise ValueError(f"{name}: expected state to be one of {STATES}, got {self.state!r}")
        if self.state == "hold" and not self.reason:
            raise ValueError(f"{name}: expected a reason for the hold, got ''; say why it holds")
        latencies = [self.total_ms, *(self.stage_ms(stage) for stage in STAGES)]
        if self.state == "active" and not np.isfinite([*position, self.gripper, *latencies]).all():
            raise ValueError(
                f"{name}: expected finite position, gripper and latencies while active, got "
                f"{position.tolist()}, {self.gripper}, {latencies}; "
                "record a tick without command as hold"
            )
        object.__setattr__(self, "position", position)

    @property
    def wait_ms(self) -> float:
        """The rest of `total_ms`: how long the image waited for its tick. Never negative."""
        measured = self.transport_ms + self.assembly_ms + self.model_ms + self.publish_ms
        return max(0.0, self.total_ms - measured)

    def stage_ms(self, stage: str) -> float:
        """Latency of one of `STAGES`, milliseconds."""
        return float(getattr(self, f"{stage}_ms"))


@dataclass(frozen=True)
class RunMeta:
    """What a report says about the run as a whole.

    instruction: the goal text.
    trained: whether the policy's weights were trained for this task; False puts a warning on the
        page and on every frame.
    seconds: length of the run.
    control_rate_hz: declared control rate.
    expected_ticks: ticks the control timer should have made in `seconds`.
    versions: package name to version, shown as given.
    title: heading of the page.
    details: further facts, shown as given: checkpoint, schema, robot, device.
    """

    instruction: str
    trained: bool
    seconds: float
    control_rate_hz: float
    expected_ticks: int
    versions: Mapping[str, str]
    title: str = "canvas_robot run"
    details: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.control_rate_hz < math.inf:
            raise ValueError(
                f"RunMeta.control_rate_hz: expected a positive rate, got {self.control_rate_hz}"
            )
        if not 0 <= self.seconds < math.inf or self.expected_ticks < 0:
            raise ValueError(
                "RunMeta: expected finite seconds and expected_ticks, not negative, "
                f"got {self.seconds} and {self.expected_ticks}"
            )
        try:
            json.dumps([dict(self.versions), dict(self.details)], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "RunMeta: expected text, finite numbers or booleans in versions and details, "
                f"got something else: {error}"
            ) from error

    @property
    def period_ms(self) -> float:
        """Declared time between two control ticks."""
        return 1000.0 / self.control_rate_hz
