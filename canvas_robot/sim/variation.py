"""What may differ between episodes beside the task's poses: delay, camera, light, table, clutter.

Everything is drawn from the episode's id alone, in a stream of its own: with or without variation,
an id has the same poses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np

from canvas_robot.signals.pose import Pose
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.props import Prop
from canvas_robot.sim.scene import CAMERA, TABLE_GEOM, table_material, wxyz_from_matrix
from canvas_robot.sim.textures import TEXTURES
from canvas_robot.sim.things import DISTRACTORS
from canvas_robot.sim.workplace import TABLE_TOP_M, Workplace

LONGEST_DELAY_S = 0.2
WIDEST_JITTER_M = 0.1

_STREAM = 2  # of the episode's id: the unsteady hand's is 1
_PARKED_X = -1.5  # behind the camera
# Clear of a distractor's circle: around what a task is about, for the open gripper; around others.
_HAND_M, _APART_M = 0.075, 0.02
_TRIES = 200


@dataclass(frozen=True)
class Variation:
    """How far episodes may differ; every default is off.

    action_delay: seconds from an observation to the start of the motion that answers it, a number
        or (low, high) to draw from, at most 0.2.
    camera_jitter: metres by which the camera, and the point it looks at, move along each axis.
    lighting: 0 to 1, share by which the lights' strength, colour and direction change.
    table_texture: whether the table's top is drawn among those of `textures.TEXTURES`, and tinted.
    distractors: up to so many things that the task is not about stand around, 0 to 4.
    """

    action_delay: float | tuple[float, float] = 0.0
    camera_jitter: float = 0.0
    lighting: float = 0.0
    table_texture: bool = False
    distractors: int = 0

    def __post_init__(self) -> None:
        low, high = self.delays
        if not 0.0 <= low <= high <= LONGEST_DELAY_S:
            raise ValueError(
                f"action_delay: expected 0 <= low <= high <= {LONGEST_DELAY_S} s, "
                f"got {self.action_delay}"
            )
        if not 0.0 <= self.camera_jitter <= WIDEST_JITTER_M:
            raise ValueError(
                f"camera_jitter: expected 0 to {WIDEST_JITTER_M} m, got {self.camera_jitter}"
            )
        if not 0.0 <= self.lighting <= 1.0:
            raise ValueError(f"lighting: expected 0 to 1, got {self.lighting}")
        if not 0 <= self.distractors <= len(DISTRACTORS):
            raise ValueError(
                f"distractors: expected 0 to {len(DISTRACTORS)}, got {self.distractors}"
            )

    @property
    def delays(self) -> tuple[float, float]:
        """(low, high) in seconds."""
        if isinstance(self.action_delay, Sequence):
            if len(self.action_delay) != 2:
                raise ValueError(
                    f"action_delay: expected a number or (low, high), got {self.action_delay}"
                )
            return float(self.action_delay[0]), float(self.action_delay[1])
        return float(self.action_delay), float(self.action_delay)

    @property
    def props(self) -> tuple[Prop, ...]:
        """The distractors that the scene must hold."""
        return DISTRACTORS[: self.distractors]

    @property
    def tables(self) -> int:
        """How many textures the scene's table must be able to take on."""
        return len(TEXTURES) if self.table_texture else 1

    def draw(
        self, episode_id: int, poses: Mapping[str, Pose], props: Sequence[Prop], place: Workplace
    ) -> Look:
        """What this episode looks like. poses, props: of the task; distractors keep away."""
        random = np.random.default_rng([episode_id, _STREAM])
        return Look(
            action_delay_s=float(random.uniform(*self.delays)),
            camera_shift=random.uniform(-1, 1, 3) * self.camera_jitter,
            aim_shift=random.uniform(-1, 1, 3) * self.camera_jitter,
            brightness=1 + 0.5 * self.lighting * random.uniform(-1, 1, 2),
            hue=1 + 0.25 * self.lighting * random.uniform(-1, 1, 3),
            turn=0.6 * self.lighting * random.uniform(-1, 1, (2, 3)),
            table=int(random.integers(self.tables)),
            tint=random.uniform(0.6, 1.0, 3) if self.table_texture else np.ones(3),
            distractors=self._scattered(random, poses, props, place),
            colours={prop.name: random.uniform(0.3, 0.7, 3) for prop in self.props},
        )

    def _scattered(
        self,
        random: np.random.Generator,
        poses: Mapping[str, Pose],
        props: Sequence[Prop],
        place: Workplace,
    ) -> dict[str, Pose]:
        """A pose of every distractor; those that this episode leaves out lie out of sight."""
        shown = int(random.integers(self.distractors, endpoint=True))
        clear = [(poses[prop.name].position[:2], prop.radius + _HAND_M) for prop in props]
        scattered = {}
        for i, prop in enumerate(self.props):
            scattered[prop.name] = prop.resting(_PARKED_X, 0.2 * i, floor=TABLE_TOP_M)
            for _ in range(_TRIES if i < shown else 0):
                xy = random.uniform(place.free_low, place.free_high)
                yaw = random.uniform(-np.pi, np.pi)
                if all(
                    np.linalg.norm(xy - other) > prop.radius + around for other, around in clear
                ):
                    scattered[prop.name] = prop.resting(*xy, yaw, floor=place.floor)
                    clear.append((xy, prop.radius + _APART_M))
                    break
        return scattered


