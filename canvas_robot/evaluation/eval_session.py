"""Session: one process's environment and actor, and the loop of an episode in them.

Environment made, wrapped, actor reset with the instruction, act, step until it ends. Who asks for
which episode is eval_workers.py's matter.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gymnasium
import msgspec
import numpy as np

from canvas_robot.evaluation.actors import (
    Actor,
    ExpertActor,
    PolicyActor,
    RandomActor,
    ZeroActor,
)
from canvas_robot.evaluation.eval_env import (
    open_env,
    other_target,
    reset_options,
    shows_pictures,
    steps_a_second,
    takes_ids,
)
from canvas_robot.evaluation.eval_film import Camera, Film
from canvas_robot.evaluation.eval_outcome import Outcome
from canvas_robot.evaluation.eval_policy import expert_of, load_evaluated
from canvas_robot.evaluation.eval_settings import EvalSettings, Start
from canvas_robot.sim.canvas_wrapper import CanvasWrapper

LONGEST = 10_000  # steps of an episode that nothing else ends
LISTENED = 32  # episodes of each environment whose instructions are shuffled


class EpisodeError(RuntimeError):
    """An episode could not be run to its end; the message says which and why."""


class EpisodeRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one episode came to: a line of episodes.jsonl.

    env, number, variant: which, see Start, with the environment's id. episode_id: None where the
        environment has no ids. instruction: the episode's own; told: what the actor was told.
    success_last, success_any, success_held, failure, stages: as of Outcome.
    steps_to_success: the step, from 1, after which the rule first held; None: none.
    terminated: whether the environment itself ended it, not the limit of steps.
    reward: the sum; None where it is not finite.
    action_change: see `action_change`. decision_ms: of each decision. seconds: of the whole.
    """

    env: str
    number: int
    variant: int
    episode_id: int | None
    seed: int
    instruction: str
    told: str
    success_last: bool
    success_any: bool
    success_held: bool | None
    steps: int
    steps_to_success: int | None
    terminated: bool
    failure: str
    stages: dict[str, bool]
    reward: float | None
    action_change: float | None
    decision_ms: list[float]
    seconds: float

    @property
    def key(self) -> tuple[str, int, int]:
        return self.env, self.number, self.variant


@dataclass
class _Play:
    """What happens in an episode, as it goes on."""

    outcome: Outcome
    actions: list[Any] = field(default_factory=list)
    decision_ms: list[float] = field(default_factory=list)
    reward: float = 0.0


