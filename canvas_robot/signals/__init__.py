"""Signals, bindings, records, histories, normalisation and rotations. NumPy only."""

from canvas_robot.signals.binding import Binding, BindingError, binding_from_yaml, load_binding
from canvas_robot.signals.history import History, NotReadyError, StampError
from canvas_robot.signals.normalisation import (
    Normaliser,
    Statistics,
    StatisticsError,
    load_statistics,
    save_statistics,
)
from canvas_robot.signals.pose import Pose
from canvas_robot.signals.records import ActionChunk, Frames, GoingOn, Observation
from canvas_robot.signals.signal import ImageSignal, Signal, SignalError, TextSignal, VectorSignal
from canvas_robot.signals.tick_history import TickHistory

__all__ = [
    "ActionChunk",
    "Binding",
    "BindingError",
    "Frames",
    "GoingOn",
    "History",
    "ImageSignal",
    "Normaliser",
    "NotReadyError",
    "Observation",
    "Pose",
    "Signal",
    "SignalError",
    "StampError",
    "Statistics",
    "StatisticsError",
    "TextSignal",
    "TickHistory",
    "VectorSignal",
    "binding_from_yaml",
    "load_binding",
    "load_statistics",
    "save_statistics",
]
