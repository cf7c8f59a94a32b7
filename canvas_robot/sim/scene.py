"""The scene around the arm, compiled: workplace, props, camera, lights. No poses, no motion."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from canvas_robot.kinematics.arm import Arm
from canvas_robot.signals.pose import matrix_from_rpy, quaternion_from_matrix
from canvas_robot.sim.props import Prop, Shape
from canvas_robot.sim.textures import PIXELS, TEXTURES
from canvas_robot.sim.workplace import TABLE, TABLE_TOP_M, Camera, Workplace

CAMERA = "bridge"
TABLE_GEOM = "table"
# A Logitech C920 at 640x480 has a focal length of 623.588 pixels. Source: SimplerEnv.
VIEW_WIDTH, VIEW_HEIGHT, FOCAL_PX = 640, 480, 623.588

PHYSICS_HZ = (500, 250)
SLEEP = int(mujoco.mjtEnableBit.mjENBL_SLEEP)

# The arm is contact type 1 and meets type 2; props and table are type 2 and meet both.
_WORLD_CONTACT = {"contype": 2, "conaffinity": 3, "condim": 3, "friction": (0.5, 0.005, 0.0001)}
_NO_CONTACT = {"contype": 0, "conaffinity": 0, "mass": 0.0}
_HIDDEN_GROUP = 3  # MuJoCo's renderer leaves out groups 3 and above

_SHAPE_TYPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
}


@dataclass(frozen=True)
class Scene:
    """What stands around the arm and how it is drawn.

    shadows, multisamples: off by default, for speed; evaluate a policy as it was trained.
    physics_hz: physics steps per second, 500 or 250.
    tables: how many of `textures.TEXTURES` the table can take on, the first being its own.
    """

    props: tuple[Prop, ...]
    workplace: Workplace = TABLE
    shadows: bool = False
    multisamples: int = 0
    physics_hz: int = 500
    tables: int = 1

    def __post_init__(self) -> None:
        names = [prop.name for prop in self.props]
        if len(set(names)) != len(names):
            raise ValueError(f"Scene.props: expected different names, got {names}")
        if self.multisamples not in (0, 2, 4, 8):
            raise ValueError(f"Scene.multisamples: expected 0, 2, 4 or 8, got {self.multisamples}")
        if self.physics_hz not in PHYSICS_HZ:
            raise ValueError(
                f"Scene.physics_hz: expected one of {PHYSICS_HZ}, got {self.physics_hz}"
            )
        if not 1 <= self.tables <= len(TEXTURES):
            raise ValueError(f"Scene.tables: expected 1 to {len(TEXTURES)}, got {self.tables}")


def build_model(arm: Arm, scene: Scene) -> mujoco.MjModel:
    """The compiled physics and picture of an arm in a scene; props are bodies by name."""
    spec = mujoco.MjSpec.from_file(str(arm.path))
    spec.option.timestep = 1.0 / scene.physics_hz
    # What lies still is left out of the physics until something touches it: twice as fast.
    spec.option.enableflags |= SLEEP
    _set_picture(spec, scene)
    _add_table(spec, scene.tables)
    for i, shape in enumerate(scene.workplace.shapes):
        _add_shape(spec, spec.worldbody, f"{scene.workplace.name}/{i}", shape)
    _add_camera(spec, scene.workplace.camera)
    for prop in scene.props:
        _add_prop(spec, prop)
    return spec.compile()


def table_material(index: int) -> str:
    """Name of the material of the table's texture of that index."""
    return f"table/{list(TEXTURES)[index]}"


def _set_picture(spec: mujoco.MjSpec, scene: Scene) -> None:
    view = spec.visual
    view.global_.offwidth, view.global_.offheight = 1280, 960
    view.quality.offsamples = scene.multisamples
    # Drawn in software, a picture with shadows takes a third of the time that MuJoCo's defaults
    # take, and differs from it by less than one grey level.
    view.quality.shadowsize = 1024 if scene.shadows else 0
    view.quality.numquads, view.quality.numslices, view.quality.numstacks = 1, 20, 10
    view.map.znear, view.map.zfar = 0.01, 20.0
    view.map.shadowclip = 0.45  # metres around the workspace, as `stat.extent` is 1
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


def _add_table(spec: mujoco.MjSpec, tables: int) -> None:
    for index, (name, draw) in enumerate(list(TEXTURES.items())[:tables]):
        texture = spec.add_texture(
            name=name,
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            width=PIXELS,
            height=PIXELS,
            nchannel=3,
        )
        texture.data = draw().tobytes()
        material = spec.add_material(name=table_material(index), specular=0.0, shininess=0.0)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    spec.add_material(name="floor", rgba=(0.36, 0.38, 0.41, 1.0), specular=0.0, shininess=0.0)
    spec.worldbody.add_geom(
        name=TABLE_GEOM,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.45, 0.55, 0.015],
        pos=[0.27, 0.05, TABLE_TOP_M - 0.015],
        material=table_material(0),
        **_NO_CONTACT,
    )
    # What is felt is a plane: resting on it costs a fraction of resting on a box.
    spec.worldbody.add_geom(
        name="table_top",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[1.0, 1.0, 1.0],
        pos=[0.0, 0.0, TABLE_TOP_M],
        group=_HIDDEN_GROUP,
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


def _add_camera(spec: mujoco.MjSpec, camera: Camera) -> None:
    # Intrinsics, not fovy: a picture of any other size is then the same 4:3 view squashed, as
    # Bridge squashes 640x480 to 256x256. With fovy a square picture would crop the sides.
    added = spec.worldbody.add_camera(
        name=CAMERA,
        pos=camera.position,
        resolution=[VIEW_WIDTH, VIEW_HEIGHT],
        sensor_size=[VIEW_WIDTH / FOCAL_PX, VIEW_HEIGHT / FOCAL_PX],
        focal_length=[1.0, 1.0],
    )
    added.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    added.alt.xyaxes = camera.xyaxes


def _add_prop(spec: mujoco.MjSpec, prop: Prop) -> None:
    body = spec.worldbody.add_body(name=prop.name)
    if not prop.fixed:
        body.add_freejoint(name=prop.name)
    for i, shape in enumerate(prop.shapes):
        _add_shape(spec, body, f"{prop.name}/{i}", shape, prop.density)


def _add_shape(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    shape: Shape,
    density: float = 1000.0,
) -> None:
    spec.add_material(name=name, rgba=(*shape.rgb, 1.0), specular=0.1, shininess=0.2)
    body.add_geom(
        name=name,
        type=_SHAPE_TYPES[shape.kind],
        size=[*shape.size, *[0.0] * (3 - len(shape.size))],
        pos=shape.position,
        material=name,
        quat=wxyz_from_matrix(matrix_from_rpy(np.array(shape.rpy))),
        group=0 if shape.drawn else _HIDDEN_GROUP,
        **(_WORLD_CONTACT | {"density": density} if shape.solid else _NO_CONTACT),
    )


def wxyz_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """MuJoCo's quaternion (4,) of a rotation (3, 3)."""
    return np.roll(quaternion_from_matrix(rotation), 1)
