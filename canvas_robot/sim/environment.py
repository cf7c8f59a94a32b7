"""The Gymnasium environment: one class, one task by name, a WidowX 250S at 5 Hz."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, final

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.rule import compose
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.scene import Scene
from canvas_robot.sim.task import CONTROL_PERIOD_S, LIMITS, STEP_LIMITS, Episode, Judge, Task
from canvas_robot.sim.tasks import task_named
from canvas_robot.sim.variation import Look, Painter, Variation

OBSERVATIONS = ("image", "state")
STOPS = ("limit", "held")
_LARGEST_PICTURE = (960, 1280)


@final
class WidowXEnv(gymnasium.Env, gymnasium.utils.EzPickle):
    """A task of `canvas_robot.sim.tasks`, with a WidowX 250S under Bridge V2's controller rule.

    Action (7,) float32: dx, dy, dz (m), droll, dpitch, dyaw (rad) of the previous *target* of
    `ee_gripper_link` about the axes of `base_link`, and the absolute gripper, 0 closed, 1 open.
    See `canvas_robot.kinematics.rule.compose`.

    | observation | shape, dtype | meaning |
    |---|---|---|
    | image | (256, 256, 3) uint8 | fixed camera, RGB, 640x480 squashed as in Bridge V2 |
    | state | (7,) float32 | Bridge V2's state, `Arm.measured_state` of the joints below |
    | joint_positions | (7,) float64 | measured: six arm joints (rad), left finger (m) |

    `info` always holds: success and is_success (bool, the same: the task's rule holds now),
    success_any (it held at some step), instruction (str), episode_id (int), elapsed_steps (int).
    Placing tasks add success_held (released, the gripper over 5 cm away, and one second later
    still there), grasped, moved_correct and moved_wrong; see `canvas_robot.sim.success`.

    The reward is 1.0 while the rule holds, else 0.0. Reach ends with the first cube touched, see
    `canvas_robot.sim.reach`; a placing task runs to its step limit, or with stop="held" until
    success_held.

    `reset(options={"episode_id": k})` with k >= 0 repeats the episode that reported k; without it
    the seed draws one, never a published one. In reach `"target": colour` asks for another cube of
    the same scene.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(
        self,
        task: str = "reach",
        render_mode: str | None = None,
        colours: Sequence[str] | None = None,
        obs: str = "image",
        image_size: Sequence[int] = (256, 256),
        shadows: bool = False,
        multisamples: int = 0,
        physics_hz: int = 500,
        stop: str = "limit",
        action_delay: float | Sequence[float] = 0.0,
        camera_jitter: float = 0.0,
        lighting: float = 0.0,
        table_texture: bool = False,
        distractors: int = 0,
    ) -> None:
        """task: one of `canvas_robot.sim.tasks.TASK_NAMES`. colours: of reach's cubes.

        obs: "image", or "state" for no image and no rendering. image_size: (height, width).
        shadows, multisamples: of every picture; see `canvas_robot.sim.scene.Scene`.
        physics_hz: 500 or 250. stop: "limit" or "held", see above.
        action_delay and all after it: see `canvas_robot.sim.variation.Variation`.
        """
        gymnasium.utils.EzPickle.__init__(
            self, task, render_mode, colours, obs, image_size, shadows, multisamples, physics_hz,
            stop, action_delay, camera_jitter, lighting, table_texture, distractors,
        )  # fmt: skip
        _check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        _check_choice("obs", obs, OBSERVATIONS)
        _check_choice("stop", stop, STOPS)
        for name, value in (("shadows", shadows), ("table_texture", table_texture)):
            _check_kind(name, value, bool, "true or false")
        for name, value in (("multisamples", multisamples), ("distractors", distractors)):
            _check_kind(name, value, int, "a whole number")
        self.render_mode = render_mode
        self._task = task_named(task, colours)
        self._variation = Variation(
            action_delay, camera_jitter, lighting, table_texture, distractors
        )
        self._shows, self._stop = obs == "image", stop
        self._image_size = _image_size(image_size)
        self._arm = Arm.load("wx250s")
        scene = Scene(
            (*self._task.props, *self._variation.props),
            self._task.workplace,
            shadows,
            multisamples,
            physics_hz,
            self._variation.tables,
        )
        self._sim = WidowXSim(self._arm, scene)
        self._painter = Painter(self._sim)
        self._steps_per_control = round(CONTROL_PERIOD_S / self._sim.timestep)
        self._episode: Episode | None = None
        self._look: Look | None = None
        self._judge: Judge | None = None
        self._ended = True
        self._elapsed_steps = 0
        self.action_space = spaces.Box(
            np.array([-limit for limit in STEP_LIMITS] + [0.0], dtype=np.float32),
            np.array([*STEP_LIMITS, 1.0], dtype=np.float32),
        )
        self.observation_space = _observation_space(
            self._arm, self._image_size if self._shows else None
        )

    @property
    def task(self) -> Task:
        return self._task

    @property
    def sim(self) -> WidowXSim:
        """The physics, for scripted experts and reports; a policy sees only observations."""
        return self._sim

    @property
    def episode(self) -> Episode:
        """The current episode. Raises ResetNeeded before the first reset."""
        if self._episode is None:
            raise ResetNeeded("WidowXEnv: no episode yet; call reset() first")
        return self._episode

    @property
    def look(self) -> Look:
        """The variation of the current episode. Raises ResetNeeded before the first reset."""
        if self._look is None:
            raise ResetNeeded("WidowXEnv: no episode yet; call reset() first")
        return self._look

    @property
    def instruction(self) -> str:
        """The current goal in words, such as "touch the red cube"."""
        return self.episode.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"episode_id", "target"}:
            raise ValueError(
                f"options: expected 'episode_id' and 'target' only, got {sorted(unknown)}"
            )
        # Drawn in either case, so that the random stream does not depend on the options.
        drawn = int(self.np_random.integers(self._task.published, 2**31))
        episode_id = _episode_id(options.get("episode_id", drawn))
        self._episode = self._task.episode(episode_id, options.get("target"))
        self._look = self._variation.draw(
            episode_id, self._episode.poses, self._task.props, self._task.workplace
        )
        self._painter.apply(self._look)
        self._sim.reset({**self._episode.poses, **self._look.distractors})
        self._judge = self._task.judge(self._episode, self._sim)
        self._ended = False
        self._elapsed_steps = 0
        return self._observe(), self._info()

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        if self._judge is None or self._ended:
            raise ResetNeeded("WidowXEnv: the episode has ended; call reset() first")
        command = compose(self._sim.target, action, LIMITS)
        self._elapsed_steps += 1
        late = round(self._look.action_delay_s / self._sim.timestep)
        self._judge.watch(self._sim, late)
        if not self._judge.ended:
            self._sim.command(command)
            self._judge.watch(self._sim, self._steps_per_control - late)
        self._judge.note(self._sim)
        info = self._info()
        held = self._stop == "held" and info.get("success_held", False)
        self._ended = self._judge.ended or held
        return self._observe(), float(info["success"]), self._ended, False, info

    def render(self) -> np.ndarray | None:
        """The fixed camera's picture (480, 640, 3) uint8, or None without a render mode."""
        return None if self.render_mode is None else self._sim.render(640, 480)

    def close(self) -> None:
        self._sim.close()

    def _observe(self) -> dict[str, np.ndarray]:
        joints, finger = self._sim.joints, self._sim.finger
        observation = {
            "state": self._arm.measured_state(joints, finger),
            "joint_positions": np.append(joints, finger),
        }
        if self._shows:
            height, width = self._image_size
            return {"image": self._sim.render(width, height), **observation}
        return observation

    def _info(self) -> dict[str, Any]:
        verdict = self._judge.verdict()
        return {
            **verdict,
            "is_success": verdict["success"],
            "instruction": self.instruction,
            "episode_id": self.episode.episode_id,
            "elapsed_steps": self._elapsed_steps,
        }


