"""Turns an action in the binding's units into an environment's, as its `environment` declares.

The declaration is compared with the environment's action space once, when an `EnvActions` is made.
"""

from __future__ import annotations

from typing import final

import gymnasium
import numpy as np
from gymnasium import spaces

from canvas_robot.signals import Binding, BindingError, SignalError
from canvas_robot.signals.environment import (
    ActionPart,
    Environment,
    FixedNumbers,
    GripperCommand,
    ScaledNumbers,
    TurnedRotation,
)
from canvas_robot.signals.rotation_conventions import CONVENTIONS

_AS_IT_IS = Environment(clip=False)


@final
class EnvActions:
    """Actions of one environment, and how many of its steps a control tick takes.

    Raises BindingError, naming what was expected and what came, where the declaration does not fit
    the environment's action space or rate.
    """

    def __init__(self, env: gymnasium.Env, binding: Binding) -> None:
        self._name = binding.regions[binding.action_region()].signal
        self._signal = binding.action_signal()
        self._index = {name: i for i, name in enumerate(self._signal.names)}
        self._declared = binding.environment or _AS_IT_IS
        self._space = _box(env.action_space)
        self.steps_per_tick = self._declared.steps_per_tick(binding.control_rate_hz)
        self._check_size()
        if binding.environment is None:
            self._check_units()
            _check_rate(env, binding)

    def convert(self, action: np.ndarray) -> np.ndarray:
        """The environment's action of one of the signal's, (n,); the action itself where no part of
        it is declared to differ.

        Raises SignalError for another shape or a number that is not finite.
        """
        given = np.asarray(action)
        if given.shape != (self._signal.size,) or given.dtype.kind not in "fiu":
            raise SignalError(
                f"action: expected {self._signal.size} numbers of signal {self._name!r}, "
                f"{', '.join(self._signal.names)}; got {given.shape} {given.dtype}"
            )
        if not np.isfinite(given).all():
            raise SignalError(f"action: expected finite numbers, got {given.tolist()}")
        if self._declared.action:
            parts = [self._part(part, given.astype(np.float64)) for part in self._declared.action]
            action = np.concatenate(parts).astype(self._space.dtype)
        if self._declared.clip:
            action = np.clip(action, self._space.low, self._space.high)
        return action

    def _part(self, part: ActionPart, given: np.ndarray) -> np.ndarray:
        if isinstance(part, FixedNumbers):
            return np.array(part.values)
        values = given[[self._index[name] for name in part.names]]
        if isinstance(part, GripperCommand):
            return _gripper(part, values)
        if isinstance(part, TurnedRotation):
            return _rotation(part, values, self.steps_per_tick)
        return _numbers(part, values, self.steps_per_tick)

    def _check_size(self) -> None:
        parts = self._declared.action
        size = sum(part.size for part in parts) if parts else self._signal.size
        if self._space.shape != (size,):
            made = ", ".join(f"{part.__struct_config__.tag} {part.size}" for part in parts)
            remedy = "" if parts else "; declare environment.action"
            raise BindingError(
                f"environment.action: expected {self._space.shape[0]} numbers for the "
                f"environment's action space {self._space}, got {size}: "
                f"{made or f'signal {self._name!r} as it is'}{remedy}"
            )

    def _check_units(self) -> None:
        low, high = np.array(self._signal.low), np.array(self._signal.high)
        if not (
            np.allclose(low, self._space.low, rtol=1e-5)
            and np.allclose(high, self._space.high, rtol=1e-5)
        ):
            raise BindingError(
                f"environment: the action signal {self._name!r} would go out as it is; expected an "
                f"action space of its range {low.tolist()} to {high.tolist()}, got "
                f"{self._space.low.tolist()} to {self._space.high.tolist()}; declare "
                f"environment.action with the environment's units"
            )


def _box(space: spaces.Space) -> spaces.Box:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype.kind != "f":
        raise BindingError(
            f"environment.action: expected an action space Box of (n,) floats, got {space}"
        )
    return space


def _check_rate(env: gymnasium.Env, binding: Binding) -> None:
    """Where nothing is declared, what the environment says of itself must agree."""
    rate = env.metadata.get("render_fps")
    if rate is not None and not np.isclose(rate, binding.control_rate_hz):
        raise BindingError(
            f"environment: expected {binding.control_rate_hz} steps a second, the binding's "
            f"control_rate_hz, got metadata['render_fps'] = {rate}; declare "
            f"environment.step_rate_hz"
        )


def _numbers(part: ScaledNumbers, values: np.ndarray, steps: int) -> np.ndarray:
    if part.axes is not None:
        values = part.axes.matrix() @ values
    if part.spread:
        values = values / steps
    return values * np.array(part.scale) + np.array(part.offset)


def _rotation(part: TurnedRotation, values: np.ndarray, steps: int) -> np.ndarray:
    rotation = CONVENTIONS[part.given].to_matrix(values)
    if part.axes is not None:
        axes = part.axes.matrix()
        rotation = axes @ rotation @ axes.T
    if part.spread:
        rotvec = CONVENTIONS["rotvec"]
        rotation = rotvec.to_matrix(rotvec.from_matrix(rotation) / steps)
    return CONVENTIONS[part.wanted].from_matrix(rotation) * part.scale


def _gripper(part: GripperCommand, values: np.ndarray) -> np.ndarray:
    opening = values if part.threshold is None else (values > part.threshold).astype(np.float64)
    return part.closed + np.clip(opening, 0.0, 1.0) * (part.open - part.closed)
