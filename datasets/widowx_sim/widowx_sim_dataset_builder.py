"""TFDS builder of `widowx_sim`: demonstrations from a scripted expert, in the layout of Bridge V2.

The features and the stored example are those of `canvas_robot.data.rlds`; only the choice of
episodes and of how the expert moves is made here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import tensorflow_datasets as tfds

from canvas_robot.data.helper_process import HelperProcess
from canvas_robot.data.rlds import bridge_features, example_from_episode
from canvas_robot.evaluation.rollouts import Rollout, record_rollouts
from canvas_robot.sim.experts import ReachExpert, UnsteadyExpert
from canvas_robot.sim.registration import REACH_ID

_EPISODES_AT_A_TIME = 20
# Ids of val are those of train and this: no config has as many episodes.
_VAL_IDS = 1_000_000
# An expert that fails more often than it succeeds is broken, or its settings are.
_FAILURES_ALLOWED = 10


@dataclasses.dataclass(kw_only=True)
class WidowXSimConfig(tfds.core.BuilderConfig):
    """Which episodes of `canvas_robot/WidowXReach-v0` are demonstrated, and how.

    train_episodes, val_episodes: how many of each.
    first_episode_id: train has this id and those after it, val the same ids plus a million. An id
        fixes the whole episode, so the two splits share none. An id at which the expert fails is
        passed over.
    speed_m: length of the expert's steps, metres.
    wander_m, rest_chance: what makes its hand unsteady, see `UnsteadyExpert`; 0: a steady one.
    """

    train_episodes: int
    val_episodes: int
    first_episode_id: int = 0
    speed_m: float = 0.02
    wander_m: float = 0.0
    rest_chance: float = 0.0

    def expert(self) -> ReachExpert | UnsteadyExpert:
        steady = ReachExpert(speed_m=self.speed_m)
        if self.wander_m == self.rest_chance == 0:
            return steady
        return UnsteadyExpert(steady, wander_m=self.wander_m, rest_chance=self.rest_chance)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Scripted demonstrations of reaching the named cube with a simulated WidowX 250S."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS reads the class attribute)
    BUILDER_CONFIGS = [  # noqa: RUF012
        WidowXSimConfig(
            name="reach",
            description="1000 + 100, a steady hand.",
            train_episodes=1000,
            val_episodes=100,
        ),
        WidowXSimConfig(
            name="reach_small",
            description="20 + 5, a steady hand.",
            train_episodes=20,
            val_episodes=5,
        ),
        WidowXSimConfig(
            name="reach_train",
            description="300 + 30, a slower and unsteady hand.",
            train_episodes=300,
            val_episodes=30,
            speed_m=0.015,
            wander_m=0.003,
            rest_chance=0.04,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=bridge_features())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        config = self.builder_config
        first = config.first_episode_id
        return {
            "train": self._generate_examples(first, config.train_episodes),
            "val": self._generate_examples(first + _VAL_IDS, config.val_episodes),
        }

    def _generate_examples(self, first_id: int, count: int) -> Iterator[tuple[int, dict]]:
        for rollout in _demonstrations(self.builder_config.expert(), first_id, count):
            yield rollout.episode_id, example_from_episode(rollout.episode, rollout.episode_id)


def _demonstrations(
    expert: ReachExpert | UnsteadyExpert, first_id: int, count: int
) -> Iterator[Rollout]:
    """The first `count` episodes from an id on in which the expert succeeds."""
    succeeded, failed = 0, 0
    # TensorFlow is in this process, so MuJoCo must be in another.
    simulator = HelperProcess()
    while succeeded < count:
        next_id = first_id + succeeded + failed
        ids = range(next_id, next_id + min(_EPISODES_AT_A_TIME, count - succeeded))
        for rollout in simulator.call(record_rollouts, REACH_ID, expert, list(ids)):
            if rollout.success:
                succeeded += 1
                yield rollout
            else:
                failed += 1
        if failed > _FAILURES_ALLOWED + succeeded:
            raise RuntimeError(
                f"{REACH_ID}: expected the expert to succeed, it failed in {failed} of the "
                f"{succeeded + failed} episodes from {first_id} on; lower wander_m or rest_chance"
            )
    simulator.close()
