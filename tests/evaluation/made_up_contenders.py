"""Contenders in a module of their own: their processes import it by name."""

import os

import numpy as np


def counting(setting, step):
    """Hands out `step` windows at a time, as fast as it can."""
    while True:
        yield step


def holding(setting, megabytes):
    """Keeps so much memory that was written to."""
    kept = np.ones(megabytes * 1_000_000, np.uint8)
    while True:
        yield len(kept) // len(kept)


def cores(setting):
    """Hands out as many windows as it may use cores."""
    while True:
        yield len(os.sched_getaffinity(0))


def failing(setting):
    raise OSError("stored bytes are damaged")
    yield
