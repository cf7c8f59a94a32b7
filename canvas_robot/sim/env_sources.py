"""Reads a binding's signals from what a Gymnasium environment gives, as its sources.env declare.

Every declaration is compared with the environment's spaces once, when a reader is made; reading
then only looks up and converts. No environment is known by name here.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from canvas_robot.signals import Binding, BindingError, ImageSignal, SignalError, VectorSignal
from canvas_robot.signals.env_sources import EnvInfo
from canvas_robot.sim.env_images import image_reader
from canvas_robot.sim.env_lookup import Moment, Reader
from canvas_robot.sim.env_texts import text_reader
from canvas_robot.sim.env_vectors import vector_reader

_INFO_INSTRUCTION = EnvInfo(key="instruction")  # where the binding declares no source of it


class EnvSources:
    """All sampled signals and the instruction of one environment.

    Raises BindingError, naming signal, key, what was expected and what came, where a declared
    source is not in the environment's observation space or does not fit its signal.
    """

    def __init__(self, env: gymnasium.Env, binding: Binding, sampled: tuple[str, ...]) -> None:
        goal = binding.regions[binding.goal_region()].signal
        declared = dict(binding.sources.env)
        self._instruction = _reader(goal, declared.pop(goal, _INFO_INSTRUCTION), env, binding)
        if set(declared) != set(sampled):
            raise BindingError(
                f"sources.env: expected the signals that observed regions sample, "
                f"{sorted(sampled)}, got {sorted(declared)}"
            )
        self._readers = {name: _reader(name, declared[name], env, binding) for name in sampled}
        self._goal, self._goal_signal = goal, binding.signals[goal]

    def shape(self, signal: str) -> tuple[int, ...]:
        """Shape of one sample of a signal."""
        return self._readers[signal].shape

    def read(self, moment: Moment) -> dict[str, np.ndarray]:
        """One sample of each signal, by name.

        Raises SignalError where what the environment gave cannot be converted.
        """
        samples = {}
        for name, reader in self._readers.items():
            try:
                samples[name] = reader.read(moment)
            except ValueError as error:
                raise SignalError(f"sources.env.{name}: {error}") from error
        return samples

    def instruction(self, moment: Moment) -> str | None:
        """The instruction; None where this moment says none.

        Raises SignalError where it is not text that the binding accepts.
        """
        text = self._instruction.read(moment)
        return None if text is None else self._goal_signal.checked(self._goal, text)


def _reader(name: str, source: Any, env: gymnasium.Env, binding: Binding) -> Reader:
    signal = binding.signals[name]
    try:
        if isinstance(signal, ImageSignal):
            return image_reader(signal, source, env)
        if isinstance(signal, VectorSignal):
            return vector_reader(signal, source, env.observation_space, binding.robot)
        return text_reader(source, env.observation_space)
    except SignalError as error:
        raise BindingError(f"sources.env.{name}: {error}") from error
