"""The scene around the arm: table, cubes, Bridge's fixed camera, lights. No motion."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from scipy.ndimage import gaussian_filter

from canvas_robot.kinematics.arm import Arm
from canvas_robot.signals.pose import Pose, matrix_from_rpy

# Height of the table's top in `base_link`, and joints (rad) and finger (m) at the start of an
# episode on it. Source: SimplerEnv's Bridge table tasks (ManiSkill2_real2sim).
TABLE_TOP_M = 0.0025
TABLE_RESET = (-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398)
FINGER_RESET = 0.037

CAMERA = "bridge_table"
# A Logitech C920 at 640x480 has a focal length of 623.588 pixels; pose in `base_link`. Same source.
_FOCAL_PX = 623.588
_CAMERA_POSITION = (0.0, -0.16, 0.36)
_CAMERA_XYAXES = (0.4839, -0.8751, 0.0, 0.6026, 0.3332, 0.7252)

# The arm is contact type 1 and meets type 2; cubes and table are type 2 and meet both.
_WORLD_CONTACT = {"contype": 2, "conaffinity": 3, "condim": 4, "friction": (0.5, 0.005, 0.0001)}
_CUBE_DENSITY = 1000.0

_WOOD_RGB = (0.80, 0.70, 0.57)
_WOOD_PX = 512

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.11, 0.09),
    "green": (0.12, 0.55, 0.20),
    "blue": (0.10, 0.28, 0.74),
    "yellow": (0.93, 0.74, 0.12),
}


@dataclass(frozen=True)
class Cube:
    """A free cube of 1000 kg/m3. half: half its edge in metres; rgb: each in [0, 1]."""

    name: str
    rgb: tuple[float, float, float]
    half: float = 0.015

    def __post_init__(self) -> None:
        if len(self.rgb) != 3 or not all(0.0 <= value <= 1.0 for value in self.rgb):
            raise ValueError(
                f"cube {self.name!r}: expected rgb of 3 numbers in [0, 1], got {self.rgb}"
            )
        if not 0.0 < self.half < 0.1:
            raise ValueError(f"cube {self.name!r}: expected half in (0, 0.1) m, got {self.half}")

    def resting(self, x: float, y: float, yaw: float = 0.0) -> Pose:
        """Pose of the cube's centre on the table at x, y (m) and yaw (rad) in `base_link`."""
        return Pose(
            np.array([x, y, TABLE_TOP_M + self.half]), matrix_from_rpy(np.array([0.0, 0.0, yaw]))
        )


@dataclass(frozen=True)
class Scene:
    """What stands around the arm and how it is drawn.

    shadows, multisamples: off by default, for speed: drawn in software, a 256x256 picture takes
    2 ms without and 18 ms with both (4 samples). Evaluate a policy as it was trained.
    """

    cubes: tuple[Cube, ...]
    shadows: bool = False
    multisamples: int = 0

    def __post_init__(self) -> None:
        names = [cube.name for cube in self.cubes]
        if len(set(names)) != len(names):
            raise ValueError(f"Scene.cubes: expected different names, got {names}")
        if self.multisamples not in (0, 2, 4, 8):
            raise ValueError(f"Scene.multisamples: expected 0, 2, 4 or 8, got {self.multisamples}")


def build_model(arm: Arm, scene: Scene) -> mujoco.MjModel:
    """The compiled physics and picture of an arm in a scene; cubes are free bodies by name."""
    spec = mujoco.MjSpec.from_file(str(arm.path))
    _set_picture(spec, scene)
    _add_table(spec)
    _add_camera(spec)
    for cube in scene.cubes:
        _add_cube(spec, cube)
    return spec.compile()


