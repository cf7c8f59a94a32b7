"""Finds numbers, pictures and texts in an environment's observations, by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from canvas_robot.signals import SignalError
from canvas_robot.signals.env_sources import Pick


@dataclass(frozen=True, eq=False)
class Moment:
    """What an environment gave at a reset or a step."""

    env: gymnasium.Env
    observation: Any
    info: Mapping[str, Any]


class Reader(Protocol):
    """Reads one signal's value. `shape` is that of the value; () for text."""

    shape: tuple[int, ...]

    def read(self, moment: Moment) -> Any: ...


def find(space: spaces.Space, key: str) -> tuple[tuple[str, ...], spaces.Space]:
    """The keys that lead to an observation, and its space; "." is the whole.

    A key that holds dots itself is found first. Raises SignalError, with the keys there are, for
    one that is not there.
    """
    if key == ".":
        return (), space
    path, rest = [], key
    while rest:
        inside = space.spaces if isinstance(space, spaces.Dict) else {}
        head, _, tail = (rest, "", "") if rest in inside else rest.partition(".")
        if head not in inside:
            at = f"under {'.'.join(path)!r}" if path else "in the observation"
            there = f"keys {sorted(inside)}" if inside else f"no keys but a {described(space)}"
            whole = "" if path or inside else '; "." is the whole observation'
            raise SignalError(f"key {key!r}: {at} there are {there}, got {head!r}{whole}")
        space, rest = inside[head], tail
        path.append(head)
    return tuple(path), space


def at(values: Any, path: tuple[str, ...]) -> Any:
    """What lies at the end of a path that `find` gave."""
    for key in path:
        values = values[key]
    return values


def described(space: spaces.Space) -> str:
    """A space in few words, for errors."""
    if isinstance(space, spaces.Box):
        return f"Box of {space.shape} {space.dtype}"
    return type(space).__name__


@dataclass(frozen=True, eq=False)
class Picked:
    """Numbers of one observation, (n,) float64."""

    path: tuple[str, ...]
    indices: np.ndarray

    def read(self, moment: Moment) -> np.ndarray:
        values = np.asarray(at(moment.observation, self.path), dtype=np.float64)
        return values.ravel()[self.indices]


def picked(pick: Pick, space: spaces.Space, count: int | None = None) -> Picked:
    """The numbers that a pick takes, `count` of them where that is known.

    Raises SignalError where they are not in the observation space.
    """
    path, leaf = find(space, pick.key)
    if not isinstance(leaf, spaces.Box):
        raise SignalError(f"key {pick.key!r}: expected a Box of numbers, got {described(leaf)}")
    indices = pick.indices(int(np.prod(leaf.shape)))
    if count is not None and len(indices) != count:
        raise SignalError(
            f"key {pick.key!r}: expected {count} numbers, got {len(indices)} of "
            f"{described(leaf)}; choose them with take"
        )
    return Picked(path, indices)