def _check_kind(name: str, value: object, kind: type, said: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name}: expected {said}, got {value!r}")


def _check_choice(name: str, value: object, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)}, got {value!r}")


def _image_size(size: Sequence[int]) -> tuple[int, int]:
    largest = _LARGEST_PICTURE
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(
            isinstance(n, int | np.integer) and 8 <= n <= most
            for n, most in zip(size, largest, strict=False)
        )
    ):
        raise ValueError(
            f"image_size: expected (height, width) from (8, 8) to {largest}, got {size}"
        )
    return int(size[0]), int(size[1])


def _episode_id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"episode_id: expected an integer >= 0, got {value!r}")
    return int(value)


def _observation_space(arm: Arm, image_size: tuple[int, int] | None) -> spaces.Dict:
    # Wider than the arm's reach (0.66 m) and its joint stops, which give a little when pressed.
    state_high = np.array([1.0, 1.0, 1.0, np.pi, np.pi, np.pi, 1.5], dtype=np.float32)
    state_low = np.append(-state_high[:6], np.float32(0.0))
    low, high = arm.finger_range
    observed = {
        "state": spaces.Box(state_low, state_high, dtype=np.float32),
        "joint_positions": spaces.Box(
            np.append(arm.lower - 0.1, low - 0.01),
            np.append(arm.upper + 0.1, high + 0.01),
            dtype=np.float64,
        ),
    }
    if image_size is not None:
        observed["image"] = spaces.Box(0, 255, (*image_size, 3), np.uint8)
    return spaces.Dict(observed)


def all_settings(**given: Any) -> dict[str, Any]:
    """The keyword arguments of a WidowXEnv, those that were not given included: for a record.

    Raises TypeError for one that it does not have.
    """
    signature = inspect.signature(WidowXEnv.__init__)
    bound = signature.bind(None, **given)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name != "self"}
