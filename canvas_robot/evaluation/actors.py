"""Actors: whatever decides on the next action of an episode, behind one interface.

The loop that runs them is eval_session.py's; what a policy sees and how its action becomes the
environment's is CanvasWrapper's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium
import numpy as np

from canvas_robot.signals import Binding, Frames, ImageSignal, Observation

if TYPE_CHECKING:  # it brings torch, which baselines do without
    from canvas_robot.policy.protocol import Policy

BASELINES = ("expert", "random", "zero")


class ActorError(ValueError):
    """An actor cannot act in an environment, or not as it is asked to."""


class Actor(Protocol):
    """Decides in one environment after another. `reset` begins an episode; then `act`, `step`."""

    def reset(self, env: gymnasium.Env, instruction: str) -> None:
        """Begins an episode of an environment that was just reset, with the goal in words."""

    def act(self, env: gymnasium.Env) -> Any:
        """The action for the environment as it stands: what its `step` takes."""


class ExpertActor:
    """A scripted expert, which reads the simulator's true state."""

    def __init__(self, expert: Callable[[gymnasium.Env], np.ndarray]) -> None:
        self._expert = expert

    def reset(self, env: gymnasium.Env, instruction: str) -> None:
        """Experts see which episode it is."""

    def act(self, env: gymnasium.Env) -> np.ndarray:
        return self._expert(env)


class RandomActor:
    """Draws each action from the environment's action space; equal seeds draw equal actions."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def reset(self, env: gymnasium.Env, instruction: str) -> None:
        self._space = copy.deepcopy(env.action_space)  # the environment's own draws go on
        self._space.seed(self._seed)

    def act(self, env: gymnasium.Env) -> Any:
        return self._space.sample()


class ZeroActor:
    """The action 0, or what of the action space is nearest to it: no motion where it is a delta."""

    def reset(self, env: gymnasium.Env, instruction: str) -> None:
        """Raises ActorError for an action space that is not a box."""
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise ActorError(f"zero: expected an action space that is a Box, got {space}")
        self._action = np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)

    def act(self, env: gymnasium.Env) -> np.ndarray:
        return self._action.copy()


class PolicyActor:
    """A policy in an environment that is wrapped in CanvasWrapper.

    steps_per_chunk: how many actions of a chunk are executed before the next decision.
    black_image: whether every camera picture is black to the policy.

    Raises ActorError for more steps than a chunk has.
    """

    def __init__(self, policy: Policy, steps_per_chunk: int = 1, black_image: bool = False) -> None:
        if not 1 <= steps_per_chunk <= policy.horizon:
            raise ActorError(
                f"steps per chunk: expected 1 to {policy.horizon}, the actions in a chunk of this "
                f"policy, got {steps_per_chunk}"
            )
        self._policy = policy
        self._steps_per_chunk = steps_per_chunk
        self._black_image = black_image

    def reset(self, env: gymnasium.Env, instruction: str) -> None:
        self._policy.reset(instruction)
        self._coming: list[np.ndarray] = []

    def act(self, env: gymnasium.Env) -> np.ndarray:
        """The action (n,) in the action signal's units; decides anew as declared."""
        if not self._coming:
            observation = env.get_wrapper_attr("canvas_observation")
            if self._black_image:
                observation = blackened(observation, self._policy.binding)
            self._coming = list(self._policy.act(observation).values[: self._steps_per_chunk])
        return self._coming.pop(0)


def blackened(observation: Observation, binding: Binding) -> Observation:
    """The observation with every camera picture black; all else as it was."""

    def seen(region: str, frames: Frames) -> Frames:
        signal = binding.signals[binding.regions[region].signal]
        if not isinstance(signal, ImageSignal):
            return frames
        return replace(frames, values=np.zeros_like(frames.values))

    frames = {region: seen(region, frames) for region, frames in observation.frames.items()}
    return replace(observation, frames=frames)
