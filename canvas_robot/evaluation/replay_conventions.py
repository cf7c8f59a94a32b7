"""What recorded Bridge V2 actions could mean: the right reading, wrong ones, and no motion.

Replayed side by side, they show what an error proves: a small one counts only where a wrong axis, a
wrong unit or standing still gives a large one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from canvas_robot.signals.pose import (
    BRIDGE_DEFAULT_ROTATION,
    Pose,
    matrix_from_rpy,
    rpy_from_matrix,
)

Read = Callable[[np.ndarray, Pose], np.ndarray]

POSITION, ROTATION, GRIPPER = "position", "rotation", "gripper"


@dataclass(frozen=True)
class Convention:
    """One reading of recorded actions.

    read: from a recorded action (7,) and the previous target to the action (7,) that is executed.
    wrong: which parts of the motion it gets wrong: POSITION, ROTATION, GRIPPER.
    """

    meaning: str
    read: Read
    wrong: frozenset[str]


def _scaled(position: float, rotation: float) -> Read:
    factors = np.array([position] * 3 + [rotation] * 3 + [1.0])
    return lambda action, _: action * factors


def _signed(*signs: int) -> Read:
    factors = np.array([*signs, 1.0])
    return lambda action, _: action * factors


def _picked(*places: int) -> Read:
    return lambda action, _: action[[*places, 6]]


def _in_hand(action: np.ndarray, previous: Pose) -> np.ndarray:
    """The action about base_link's axes of one about the hand's, which point down as Bridge's 0."""
    hand = previous.rotation @ BRIDGE_DEFAULT_ROTATION.T
    turn = hand @ matrix_from_rpy(action[3:6]) @ hand.T
    return np.concatenate([hand @ action[:3], rpy_from_matrix(turn), action[6:]])


def _reversed_gripper(action: np.ndarray, _: Pose) -> np.ndarray:
    return np.append(action[:6], 1.0 - action[6])


RIGHT = "as recorded"

CONVENTIONS: dict[str, Convention] = {
    name: Convention(meaning, read, frozenset(wrong))
    for name, meaning, read, wrong in (
        (RIGHT, "metres, radians, about base_link's axes", _scaled(1, 1), ()),
        ("no motion", "the arm stands still", _scaled(0, 0), (POSITION, ROTATION)),
        ("x, y swapped", "the first is to the left", _picked(1, 0, 2, 3, 4, 5), (POSITION,)),
        ("y mirrored", "dy is to the right", _signed(1, -1, 1, 1, 1, 1), (POSITION,)),
        ("z mirrored", "dz is down", _signed(1, 1, -1, 1, 1, 1), (POSITION,)),
        ("degrees", "the angles are degrees", _scaled(1, np.pi / 180), (ROTATION,)),
        ("turned back", "the angles are reversed", _signed(1, 1, 1, -1, -1, -1), (ROTATION,)),
        ("roll, yaw swapped", "yaw is first", _picked(0, 1, 2, 5, 4, 3), (ROTATION,)),
        ("hand's axes", "about the hand's own axes", _in_hand, (POSITION, ROTATION)),
        ("gripper reversed", "1 is closed", _reversed_gripper, (GRIPPER,)),
    )
}
