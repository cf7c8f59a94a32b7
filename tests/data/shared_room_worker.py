"""What test_shared_room.py runs in a spawned process, which finds it by this module's name."""

import numpy as np


def write_twice(room, pipe):
    """A worker: something small, then something large."""
    for size in (10, 3_000_000):
        pipe.send(room.write(1, 0, [np.full(size, size % 251, np.uint8), np.array(size)]))
        pipe.recv()