class Session:
    """Runs episodes one after another; keeps one environment and one policy at a time. Close it.

    Raises CheckpointError and the like for a policy that cannot be loaded.
    """

    def __init__(self, settings: EvalSettings) -> None:
        self._settings = settings
        self._policy = None if settings.is_baseline else load_evaluated(settings)
        self._place = -1
        self._env: gymnasium.Env | None = None
        self._id_option = ""

    def run(self, start: Start, filmed: bool = False) -> tuple[EpisodeRow, Film | None]:
        """Runs one episode; the film is None where it is not wanted or cannot be had.

        Raises EvalEnvError for an environment that cannot be made, EpisodeError for whatever goes
        wrong in the episode.
        """
        if self._settings.shuffle_instructions:
            _ = self._instructions  # before the episode: listening resets environments
        env = self._opened(start.env)
        try:
            return self._run(env, start, filmed)
        except Exception as error:
            env_id = self._settings.envs[start.env]
            said = isinstance(error, ValueError | RuntimeError)
            text = f"{error}" if said else f"{type(error).__name__}: {error}"
            raise EpisodeError(f"{env_id}, episode {start.number}: {text}") from error

    def close(self) -> None:
        """Closes the environment; the session may go on, and makes another."""
        if self._env is not None:
            self._env.close()
        self._env, self._place = None, -1

    def _run(
        self, env: gymnasium.Env, start: Start, filmed: bool
    ) -> tuple[EpisodeRow, Film | None]:
        began = time.perf_counter()
        instruction = self._reset(env, start)
        told = self._told(start, instruction)
        camera = Camera(steps_a_second(env)) if filmed and shows_pictures(env) else None
        play = self._play(env, self._actor(env, start), told, camera)
        outcome = play.outcome
        row = EpisodeRow(
            env=self._settings.envs[start.env],
            number=start.number,
            variant=start.variant,
            episode_id=start.number if self._id_option else None,
            seed=start.number,
            instruction=instruction,
            told=told,
            success_last=outcome.last,
            success_any=outcome.any,
            success_held=outcome.held,
            steps=outcome.steps,
            steps_to_success=outcome.steps_to_success,
            terminated=outcome.terminated,
            failure=outcome.failure,
            stages=outcome.stages,
            reward=play.reward if math.isfinite(play.reward) else None,
            action_change=action_change(play.actions, env.action_space),
            decision_ms=play.decision_ms,
            seconds=round(time.perf_counter() - began, 3),
        )
        return row, camera.film() if camera is not None else None

    def _play(self, env: gymnasium.Env, actor: Actor, told: str, camera: Camera | None) -> _Play:
        """From the reset to the end."""
        play, ended = _Play(Outcome(self._settings.success_key)), False
        actor.reset(env, told)
        if camera is not None:
            camera.take(_picture(env))
        while not ended:
            action, took_ms = _timed(actor, env)
            if play.outcome.steps % self._settings.steps_per_chunk == 0:
                play.decision_ms.append(round(took_ms, 3))
            play.actions.append(action)
            _, reward, terminated, truncated, info = env.step(action)
            play.reward += float(reward)
            play.outcome.step(info, bool(terminated))
            if camera is not None:
                camera.take(_picture(env))
            ended = bool(terminated) or bool(truncated)
            if play.outcome.steps == LONGEST and not (ended or self._settings.max_steps):
                raise RuntimeError(f"no end after {LONGEST:,} steps; limit them: --max-steps N")
        return play

    def _opened(self, place: int) -> gymnasium.Env:
        """The environment at a place of the settings; another one that is open is closed."""
        if self._env is None or place != self._place:
            self.close()
            settings = self._settings
            env = open_env(settings.envs[place], settings.env_kwargs, settings.max_steps)
            if self._policy is not None:
                env = CanvasWrapper(env, self._policy.binding, self._policy.schema)
            self._env, self._place = env, place
            self._id_option = settings.id_option or self._own_option(env)
        return self._env

    def _own_option(self, env: gymnasium.Env) -> str:
        _, info = env.reset(seed=self._settings.episodes[0])
        return "episode_id" if takes_ids(info) else ""

    def _reset(self, env: gymnasium.Env, start: Start) -> str:
        """Begins the episode; its instruction."""
        _, info = env.reset(seed=start.number, options=reset_options(self._id_option, start.number))
        if self._settings.compare_instructions:  # also of the own goal: is there another?
            target = other_target(env, start.number)
            if start.variant:
                options = reset_options(self._id_option, start.number, target)
                _, info = env.reset(seed=start.number, options=options)
        return str(info.get("instruction", ""))

    def _told(self, start: Start, instruction: str) -> str:
        if self._settings.instruction:
            return self._settings.instruction
        if not self._settings.shuffle_instructions:
            return instruction
        others = [text for text in self._instructions if text != instruction]
        if not others:
            raise ValueError(
                f"--shuffle-instructions: expected episodes with different instructions, all say "
                f"{instruction!r}; evaluate several --env in one run"
            )
        random = np.random.default_rng([self._settings.seed, start.number])
        return others[random.integers(len(others))]

    @cached_property
    def _instructions(self) -> tuple[str, ...]:
        """What the first episodes of every environment say, each text once; resets them."""
        said = {}
        for place in range(len(self._settings.envs)):
            env = self._opened(place)
            for number in self._settings.episodes[:LISTENED]:
                said[self._reset(env, Start(place, number))] = None
        return tuple(said)

    def _actor(self, env: gymnasium.Env, start: Start) -> Actor:
        settings = self._settings
        if self._policy is not None:
            return PolicyActor(self._policy, settings.steps_per_chunk, settings.black_image)
        if settings.policy == "expert":
            return ExpertActor(expert_of(env))
        if settings.policy == "random":
            seed = np.random.SeedSequence([settings.seed, start.number])
            return RandomActor(int(seed.generate_state(1)[0]))
        return ZeroActor()


def action_change(actions: list[Any], space: gymnasium.Space) -> float | None:
    """How unsteady the actions were; less is smoother.

    The root mean square, over steps and components, of the difference of two successive actions,
    each component divided by the width of its range in the action space: 1 is from one bound to the
    other at every step. None for fewer than two actions, or an action space without bounds.
    """
    if len(actions) < 2 or not (
        isinstance(space, gymnasium.spaces.Box) and space.is_bounded("both")
    ):
        return None
    width = (space.high - space.low).astype(np.float64)
    moves = np.diff(np.stack(actions).astype(np.float64), axis=0)[:, width > 0] / width[width > 0]
    return float(np.sqrt(np.mean(moves**2))) if moves.size else None


def _timed(actor: Actor, env: gymnasium.Env) -> tuple[Any, float]:
    started = time.perf_counter()
    action = actor.act(env)
    return action, (time.perf_counter() - started) * 1e3


def _picture(env: gymnasium.Env) -> np.ndarray:
    try:
        return env.render()
    except Exception as error:
        raise RuntimeError(f"no picture of it: {error}; or film no episode: --no-video") from error
