"""The environments of an evaluation: found by id, made, asked for an episode."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.error import UnregisteredEnv

OWN = "canvas_robot/"
PICTURES = "rgb_array"
UNSAID_FPS = 20.0


class EvalEnvError(ValueError):
    """An environment is not there, or cannot be made or asked as it should be."""


def find_spec(env_id: str) -> EnvSpec:
    """The registered environment; "package:id" imports the package that registers it first.

    Raises EvalEnvError, with what there is, where there is none.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            import_module(module)
        return gymnasium.spec(name)
    except ModuleNotFoundError as error:
        raise EvalEnvError(
            f"env {env_id!r}: no package {module!r} is installed; pip install it, or leave "
            f"{module + ':'!r} out"
        ) from error
    except (UnregisteredEnv, gymnasium.error.Error) as error:
        own = sorted(known for known in gymnasium.registry if known.startswith(OWN))
        raise EvalEnvError(
            f"env {env_id!r}: not registered; there are {', '.join(own)} and "
            f"{len(gymnasium.registry) - len(own)} others; one of another package is named "
            "PACKAGE:ID, such as gymnasium_robotics:FetchReach-v4"
        ) from error


def open_env(env_id: str, kwargs: Mapping[str, Any], max_steps: int = 0) -> gymnasium.Env:
    """The environment, made; close it. Where it can, its `render` gives pictures.

    max_steps: of an episode; 0: its own limit.

    Raises EvalEnvError for an id that is not registered, or keywords that it does not take.
    """
    spec = find_spec(env_id)
    given = dict(kwargs)
    if PICTURES in _render_modes(spec):
        given.setdefault("render_mode", PICTURES)
    try:
        return gymnasium.make(
            spec, max_episode_steps=max_steps or None, disable_env_checker=True, **given
        )
    except Exception as error:  # whatever another package raises
        raise EvalEnvError(
            f"env {env_id!r}: cannot be made with {given}: {type(error).__name__}: {error}"
        ) from error


def shows_pictures(env: gymnasium.Env) -> bool:
    """Whether `render` gives pictures."""
    return env.render_mode == PICTURES


def steps_a_second(env: gymnasium.Env) -> float:
    """As the environment says, or UNSAID_FPS."""
    fps = env.metadata.get("render_fps")
    return float(fps) if fps else UNSAID_FPS


def described(env_id: str, kwargs: Mapping[str, Any], max_steps: int) -> dict[str, Any]:
    """What the environment is, for reports: all keywords that it is made with, and its limit."""
    spec = find_spec(env_id)
    made_by = spec.entry_point
    return {
        "id": spec.id,
        "entry_point": f"{made_by.__module__}:{made_by.__qualname__}"
        if callable(made_by)
        else made_by,
        "kwargs": {**spec.kwargs, **kwargs},
        "max_episode_steps": max_steps or spec.max_episode_steps,
    }


def takes_ids(info: Mapping[str, Any]) -> bool:
    """Whether an environment, by what it says after a reset, has ids that fix episodes."""
    return "episode_id" in info


def reset_options(id_option: str, number: int, target: str = "") -> dict[str, Any] | None:
    """The options of a reset to an episode.

    id_option: as of EvalSettings; "": no id. target: what the scene is asked for; "": its own.
    """
    options: dict[str, Any] = {"target": target} if target else {}
    if id_option:
        *outer, key = id_option.split(".")
        inner = options
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[key] = number
    return options or None


def other_target(env: gymnasium.Env, number: int) -> str:
    """Another goal that the present scene can be asked for.

    Raises EvalEnvError for an environment whose task has none.
    """
    try:
        found = env.unwrapped.task.alternatives(env.unwrapped.episode)
    except AttributeError:  # of another package, or a task with one goal only
        found = ()
    if not found:
        raise EvalEnvError(
            f"--compare-instructions: expected an environment whose scene can be asked for "
            f"something else (task.alternatives), such as {OWN}WidowXReach-v0; "
            f"{env.spec.id} cannot"
        )
    return found[number % len(found)]


def _render_modes(spec: EnvSpec) -> list[str]:
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    metadata = getattr(creator, "metadata", None)
    return list(metadata.get("render_modes") or ()) if isinstance(metadata, Mapping) else []
