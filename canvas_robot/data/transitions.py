"""From recorded steps to transitions: the rules by which data are chosen and actions are made.

What a step's action means, which steps and which episodes are left out: declared in DataRules, and
nowhere else. Cutting transitions into windows is windows.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import numpy as np

from canvas_robot.signals.pose import matrix_from_rpy, rpy_from_matrix

if TYPE_CHECKING:
    from canvas_robot.data.stored import StoredEpisode

OPEN_ABOVE, CLOSED_BELOW = 0.95, 0.05  # gripper targets that are settled


class RulesError(ValueError):
    """The rules do not fit the data: actions that are missing, or no episode that is kept."""


class DataRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How recorded steps become training data.

    actions: "composed": the pose change that was reached, as the controller's own command: position
        difference, and roll, pitch, yaw of R_next R^T about the base's axes, in (-pi, pi].
        "naive": differences of the stored numbers, angles included, as Octo and OpenVLA make them
        (up to 2 pi off where an angle wraps): for parity with published statistics. "recorded": as
        stored. The gripper of an action is the recorded target in all three.
    gripper: "settled": above 0.95 open (1), below 0.05 closed (0), in between what it settles to
        next. "raw": as stored.
    first_step: "drop" the first step: its recorded action is about 0, for nothing was asked yet.
    language: "skip" episodes whose instruction is blank.
    black: "skip" episodes without a picture from a camera that is needed.
    """

    actions: Literal["composed", "naive", "recorded"] = "composed"
    gripper: Literal["settled", "raw"] = "settled"
    first_step: Literal["drop", "keep"] = "drop"
    language: Literal["skip", "keep"] = "skip"
    black: Literal["skip", "keep"] = "skip"

    @property
    def relabelled(self) -> bool:
        """Whether actions are made from states, so that the last step has none."""
        return self.actions != "recorded"


class RecordedSteps(Protocol):
    """What the rules need of an episode: an `Episode` or a `StoredEpisode`."""

    name: str
    states: np.ndarray
    actions: np.ndarray | None


class IndexedEpisodes(Protocol):
    """What choosing needs of a dataset of N episodes: a `BridgeV2`.

    steps: (N,) of each episode; has_language: (N,) bool; pictures: (N, cameras) bool. achieved:
    whether its recorded actions are motions that were reached, not commands.
    """

    cameras: Sequence[str]
    steps: np.ndarray
    has_language: np.ndarray
    pictures: np.ndarray
    achieved: bool


@dataclass(frozen=True, eq=False)
class Transitions:
    """The n steps of an episode that have an action, consecutive ones.

    steps: (n,) int64, their numbers in the episode.
    states: (n, 7) float32, Bridge V2's state.
    actions: (n, 7) float32: dx, dy, dz (m), droll, dpitch, dyaw (rad), gripper target (0 closed, 1
        open).
    """

    steps: np.ndarray
    states: np.ndarray
    actions: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


def transitions(episode: StoredEpisode | RecordedSteps, rules: DataRules) -> Transitions:
    """The transitions of an episode under the rules; none where it is too short.

    Raises RulesError for an episode without recorded actions: the gripper's target is among them.
    """
    if episode.actions is None:
        raise RulesError(f"episode {episode.name!r}: expected actions (T, 7), got None")
    actions = np.array(episode.actions)
    if rules.gripper == "settled":
        actions[:, 6] = settled_gripper(actions[:, 6])
    if rules.relabelled:
        change = naive_change if rules.actions == "naive" else composed_change
        actions = np.concatenate([change(episode.states), actions[:-1, 6:]], axis=1)
    first = int(rules.first_step == "drop")
    steps = np.arange(first, max(first, len(actions)), dtype=np.int64)
    return Transitions(steps, episode.states[steps], actions[steps])


