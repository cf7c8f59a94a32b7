"""Recorded Bridge V2 actions, executed open loop by our simulated arm and compared with the record.

The arm starts at the first recorded state, by inverse kinematics, and executes the recorded actions
by the rule and at the rate of the environments; nothing corrects it. How far its end effector ends
up from the recorded states tells whether frames, units, rotation order and gripper are Bridge's.

Figures are replay_figures.py's, pictures replay_plot.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.spatial.transform import Rotation

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.transitions import composed_change, naive_change
from canvas_robot.evaluation.replay_conventions import CONVENTIONS, RIGHT, Read
from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.rule import compose
from canvas_robot.signals.pose import pose_from_bridge_state
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.scene import Scene
from canvas_robot.sim.task import CONTROL_PERIOD_S, LIMITS
from canvas_robot.sim.workplace import TABLE_RESET

ROWS_PER_STEP = 10  # of a simulated track: one each 20 ms
ROW_S = CONTROL_PERIOD_S / ROWS_PER_STEP

# Actions made from the states that were reached, as policies are trained on; see `DataRules`.
RELABELLED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "composed": composed_change,
    "naive": naive_change,
}


class ReplayError(ValueError):
    """Nothing of a recording can be replayed."""


@dataclass(frozen=True, eq=False)
class Track:
    """An end effector over time.

    positions: (n, 3) m; rotations: (n, 3, 3); both of `ee_gripper_link` in `base_link`.
    gripper: (n,) on Bridge's state scale.
    """

    positions: np.ndarray
    rotations: np.ndarray
    gripper: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def at(self, rows: np.ndarray) -> Track:
        return Track(self.positions[rows], self.rotations[rows], self.gripper[rows])

    @classmethod
    def of_states(cls, states: np.ndarray) -> Track:
        """Of Bridge V2 states (n, 7)."""
        poses, grippers = zip(*map(pose_from_bridge_state, states), strict=True)
        return cls(
            np.stack([pose.position for pose in poses]),
            np.stack([pose.rotation for pose in poses]),
            np.array(grippers),
        )


@final
class ArmReplay:
    """A simulated arm on an empty table that executes recorded actions. Deterministic."""

    def __init__(self) -> None:
        self._arm = Arm.load("wx250s")
        self._sim = WidowXSim(self._arm, Scene(props=()))
        self._physics_steps = round(ROW_S / self._sim.timestep)

    def usable(self, states: np.ndarray) -> int:
        """How many of the first states (n, 7) lie within the limits, and can be reached at first.

        Recorded tables are of all heights, and ours is of one.
        """
        low = np.append(LIMITS.box_low, LIMITS.rpy_low)
        high = np.append(LIMITS.box_high, LIMITS.rpy_high)
        inside = ((states[:, :6] >= low) & (states[:, :6] <= high)).all(axis=1)
        count = len(states) if inside.all() else int(inside.argmin())
        return count if count and self._start(states[0]) else 0

    def run(
        self, first_state: np.ndarray, actions: np.ndarray, read: Read = CONVENTIONS[RIGHT].read
    ) -> Track:
        """The simulated track of actions (n, 7), from a state (7,): 1 + n * ROWS_PER_STEP rows.

        Row k * ROWS_PER_STEP is when action k begins. Raises ReplayError for a state that the arm
        cannot take.
        """
        if not self._start(first_state):
            raise ReplayError(f"first state: expected one in reach, got {first_state.tolist()}")
        sim, rows = self._sim, [self._row()]
        for action in np.asarray(actions, dtype=np.float64):
            sim.command(compose(sim.target, read(action, sim.target), LIMITS))
            for _ in range(ROWS_PER_STEP):
                sim.step(self._physics_steps)
                rows.append(self._row())
        positions, rotations, gripper = zip(*rows, strict=True)
        return Track(np.stack(positions), np.stack(rotations), np.array(gripper))

    def _start(self, state: np.ndarray) -> bool:
        """Puts the arm at rest at a state (7,), if it can be there."""
        pose, gripper = pose_from_bridge_state(state)
        solution = self._arm.inverse(pose, start=np.array(TABLE_RESET))
        finger = self._arm.finger_from_bridge_gripper(gripper)
        self._sim.reset({}, solution.joints, float(np.clip(finger, *self._arm.finger_range)))
        return solution.converged

    def _row(self) -> tuple[np.ndarray, np.ndarray, float]:
        hand = self._sim.end_effector
        gripper = self._arm.bridge_gripper_from_finger(self._sim.finger)
        return hand.position, hand.rotation, gripper


@dataclass(frozen=True, eq=False)
class Replayed:
    """One episode, recorded and replayed.

    recorded: of n states, the last of which the last replayed action led to.
    tracks: by reading, one of CONVENTIONS or RELABELLED: simulated, see `ArmReplay.run`.
    """

    number: int
    name: str
    instruction: str
    recorded: Track
    tracks: Mapping[str, Track]

    def offsets(self, reading: str, late: int) -> np.ndarray:
        """(n - 1, 3) m, simulated minus recorded positions, the former `late` rows earlier."""
        return self._simulated(reading, late).positions - self.recorded.positions[1:]

    def angles(self, reading: str, late: int) -> np.ndarray:
        """(n - 1,) rad, between simulated and recorded rotations."""
        simulated = Rotation.from_matrix(self._simulated(reading, late).rotations)
        return (simulated.inv() * Rotation.from_matrix(self.recorded.rotations[1:])).magnitude()

    def gripper_errors(self, reading: str, late: int) -> np.ndarray:
        """(n - 1,) on Bridge's state scale, simulated minus recorded."""
        return self._simulated(reading, late).gripper - self.recorded.gripper[1:]

    def _simulated(self, reading: str, late: int) -> Track:
        rows = ROWS_PER_STEP * np.arange(1, len(self.recorded)) - late
        return self.tracks[reading].at(np.maximum(rows, 0))


def replay_episodes(
    dataset: BridgeV2, numbers: Sequence[int], told: Callable[[str], None] = print
) -> list[Replayed]:
    """Replays those episodes in every reading, each for as long as it stays in the workspace.

    told: of each that is left out, and why. Raises ReplayError where none is left.
    """
    arm, replayed = ArmReplay(), []
    for number in numbers:
        stored = dataset.read(number)
        count = arm.usable(stored.states)
        if count < 2:
            told(f"{stored.name}: left out, it begins outside the workspace of the environments")
            continue
        states, actions = stored.states[:count], stored.actions[: count - 1]
        tracks = {
            name: arm.run(states[0], actions, convention.read)
            for name, convention in CONVENTIONS.items()
        }
        for name, change in RELABELLED.items():
            reached = np.concatenate([change(states), actions[:, 6:]], axis=1)
            tracks[name] = arm.run(states[0], reached)
        recorded = Track.of_states(states)
        replayed.append(Replayed(number, stored.name, stored.instruction, recorded, tracks))
    if not replayed:
        raise ReplayError(
            f"{dataset}: expected an episode that begins between {LIMITS.box_low.tolist()} and "
            f"{LIMITS.box_high.tolist()} m, got none among {len(numbers)}"
        )
    return replayed


def numbers_of(dataset: BridgeV2, episode: int, most: int) -> list[int]:
    """The episode of that number, or for -1 all, at most `most` spread evenly over the split.

    Raises ReplayError for a number that the split does not have.
    """
    if episode >= len(dataset):
        raise ReplayError(f"episode: expected one below {len(dataset)} of {dataset}, got {episode}")
    if episode >= 0:
        return [episode]
    count = min(len(dataset), most)
    return np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
