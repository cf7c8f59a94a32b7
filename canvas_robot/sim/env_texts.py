"""Readers of the instruction: out of the observation, `info` or an attribute, or a fixed text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from canvas_robot.signals import SignalError
from canvas_robot.signals.env_sources import EnvAttribute, EnvInfo, EnvText
from canvas_robot.sim.env_lookup import Moment, Reader, at, described, find


@dataclass(frozen=True, eq=False)
class _SpokenText:
    """Text of an observation."""

    path: tuple[str, ...]
    shape: tuple[int, ...] = ()

    def read(self, moment: Moment) -> str:
        return at(moment.observation, self.path)


@dataclass(frozen=True, eq=False)
class _InfoText:
    key: str
    shape: tuple[int, ...] = ()

    def read(self, moment: Moment) -> str | None:
        values: Any = moment.info
        for key in (self.key,) if self.key in values else self.key.split("."):
            if not isinstance(values, Mapping) or key not in values:
                return None
            values = values[key]
        return values


@dataclass(frozen=True, eq=False)
class _AttributeText:
    name: str
    shape: tuple[int, ...] = ()

    def read(self, moment: Moment) -> str | None:
        try:
            value = moment.env.get_wrapper_attr(self.name)
        except AttributeError:
            return None
        value = value() if callable(value) else value
        return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


@dataclass(frozen=True, eq=False)
class _SameText:
    text: str
    shape: tuple[int, ...] = ()

    def read(self, moment: Moment) -> str:
        return self.text


def text_reader(source: str | EnvInfo | EnvAttribute | EnvText, space: spaces.Space) -> Reader:
    """Reads text, or None where there is none; raises SignalError for a key that holds no text."""
    if isinstance(source, EnvText):
        return _SameText(source.text)
    if isinstance(source, EnvInfo):
        return _InfoText(source.key)
    if isinstance(source, EnvAttribute):
        return _AttributeText(source.name)
    path, leaf = find(space, source)
    if not isinstance(leaf, spaces.Text):
        raise SignalError(f"key {source!r}: expected Text, got {described(leaf)}")
    return _SpokenText(path)
