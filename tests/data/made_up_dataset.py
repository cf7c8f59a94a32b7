"""A dataset in memory, in a module of its own: worker processes import it by name."""

import sys

import cv2
import numpy as np
import torch


class MadeUpEpisode:
    """Steps that can be told apart: a picture says its camera, episode and step."""

    def __init__(self, number: int, length: int, cameras: tuple[str, ...]) -> None:
        random = np.random.default_rng(number)
        self.name, self.instruction = f"made up/{number}", f"do {number}"
        self.states = random.uniform(-0.4, 0.4, (length, 7)).astype(np.float32)
        self.actions = random.uniform(0, 1, (length, 7)).astype(np.float32)
        self._number, self._cameras = number, cameras

    def __len__(self) -> int:
        return len(self.states)

    def images(self, camera: str, steps) -> np.ndarray:
        says = [(self._cameras.index(camera), self._number, int(step)) for step in steps]
        return np.broadcast_to(
            np.array(says, np.uint8)[:, None, None, :], (len(says), 4, 6, 3)
        ).copy()


class MadeUpDataset:
    """Episodes of these lengths."""

    cameras = ("image_0", "image_1")
    camera = "image_0"
    fingerprint = "f" * 64

    def __init__(self, *lengths: int) -> None:
        self.steps = np.array(lengths, np.int32)
        self.has_language = np.ones(len(lengths), bool)
        self.achieved = False
        self.pictures = np.ones((len(lengths), 2), bool)
        self.reads: list[int] = []
        self.decoded: list[tuple[int, str, int]] = []

    def __len__(self) -> int:
        return len(self.steps)

    def name(self, index: int) -> str:
        return f"made up/{index}"

    def read(self, index: int) -> MadeUpEpisode:
        self.reads.append(index)
        return MadeUpEpisode(index, int(self.steps[index]), self.cameras)

    def images(self, index: int, camera: str, steps) -> np.ndarray:
        self.decoded += [(index, camera, int(step)) for step in steps]
        return MadeUpEpisode(index, int(self.steps[index]), self.cameras).images(camera, steps)


class Damaged(MadeUpDataset):
    """Its third episode cannot be read."""

    def read(self, index: int) -> MadeUpEpisode:
        if index == 2:
            raise OSError("stored bytes are damaged")
        return super().read(index)


class AboutItsProcess(MadeUpDataset):
    """Instructions that tell of the process that reads them."""

    def read(self, index: int) -> MadeUpEpisode:
        episode = super().read(index)
        has_tensorflow = "tensorflow" in sys.modules
        threads = torch.get_num_threads(), cv2.getNumThreads()
        episode.instruction = f"TensorFlow: {has_tensorflow}, threads: {threads}"
        return episode
