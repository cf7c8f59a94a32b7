"""TFDS builder of `widowx_sim`: demonstrations from scripted experts, in the layout of Bridge V2.

The features and the stored example are those of `canvas_robot.data.rlds`; only the choice of
episodes and of how the expert moves is made here.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import tensorflow_datasets as tfds

from canvas_robot.data.helper_process import HelperProcess
from canvas_robot.data.rlds import bridge_features, example_from_episode
from canvas_robot.evaluation.rollouts import Rollout, record_rollouts
from canvas_robot.sim.environment import all_settings
from canvas_robot.sim.experts import expert_for
from canvas_robot.sim.registration import ENV_IDS
from canvas_robot.sim.unsteady import Disturbance

_EPISODES_AT_A_TIME = 10
# Ids of val are those of train and this: no config has as many episodes.
_VAL_IDS = 1_000_000
# An expert that fails more often than it succeeds is broken, or its settings are.
_FAILURES_ALLOWED = 10

DISTURBED = {"noise_m": 0.006, "noise_rad": 0.02, "push_m": 0.03, "push_chance": 0.05}


@dataclasses.dataclass(kw_only=True)
class WidowXSimConfig(tfds.core.BuilderConfig):
    """Which episodes of which tasks are demonstrated, and how.

    tasks: names of `canvas_robot.sim.registration.ENV_IDS`.
    train_episodes, val_episodes: how many of each task.
    first_episode_id: train has this id and those after it, val the same ids plus a million. An id
        fixes the whole episode, so the two splits share none. An id at which the expert fails is
        passed over. Ids below 24 are the published poses of a Bridge task.
    speed_m: length of the expert's steps, metres; 0: its own.
    wander_m, rest_chance: what makes its hand unsteady, see `UnsteadyExpert`; 0: a steady one.
    disturb: what disturbs it, settings of `Disturbance`; none: nothing does.
    environment: keyword arguments of the environments beside their own, such as shadows.
    """

    tasks: tuple[str, ...] = ("reach",)
    train_episodes: int
    val_episodes: int
    first_episode_id: int = 0
    speed_m: float = 0.0
    wander_m: float = 0.0
    rest_chance: float = 0.0
    disturb: dict = dataclasses.field(default_factory=dict)
    environment: dict = dataclasses.field(default_factory=dict)

    def options(self, task: str) -> dict:
        """Keyword arguments of the task's environment."""
        stops = {} if task == "reach" else {"stop": "held"}
        return {**stops, **self.environment}

    def demonstrations(self, task: str, ids: list[int]) -> tuple:
        """Arguments of `record_rollouts`."""
        speed = {"speed_m": self.speed_m} if self.speed_m else {}
        unsteady = {"wander_m": self.wander_m, "rest_chance": self.rest_chance}
        noise = unsteady if any(unsteady.values()) else {}
        disturbance = Disturbance(**self.disturb) if self.disturb else None
        expert = expert_for(task, **speed, **noise)
        return ENV_IDS[task], expert, ids, disturbance, self.options(task)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Scripted demonstrations of a simulated WidowX 250S: reaching, and placing a thing."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {  # noqa: RUF012 (TFDS reads the class attribute)
        "1.0.0": "Reaching.",
        "1.1.0": "Placing tasks; disturbed hands; an episode may stand for several tasks.",
    }
    BUILDER_CONFIGS = [  # noqa: RUF012
        WidowXSimConfig(
            name="reach",
            description="1000 + 100, a steady hand.",
            train_episodes=1000,
            val_episodes=100,
            speed_m=0.02,
        ),
        WidowXSimConfig(
            name="reach_small",
            description="20 + 5, a steady hand.",
            train_episodes=20,
            val_episodes=5,
            speed_m=0.02,
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
        WidowXSimConfig(
            name="demo",
            description="1500 + 30 of reach and of cube_on_plate, a disturbed hand.",
            tasks=("reach", "cube_on_plate"),
            train_episodes=1500,
            val_episodes=30,
            first_episode_id=100,
            disturb=DISTURBED,
        ),
        WidowXSimConfig(
            name="tasks",
            description="800 + 40 of every task, a disturbed hand.",
            tasks=tuple(ENV_IDS),
            train_episodes=800,
            val_episodes=40,
            first_episode_id=100,
            disturb=DISTURBED,
        ),
        WidowXSimConfig(
            name="tasks_small",
            description="4 + 1 of every task, a steady hand.",
            tasks=tuple(ENV_IDS),
            train_episodes=4,
            val_episodes=1,
            first_episode_id=100,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        made = {
            ENV_IDS[task]: all_settings(task=task, **config.options(task)) for task in config.tasks
        }
        return self.dataset_info_from_configs(
            features=bridge_features(), metadata=tfds.core.MetadataDict(environments=made)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        config = self.builder_config
        first = config.first_episode_id
        return {
            "train": self._generate_examples(first, config.train_episodes),
            "val": self._generate_examples(first + _VAL_IDS, config.val_episodes),
        }

    def _generate_examples(self, first_id: int, count: int) -> Iterator[tuple[str, dict]]:
        with Simulators() as simulators:
            for task in self.builder_config.tasks:
                made = _demonstrations(self.builder_config, task, first_id, count, simulators)
                for rollout in made:
                    key = f"{task}_{rollout.episode_id}"
                    yield key, example_from_episode(rollout.episode, rollout.episode_id)


class Simulators:
    """Processes that run MuJoCo, for TensorFlow is in this one; a thread waits for each."""

    def __enter__(self) -> Simulators:
        self._processes = [HelperProcess() for _ in range(os.cpu_count() or 1)]
        self._threads = [ThreadPoolExecutor(max_workers=1) for _ in self._processes]
        return self

    def __exit__(self, *_: object) -> None:
        for threads in self._threads:
            threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()

    def rollouts(self, config: WidowXSimConfig, task: str, first_id: int) -> Iterator[Rollout]:
        """Of every id from `first_id` on, in their order, without end; a few are run ahead."""
        coming: deque[Future] = deque()
        for number in itertools.count():
            place = number % len(self._processes)
            start = first_id + number * _EPISODES_AT_A_TIME
            ids = list(range(start, start + _EPISODES_AT_A_TIME))
            words = (record_rollouts, *config.demonstrations(task, ids))
            coming.append(self._threads[place].submit(self._processes[place].call, *words))
            if len(coming) == len(self._processes):
                yield from coming.popleft().result()


def _demonstrations(
    config: WidowXSimConfig, task: str, first_id: int, count: int, simulators: Simulators
) -> Iterator[Rollout]:
    """The first `count` episodes of a task from an id on in which the expert succeeds."""
    succeeded, failed = 0, 0
    for rollout in simulators.rollouts(config, task, first_id):
        if rollout.success:
            succeeded += 1
            yield rollout
        else:
            failed += 1
        if succeeded == count:
            return
        if failed > _FAILURES_ALLOWED + succeeded:
            raise RuntimeError(
                f"{task}: expected the expert to succeed, it failed in {failed} of the "
                f"{succeeded + failed} episodes from {first_id} on; lower wander_m, rest_chance or "
                "what disturbs it"
            )