def _set_picture(spec: mujoco.MjSpec, scene: Scene) -> None:
    view = spec.visual
    view.global_.offwidth, view.global_.offheight = 1280, 960
    view.quality.offsamples = scene.multisamples
    view.quality.shadowsize = 2048 if scene.shadows else 0
    view.map.znear, view.map.zfar = 0.01, 20.0
    view.map.shadowclip = 0.8
    view.headlight.ambient = [0.38, 0.38, 0.39]
    view.headlight.diffuse = [0.10, 0.10, 0.10]
    view.headlight.specular = [0.0, 0.0, 0.0]
    spec.stat.center = [0.3, 0.0, 0.1]
    spec.stat.extent = 1.0
    # A window behind the camera's right shoulder, and the room's fill from the far left.
    _add_light(spec, (-0.18, -0.67, 1.5), (0.30, 0.45, -1.0), (0.55, 0.54, 0.51), scene.shadows)
    _add_light(spec, (0.9, 0.9, 1.0), (-0.7, -0.5, -0.5), (0.18, 0.19, 0.22), False)


def _add_light(
    spec: mujoco.MjSpec,
    position: tuple[float, ...],
    direction: tuple[float, ...],
    diffuse: tuple[float, ...],
    casts_shadow: bool,
) -> None:
    spec.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=position,
        dir=direction,
        diffuse=diffuse,
        specular=[0.2, 0.2, 0.2],
        castshadow=casts_shadow,
    )


def _add_table(spec: mujoco.MjSpec) -> None:
    texture = spec.add_texture(
        name="table",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        width=_WOOD_PX,
        height=_WOOD_PX,
        nchannel=3,
    )
    texture.data = _wood().tobytes()
    table = spec.add_material(name="table", specular=0.0, shininess=0.0)
    table.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "table"
    spec.add_material(name="floor", rgba=(0.36, 0.38, 0.41, 1.0), specular=0.0, shininess=0.0)
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.45, 0.55, 0.015],
        pos=[0.27, 0.05, TABLE_TOP_M - 0.015],
        material="table",
        **_WORLD_CONTACT,
    )
    spec.worldbody.add_geom(
        name="floor",
        # A box: drawing an infinite plane costs more than all the rest.
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[4.0, 4.0, 0.05],
        pos=[0.3, 0.0, -0.8],
        material="floor",
        **_WORLD_CONTACT,
    )


def _wood() -> np.ndarray:
    """A matte light wood (px, px, 3) uint8: soft streaks of one hue, the same on every call."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(_WOOD_PX, _WOOD_PX))
    fine = gaussian_filter(cells, (1.5, 40.0), mode="wrap")
    broad = gaussian_filter(cells, (12.0, 120.0), mode="wrap")
    grain = fine / fine.std() + 1.5 * broad / broad.std()
    shade = 1.0 + 0.016 * grain[..., None]
    return np.clip(255.0 * shade * np.array(_WOOD_RGB), 0, 255).astype(np.uint8)


def _add_camera(spec: mujoco.MjSpec) -> None:
    # Intrinsics, not fovy: a picture of any other size is then the same 4:3 view squashed, as
    # Bridge squashes 640x480 to 256x256. With fovy a square picture would crop the sides.
    width, height = 640, 480
    camera = spec.worldbody.add_camera(
        name=CAMERA,
        pos=_CAMERA_POSITION,
        resolution=[width, height],
        sensor_size=[width / _FOCAL_PX, height / _FOCAL_PX],
        focal_length=[1.0, 1.0],
    )
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = _CAMERA_XYAXES


def _add_cube(spec: mujoco.MjSpec, cube: Cube) -> None:
    body = spec.worldbody.add_body(name=cube.name, pos=cube.resting(0.3, 0.0).position)
    body.add_freejoint(name=cube.name)
    spec.add_material(name=f"{cube.name}_paint", rgba=(*cube.rgb, 1.0), specular=0.1, shininess=0.2)
    body.add_geom(
        name=cube.name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[cube.half] * 3,
        density=_CUBE_DENSITY,
        material=f"{cube.name}_paint",
        **_WORLD_CONTACT,
    )
