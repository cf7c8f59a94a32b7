"""The reach task as a Gymnasium environment: touch the cube whose colour the instruction names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.rule import Limits, compose
from canvas_robot.signals.pose import Pose
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.scene import COLOURS, Cube, Scene

CONTROL_PERIOD_S = 0.2

# Bridge's action box, and the workspace of config/bindings/widowx.yaml, so that one action means
# one command here and on a robot. Source of the box: bridge_data_robot, robot_base_env.py.
STEP_LIMITS = (0.05, 0.05, 0.05, 0.25, 0.25, 0.25)
LIMITS = Limits(
    step=STEP_LIMITS,
    box_low=(0.10, -0.20, 0.018),
    box_high=(0.45, 0.25, 0.30),
    rpy_low=(-0.8, -0.8, -1.57),
    rpy_high=(0.8, 0.8, 1.57),
)

# Where cubes may stand (m in `base_link`): seen by the camera, reached from above. Centres at least
# this far apart leave room for the closed gripper between them.
CUBES_LOW = (0.23, -0.08)
CUBES_HIGH = (0.37, 0.13)
CUBES_APART_M = 0.07


@dataclass(frozen=True, eq=False)
class Episode:
    """One start of the task; equal ids give equal episodes."""

    episode_id: int
    target: str
    cubes: dict[str, Pose]

    @property
    def instruction(self) -> str:
        return f"touch the {self.target} cube"


@final
class WidowXReachEnv(gymnasium.Env, gymnasium.utils.EzPickle):
    """Touch the cube whose colour the instruction names, with a WidowX 250S at 5 Hz.

    The first cube that a finger touches decides: the named one is success (reward 1), another one
    is failure (reward 0); either ends the episode. Physics runs at 500 Hz.

    Action (7,) float32: dx, dy, dz (m), droll, dpitch, dyaw (rad) of the previous *target* of
    `ee_gripper_link` about the axes of `base_link`, and the absolute gripper, 0 closed, 1 open.
    See `canvas_robot.kinematics.rule.compose`.

    | observation | shape, dtype | meaning |
    |---|---|---|
    | image | (256, 256, 3) uint8 | fixed camera, RGB, 640x480 squashed as in Bridge V2 |
    | state | (7,) float32 | Bridge V2's state, `Arm.measured_state` of the joints below |
    | joint_positions | (7,) float64 | measured: six arm joints (rad), left finger (m) |

    `info` always holds: success and is_success (bool, the same), instruction (str), episode_id
    (int), elapsed_steps (int). `reset(options={"episode_id": k})` with k >= 0 repeats the episode
    that reported k; without it the seed draws one.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(
        self,
        render_mode: str | None = None,
        colours: Sequence[str] = ("red", "blue"),
        shadows: bool = False,
        multisamples: int = 0,
    ) -> None:
        """colours: of the cubes, at least two of `canvas_robot.sim.scene.COLOURS`.

        shadows, multisamples: of every picture; see `canvas_robot.sim.scene.Scene`.
        """
        gymnasium.utils.EzPickle.__init__(self, render_mode, colours, shadows, multisamples)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode: expected None or one of {self.metadata['render_modes']}, "
                f"got {render_mode!r}"
            )
        if len(colours) < 2 or len(set(colours)) < len(colours) or not set(colours) <= set(COLOURS):
            raise ValueError(
                f"colours: expected at least two different ones of {sorted(COLOURS)}, got {colours}"
            )
        self.render_mode = render_mode
        self._arm = Arm.load("wx250s")
        self._cubes = tuple(Cube(colour, COLOURS[colour]) for colour in colours)
        self._sim = WidowXSim(self._arm, Scene(self._cubes, shadows, multisamples))
        self._steps_per_control = round(CONTROL_PERIOD_S / self._sim.timestep)
        self._episode: Episode | None = None
        self._elapsed_steps = 0
        self._touched: frozenset[str] = frozenset()
        self.action_space = spaces.Box(
            np.array([-limit for limit in STEP_LIMITS] + [0.0], dtype=np.float32),
            np.array([*STEP_LIMITS, 1.0], dtype=np.float32),
        )
        self.observation_space = _observation_space(self._arm)

    @property
    def sim(self) -> WidowXSim:
        """The physics, for scripted experts and reports; a policy sees only observations."""
        return self._sim

    @property
    def episode(self) -> Episode:
        """The current episode. Raises ResetNeeded before the first reset."""
        if self._episode is None:
            raise ResetNeeded("WidowXReachEnv: no episode yet; call reset() first")
        return self._episode

    @property
    def instruction(self) -> str:
        """The current goal in words, such as "touch the red cube"."""
        return self.episode.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"episode_id"}:
            raise ValueError(f"options: expected only 'episode_id', got {sorted(unknown)}")
        # Drawn in either case, so that the random stream does not depend on the options.
        drawn = int(self.np_random.integers(2**31))
        self._episode = draw_episode(self._cubes, options.get("episode_id", drawn))
        self._elapsed_steps = 0
        self._touched = frozenset()
        self._sim.reset(self._episode.cubes)
        return self._observe(), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        if self._episode is None or self._touched:
            raise ResetNeeded("WidowXReachEnv: the episode has ended; call reset() first")
        self._sim.command(compose(self._sim.target, action, LIMITS))
        self._elapsed_steps += 1
        for _ in range(self._steps_per_control):
            self._sim.step()
            self._touched = self._sim.fingertip_contacts()
            if self._touched:
                break
        info = self._info()
        return self._observe(), float(info["success"]), bool(self._touched), False, info

    def render(self) -> np.ndarray | None:
        """The fixed camera's picture (480, 640, 3) uint8, or None without a render mode."""
        return None if self.render_mode is None else self._sim.render(640, 480)

    def close(self) -> None:
        self._sim.close()

    def _observe(self) -> dict[str, np.ndarray]:
        joints, finger = self._sim.joints, self._sim.finger
        return {
            "image": self._sim.render(256, 256),
            "state": self._arm.measured_state(joints, finger),
            "joint_positions": np.append(joints, finger),
        }

    def _info(self) -> dict[str, Any]:
        success = self._touched == {self.episode.target}
        return {
            "success": success,
            "is_success": success,
            "instruction": self.instruction,
            "episode_id": self.episode.episode_id,
            "elapsed_steps": self._elapsed_steps,
        }