@dataclass(frozen=True, eq=False)
class Look:
    """The variation of one episode.

    action_delay_s: seconds. camera_shift, aim_shift: (3,) metres in `base_link`.
    brightness: (2,) factors of the two lights. hue: (3,) factors of red, green and blue.
    turn: (2, 3) added to the lights' directions. table: index of `textures.TEXTURES`.
    tint: (3,) factors of its colours. distractors: poses by name; colours: (3,) by name.
    """

    action_delay_s: float
    camera_shift: np.ndarray
    aim_shift: np.ndarray
    brightness: np.ndarray
    hue: np.ndarray
    turn: np.ndarray
    table: int
    tint: np.ndarray
    distractors: Mapping[str, Pose] = field(default_factory=dict)
    colours: Mapping[str, np.ndarray] = field(default_factory=dict)


class Painter:
    """Applies looks to a simulator's model, each to the model as it was built."""

    def __init__(self, sim: WidowXSim) -> None:
        self._model = model = sim.model
        camera = model.camera(CAMERA)
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, camera.quat)
        self._table = model.geom(TABLE_GEOM).id
        self._tables = [model.material(table_material(i)).id for i in range(sim.scene.tables)]
        self._paint = {prop.name: model.material(f"{prop.name}/0").id for prop in sim.scene.props}
        self._camera_id = camera.id
        self._camera_position = camera.pos.copy()
        self._camera_rotation = rotation.reshape(3, 3)
        self._light_dirs = model.light_dir.copy()
        self._light_diffuse = model.light_diffuse.copy()
        self._headlight = model.vis.headlight.ambient.copy()

    def apply(self, look: Look) -> None:
        """Paint the model; the next picture shows it."""
        model = self._model
        model.cam_pos[self._camera_id] = self._camera_position + look.camera_shift
        model.cam_quat[self._camera_id] = wxyz_from_matrix(self._aimed(look))
        model.light_diffuse[:] = self._light_diffuse * look.brightness[:, None] * look.hue
        model.vis.headlight.ambient[:] = self._headlight * look.brightness.mean() * look.hue
        directions = self._light_dirs + look.turn
        model.light_dir[:] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        model.geom_matid[self._table] = self._tables[look.table]
        model.mat_rgba[self._tables[look.table], :3] = look.tint
        for name, rgb in look.colours.items():
            model.mat_rgba[self._paint[name], :3] = rgb

    def _aimed(self, look: Look) -> np.ndarray:
        """The camera's rotation (3, 3) when it looks at its moved point from its moved place."""
        if not (look.camera_shift.any() or look.aim_shift.any()):
            return self._camera_rotation
        backward = self._camera_rotation[:, 2]
        distance = self._camera_position[2] / backward[2]  # to the height of `base_link`
        aim = self._camera_position - distance * backward + look.aim_shift
        backward = self._camera_position + look.camera_shift - aim
        backward /= np.linalg.norm(backward)
        right = np.cross(self._camera_rotation[:, 1], backward)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward], axis=1)
