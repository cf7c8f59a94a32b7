"""TFDS builder of `widowx_sim`: demonstrations from a scripted expert, in the layout of Bridge V2.

Run `tfds build` in this folder. The features and the stored example are those of
`canvas_robot.data.rlds`; only the choice of episodes is made here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import tensorflow_datasets as tfds

from canvas_robot.data.helper_process import HelperProcess
from canvas_robot.data.rlds import bridge_features, example_from_episode
from canvas_robot.evaluation.rollouts import record_rollouts
from canvas_robot.sim.experts import ReachExpert
from canvas_robot.sim.registration import REACH_ID

_EPISODES_AT_A_TIME = 20


@dataclasses.dataclass(kw_only=True)
class WidowXSimConfig(tfds.core.BuilderConfig):
    """Which episodes of `canvas_robot/WidowXReach-v0` are demonstrated.

    train_episodes, val_episodes: how many of each.
    first_episode_id: the ids are this one and those after it: first train, then val. An id fixes
        the whole episode, so the two splits share none.
    """

    train_episodes: int
    val_episodes: int
    first_episode_id: int = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """Scripted demonstrations of reaching the named cube with a simulated WidowX 250S."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS reads the class attribute)
    BUILDER_CONFIGS = [  # noqa: RUF012
        WidowXSimConfig(
            name="reach", description="1000 + 100.", train_episodes=1000, val_episodes=100
        ),
        WidowXSimConfig(
            name="reach_small", description="20 + 5.", train_episodes=20, val_episodes=5
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=bridge_features())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        config = self.builder_config
        first_val = config.first_episode_id + config.train_episodes
        return {
            "train": self._generate_examples(range(config.first_episode_id, first_val)),
            "val": self._generate_examples(range(first_val, first_val + config.val_episodes)),
        }

    def _generate_examples(self, episode_ids: range) -> Iterator[tuple[int, dict]]:
        # TensorFlow is in this process, so MuJoCo must be in another.
        simulator = HelperProcess()
        for first in range(0, len(episode_ids), _EPISODES_AT_A_TIME):
            ids = list(episode_ids[first : first + _EPISODES_AT_A_TIME])
            for rollout in simulator.call(record_rollouts, REACH_ID, ReachExpert(), ids):
                if not rollout.success:
                    raise RuntimeError(
                        f"{REACH_ID} episode {rollout.episode_id}: expected the expert to "
                        "succeed, it failed; every stored episode must be a demonstration"
                    )
                yield rollout.episode_id, example_from_episode(rollout.episode, rollout.episode_id)
        simulator.close()
