"""Running an actor in a Gymnasium environment and keeping what happened as an episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np

from canvas_robot.data.episode import Episode
from canvas_robot.sim.registration import register


@dataclass(frozen=True, eq=False)
class Rollout:
    """One finished run: what was seen and done, and whether the task succeeded."""

    episode: Episode
    episode_id: int
    success: bool


def record_rollout(
    env: gymnasium.Env, act: Callable[[gymnasium.Env], np.ndarray], episode_id: int
) -> Rollout:
    """Run `act` in the episode of that id until it ends.

    env: observes `image` (H, W, 3) uint8 and `state` (7,) float32; informs of `success` (bool) and
        `instruction` (str).
    act: the action (7,) float32 for the environment as it stands, such as a scripted expert.

    Step k holds what was observed before action k, as in Bridge V2: what the last action led to
    is not kept.
    """
    observation, info = env.reset(options={"episode_id": episode_id})
    instruction = info["instruction"]
    images, states, actions = [], [], []
    ended = False
    while not ended:
        action = act(env)
        images.append(observation["image"])
        states.append(observation["state"])
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
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
    return Rollout(episode, episode_id, bool(info["success"]))


def record_rollouts(
    env_id: str, act: Callable[[gymnasium.Env], np.ndarray], episode_ids: Sequence[int]
) -> list[Rollout]:
    """`record_rollout` for each id, in a registered environment made for it.

    All values can be pickled, so a process without MuJoCo can ask another one for it.
    """
    register()
    env = gymnasium.make(env_id)
    try:
        return [record_rollout(env, act, episode_id) for episode_id in episode_ids]
    finally:
        env.close()
