"""The one door to TensorFlow: imported on the CPU, in a process of its own."""

from __future__ import annotations

import os
from types import ModuleType

from canvas_robot.data.helper_process import HelperProcess

# Functions that import TensorFlow run here: `tensorflow_process.call(function, ...)`.
tensorflow_process = HelperProcess()


def import_tfds() -> ModuleType:
    """tensorflow_datasets, with TensorFlow kept off every GPU (it would reserve all of its memory).

    Call it in `tensorflow_process`, or in a process that TFDS's own command owns.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN announces itself before that level applies; decoding records does not use it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"RLDS data: expected tensorflow and tensorflow-datasets, got: {error}; "
            "install them with: pip install 'canvas_robot[rlds]'"
        ) from error
    tf.config.set_visible_devices([], "GPU")
    return tfds
