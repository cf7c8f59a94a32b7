"""Running an actor in a Gymnasium environment and keeping what happened as an episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from canvas_robot.data.episode import Episode
from canvas_robot.sim.registration import register

Act = Callable[[gymnasium.Env], np.ndarray]
Disturb = Callable[[gymnasium.Env, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Rollout:
    """One finished run: what was seen and decided, and whether the task succeeded at its end.

    executed: (T, 7) float32, what was done in place of `episode.actions`; the same where nothing
        disturbed the run.
    """

    episode: Episode
    episode_id: int
    success: bool
    executed: np.ndarray


def record_rollout(
    env: gymnasium.Env, act: Act, episode_id: int, disturb: Disturb | None = None
) -> Rollout:
    """Run `act` in the episode of that id until it ends.

    env: observes `image` (H, W, 3) uint8 and `state` (7,) float32; informs of `success` (bool) and
        `instruction` (str).
    act: the action (7,) float32 for the environment as it stands, such as a scripted expert.
    disturb: what is executed in place of that action, such as a `sim.unsteady.Disturbance`; the
        episode keeps what `act` decided.

    Step k holds what was observed before action k, as in Bridge V2: what the last action led to
    is not kept.
    """
    observation, info = env.reset(options={"episode_id": episode_id})
    instruction = info["instruction"]
    images, states, actions, executed = [], [], [], []
    ended = False
    while not ended:
        action = act(env)
        images.append(observation["image"])
        states.append(observation["state"])
        actions.append(action)
        executed.append(action if disturb is None else disturb(env, action))
        observation, _, terminated, truncated, info = env.step(executed[-1])
        ended = terminated or truncated
    period_ns = round(1e9 / env.metadata["render_fps"])
    episode = Episode(
        name=env.spec.id,
        instruction=instruction,
        images=np.stack(images),
        states=np.stack(states),
        actions=np.stack(actions),
        stamps_ns=np.arange(len(images), dtype=np.int64) * period_ns,
    )
    return Rollout(episode, episode_id, bool(info["success"]), np.stack(executed))


def record_rollouts(
    env_id: str,
    act: Act,
    episode_ids: Sequence[int],
    disturb: Disturb | None = None,
    env_options: Mapping[str, Any] | None = None,
) -> list[Rollout]:
    """`record_rollout` for each id, in a registered environment made for it.

    env_options: keyword arguments of `gymnasium.make`. All values can be pickled, so a process
    without MuJoCo can ask another one for it.
    """
    register()
    env = gymnasium.make(env_id, **(env_options or {}))
    try:
        return [record_rollout(env, act, episode_id, disturb) for episode_id in episode_ids]
    finally:
        env.close()
