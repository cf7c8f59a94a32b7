"""Writes a small data set with the features of Open X-Embodiment's bridge 0.1.0 to `data_dir`.

Run in TensorFlow's process by test_oxe.py, which sets data_dir. The features: openvla's
bridge_oxe_dataset_transform and the data set's own features.json.
"""

import tempfile

import numpy as np
import tensorflow_datasets as tfds

HEIGHT, WIDTH, EMBEDDING = 48, 64, 512
features = tfds.features


def picture():
    return features.Image(shape=(HEIGHT, WIDTH, 3), dtype=np.uint8, encoding_format="jpeg")


def vector(size):
    return features.Tensor(shape=(size,), dtype=np.float32)


STEPS = features.Dataset(
    {
        "action": {
            "open_gripper": np.bool_,
            "rotation_delta": vector(3),
            "terminate_episode": np.float32,
            "world_vector": vector(3),
        },
        "is_first": np.bool_,
        "is_last": np.bool_,
        "is_terminal": np.bool_,
        "observation": {
            "image": picture(),
            "image_1": picture(),
            "natural_language_embedding": vector(EMBEDDING),
            "natural_language_instruction": features.Text(),
            "state": vector(7),
        },
        "reward": np.float32,
    }
)


def step(episode, number, steps):
    return {
        "action": {
            "open_gripper": number % 2 == 0,
            "rotation_delta": np.float32([4, 5, 6]) + number,
            "terminate_episode": float(number == steps - 1),
            "world_vector": np.float32([1, 2, 3]) + number,
        },
        "is_first": number == 0,
        "is_last": number == steps - 1,
        "is_terminal": number == steps - 1,
        "observation": {
            "image": np.random.default_rng(number).integers(
                0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8
            ),
            "image_1": np.zeros((HEIGHT, WIDTH, 3), np.uint8),
            "natural_language_embedding": np.zeros(EMBEDDING, np.float32),
            "natural_language_instruction": "" if episode == 1 else f"move {episode}",
            "state": np.full(7, number, np.float32),
        },
        "reward": float(number == steps - 1),
    }


tfds.disable_progress_bar()
with tempfile.TemporaryDirectory() as unused:
    tfds.dataset_builders.AdhocBuilder(
        name="bridge",
        version="0.1.0",
        features=features.FeaturesDict({"steps": STEPS}),
        split_datasets={
            "train": [
                (k, {"steps": [step(k, number, k + 2) for number in range(k + 2)]})
                for k in range(3)
            ]
        },
        data_dir=data_dir,  # noqa: F821 (set by who runs this)
        disable_shuffling=True,
    ).download_and_prepare(download_dir=unused)
