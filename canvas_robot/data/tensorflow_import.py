"""The one door to TensorFlow: imported when first called, on the CPU, and quiet."""

from __future__ import annotations

import os
from types import ModuleType


def import_tfds() -> ModuleType:
    """tensorflow_datasets, with TensorFlow kept off every GPU (it would reserve all of its memory).

    Call it in the process that reads: TensorFlow does not survive a fork.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN announces itself before TensorFlow's log level applies; decoding records does not use
    # it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")
    return tfds