def draw_episode(cubes: Sequence[Cube], episode_id: int) -> Episode:
    """The episode of an id >= 0: a target colour, and places of the cubes that do not overlap."""
    if isinstance(episode_id, bool) or not isinstance(episode_id, int | np.integer):
        raise ValueError(f"episode_id: expected an integer >= 0, got {episode_id!r}")
    if episode_id < 0:
        raise ValueError(f"episode_id: expected an integer >= 0, got {episode_id}")
    random = np.random.default_rng(int(episode_id))
    target = cubes[random.integers(len(cubes))].name
    places: list[np.ndarray] = []
    while len(places) < len(cubes):
        place = random.uniform(CUBES_LOW, CUBES_HIGH)
        if all(np.linalg.norm(place - other) >= CUBES_APART_M for other in places):
            places.append(place)
    yaws = random.uniform(-np.pi / 4, np.pi / 4, size=len(cubes))
    poses = {
        cube.name: cube.resting(*place, yaw)
        for cube, place, yaw in zip(cubes, places, yaws, strict=True)
    }
    return Episode(int(episode_id), target, poses)


def _observation_space(arm: Arm) -> spaces.Dict:
    # Wider than the arm's reach (0.66 m) and its joint stops, which give a little when pressed.
    state_high = np.array([1.0, 1.0, 1.0, np.pi, np.pi, np.pi, 1.5], dtype=np.float32)
    state_low = np.append(-state_high[:6], np.float32(0.0))
    low, high = arm.finger_range
    return spaces.Dict(
        {
            "image": spaces.Box(0, 255, (256, 256, 3), np.uint8),
            "state": spaces.Box(state_low, state_high, dtype=np.float32),
            "joint_positions": spaces.Box(
                np.append(arm.lower - 0.1, low - 0.01),
                np.append(arm.upper + 0.1, high + 0.01),
                dtype=np.float64,
            ),
        }
    )
