"""TFDS builder of `bridge_v2`: Bridge V2's raw recordings in the layout of `bridge_dataset` 1.0.0.

raw_trajectories.py reads the recordings; the features are those of `canvas_robot.data.rlds`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from canvas_robot.data.episode import Episode
from canvas_robot.data.layout import CAMERAS
from canvas_robot.data.rlds import STEP_NS, bridge_features, example_from_episode

from .raw_trajectories import (
    DamagedTrajectoryError,
    RawDataError,
    RawEpisode,
    RawTrajectory,
    find_collections,
    read_trajectory,
    split_collection,
)

# Decoding and squashing pictures leaves Python's lock; an episode of 4 cameras takes 30 MB.
_READERS = 8


class Builder(tfds.core.GeneratorBasedBuilder):
    """Bridge V2 from its raw recordings, pictures squashed to 256x256."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS reads the class attribute)
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Unpack demos_8_17.zip and scripted_6_18.zip of
    https://rail.eecs.berkeley.edu/datasets/bridge_release/data/ and give their folder.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=bridge_features())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        root = Path(dl_manager.manual_dir)
        splits = [split_collection(found) for found in find_collections(root)]
        if not splits:
            raise RawDataError(
                f"{root}: expected folders such as .../2022-01-31_12-00-00/raw/traj_group0/traj0 "
                "in it, got none; give the folder of the unpacked archives with --manual_dir"
            )
        chosen = {
            "train": [one for train, _ in splits for one in train],
            "val": [one for _, val in splits for one in val],
        }
        return {name: self._generate_examples(found) for name, found in chosen.items() if found}

    def _generate_examples(self, trajectories: list[RawTrajectory]) -> Iterator[tuple[str, dict]]:
        damaged = 0
        with ThreadPoolExecutor(_READERS) as pool:
            for first in range(0, len(trajectories), _READERS):
                some = trajectories[first : first + _READERS]
                for trajectory, episode in zip(some, pool.map(_read, some), strict=True):
                    if isinstance(episode, DamagedTrajectoryError):
                        damaged += 1
                        logging.warning("left out: %s", episode)
                    else:
                        yield trajectory.name, _example(trajectory.name, episode)
        if damaged:
            logging.warning("left out %d of %d trajectories", damaged, len(trajectories))


def _read(trajectory: RawTrajectory) -> RawEpisode | DamagedTrajectoryError:
    try:
        return read_trajectory(trajectory)
    except DamagedTrajectoryError as error:
        return error


def _example(name: str, raw: RawEpisode) -> dict:
    episode = Episode(
        name=name,
        instruction=raw.instruction,
        images=raw.pictures[0],
        states=raw.states,
        actions=raw.actions,
        stamps_ns=np.arange(len(raw.states), dtype=np.int64) * STEP_NS,
    )
    example = example_from_episode(episode, episode_id=0)
    for number, pictures in raw.pictures.items():
        example["episode_metadata"][f"has_{CAMERAS[number]}"] = True
        for step, picture in zip(example["steps"], pictures, strict=True):
            step["observation"][CAMERAS[number]] = picture
    return example