def count_of(steps: np.ndarray | int, rules: DataRules) -> np.ndarray:
    """Number of transitions of episodes of that many steps, int64; what `transitions` makes."""
    dropped = int(rules.first_step == "drop") + int(rules.relabelled)
    return np.maximum(np.asarray(steps, dtype=np.int64) - dropped, 0)


def composed_change(states: np.ndarray) -> np.ndarray:
    """(T, 7) states to (T - 1, 6) float32: what the controller would have been told to get there.

    Bridge's controller adds the position and turns about the base's axes, R = R(rpy) R_previous
    (rail-berkeley/bridge_data_robot, action2transform_local); so the rotation is R_next R^T. Its
    angles are in (-pi, pi].
    """
    rotations = matrix_from_rpy(states[:, 3:6])
    turns = rpy_from_matrix(rotations[1:] @ rotations[:-1].swapaxes(1, 2)).astype(np.float32)
    half_turn = np.float32(np.pi)
    turns[turns <= -half_turn] = half_turn
    return np.concatenate([states[1:, :3] - states[:-1, :3], turns], axis=1)


def naive_change(states: np.ndarray) -> np.ndarray:
    """(T, 7) states to (T - 1, 6) float32: differences of the numbers, angles too.

    Source: octo and openvla, relabel_actions. An angle that wraps makes a change of about 2 pi.
    """
    return states[1:, :6] - states[:-1, :6]


def settled_gripper(targets: np.ndarray) -> np.ndarray:
    """(T,) float32 gripper targets, each as what it settles to next: 1 open, 0 closed.

    Targets that never settle before the end are all given the last one's value. Source: octo,
    binarize_gripper_actions.
    """
    settled, carry = np.empty_like(targets), targets[-1]
    for step in reversed(range(len(targets))):
        if targets[step] > OPEN_ABOVE:
            carry = 1.0
        elif targets[step] < CLOSED_BELOW:
            carry = 0.0
        settled[step] = carry
    return settled


@dataclass(frozen=True, eq=False)
class Selection:
    """The episodes that rules keep.

    episodes: (n,) int64, their numbers in the dataset, rising.
    counts: (n,) int64, transitions of each, at least 1.
    left_out: by reason, how many episodes; one that has several reasons counts under the first.
    """

    episodes: np.ndarray
    counts: np.ndarray
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.episodes)


def chosen(dataset: IndexedEpisodes, rules: DataRules, cameras: Sequence[str]) -> Selection:
    """The episodes of a dataset that the rules keep, found from its index alone.

    Args:
        cameras: those whose pictures are needed.
    Raises:
        RulesError: a camera that the dataset lacks, no episode is kept, or motions that were
            reached would be taken for commands.
    """
    if dataset.achieved and not rules.relabelled:
        raise RulesError(
            "rules: actions: expected composed, for the recorded actions of this data set are "
            "motions that were reached, which act on the measured pose, got recorded; in a "
            "training's configuration set data.rules.actions=composed"
        )
    unknown = [camera for camera in cameras if camera not in dataset.cameras]
    if unknown:
        raise RulesError(f"cameras: expected some of {list(dataset.cameras)}, got {unknown}")
    counts = count_of(dataset.steps, rules)
    reasons = {"no transition: too few steps": counts == 0}
    if rules.language == "skip":
        reasons["blank instruction"] = ~dataset.has_language
    if rules.black == "skip":
        for camera in cameras:
            column = dataset.pictures[:, list(dataset.cameras).index(camera)]
            reasons[f"no picture from {camera}"] = ~column
    kept, left_out = np.ones(len(counts), dtype=bool), {}
    for reason, applies in reasons.items():
        left_out[reason] = int((kept & applies).sum())
        kept &= ~applies
    episodes = np.flatnonzero(kept)
    if not len(episodes):
        raise RulesError(
            f"rules: expected to keep an episode, got none of {len(counts)}; left out: {left_out}; "
            "keep them by the rules `language` and `black`, or choose another split or camera"
        )
    return Selection(episodes, counts[episodes], left_out)
