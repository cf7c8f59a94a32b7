"""The entries of a schema's metadata that something computes with; all others are free."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from canvas_robot.schema.document import SchemaError
from canvas_robot.schema.edge_options import declared_options
from canvas_robot.schema.plain import plain_number, shown

DEFAULT_RATE_HZ = 5.0
SHARPENING_SCHEDULES = ("linear", "exponential", "cosine")  # of backbone.SharpeningSchedule
_SHARPENING = ("beta_min", "beta_max", "schedule")


def check_metadata(metadata: Mapping) -> None:
    """Checks attention, control_rate_hz and sharpening, where they are there.

    Raises:
        SchemaError: a control rate or sharpening that cannot be used.
        EdgeOptionsError: unknown or wrong options of the function types.
    """
    declared_options(metadata)
    declared_rate_hz(metadata)
    _check_sharpening(metadata.get("sharpening"))


def declared_rate_hz(metadata: Mapping) -> float:
    """Control ticks per second under "control_rate_hz", a number or its text; 5 if not declared.

    Raises SchemaError where that is no finite number above 0.
    """
    declared = metadata.get("control_rate_hz", DEFAULT_RATE_HZ)
    try:
        rate = float(declared) if isinstance(declared, str) else plain_number(declared)
        rate = math.nan if rate is None else float(rate)
    except (ValueError, OverflowError):
        rate = math.nan
    if not 0.0 < rate < math.inf:
        raise SchemaError(
            "metadata.control_rate_hz: expected ticks per second, a finite number above 0, "
            f"got {shown(declared)}"
        )
    return rate


def _check_sharpening(declared: object) -> None:
    if declared is None:
        return
    where = "metadata.sharpening"
    if not isinstance(declared, Mapping) or not set(declared) <= set(_SHARPENING):
        raise SchemaError(
            f"{where}: expected an object with some of {', '.join(_SHARPENING)}; "
            f"got {shown(declared)}"
        )
    schedule = declared.get("schedule", "linear")
    if schedule not in SHARPENING_SCHEDULES:
        raise SchemaError(
            f"{where}: schedule: expected one of {', '.join(SHARPENING_SCHEDULES)}; "
            f"got {shown(schedule)}"
        )
    for name in ("beta_min", "beta_max"):
        beta = plain_number(declared.get(name, 1.0))
        usable = beta is not None and 0 <= beta <= sys.float_info.max
        if not usable or (beta == 0 and schedule == "exponential"):
            low = "> 0" if schedule == "exponential" else ">= 0"
            raise SchemaError(
                f"{where}: {name}: expected a finite number {low}, got {shown(declared[name])}"
            )
