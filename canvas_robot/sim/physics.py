"""WidowX physics and pictures: servos driven by the interpolator, contacts, the fixed camera.

After `reset`, the state changes only by physics: nothing is placed, welded or scripted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import mujoco
import numpy as np

from canvas_robot.kinematics.arm import FINGER_JOINT, Arm, IKSolution
from canvas_robot.kinematics.interpolator import MotionInterpolator
from canvas_robot.kinematics.rule import Command
from canvas_robot.signals.pose import Pose, quaternion_from_matrix
from canvas_robot.sim.scene import CAMERA, FINGER_RESET, TABLE_RESET, Scene, build_model

_FINGER_BODIES = ("left_finger_link", "right_finger_link")
_FINGER_MIRROR_JOINT = "right_finger"


@final
class WidowXSim:
    """An arm in a scene, at the model's 500 Hz. Call `reset` first; times are seconds since it."""

    def __init__(self, arm: Arm, scene: Scene) -> None:
        model = build_model(arm, scene)
        self._model, self._data = model, mujoco.MjData(model)
        self._interpolator = MotionInterpolator(arm)
        self._arm_qpos = [model.joint(name).qposadr[0] for name in arm.joint_names]
        self._arm_dof = [model.joint(name).dofadr[0] for name in arm.joint_names]
        self._arm_ctrl = [model.actuator(name).id for name in arm.joint_names]
        self._finger_qpos = model.joint(FINGER_JOINT).qposadr[0]
        self._finger_dof = model.joint(FINGER_JOINT).dofadr[0]
        self._mirror_qpos = model.joint(_FINGER_MIRROR_JOINT).qposadr[0]
        self._finger_ctrl = model.actuator(FINGER_JOINT).id
        self._cube_bodies = {cube.name: model.body(cube.name).id for cube in scene.cubes}
        self._cube_of_body = {body: name for name, body in self._cube_bodies.items()}
        self._finger_bodies = {model.body(name).id for name in _FINGER_BODIES}
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    def reset(
        self,
        cubes: Mapping[str, Pose],
        joints: np.ndarray = TABLE_RESET,
        finger: float = FINGER_RESET,
    ) -> None:
        """Start at rest: cubes at their poses in `base_link`, arm at joints (6,) rad, finger in m.

        Raises ValueError unless `cubes` names exactly the scene's cubes.
        """
        if set(cubes) != set(self._cube_bodies):
            raise ValueError(f"cubes: expected {sorted(self._cube_bodies)}, got {sorted(cubes)}")
        mujoco.mj_resetData(self._model, self._data)
        self._interpolator.reset(joints, finger, time_s=0.0)
        self._data.qpos[self._arm_qpos] = joints
        self._data.qpos[self._finger_qpos] = finger
        self._data.qpos[self._mirror_qpos] = -finger
        for name, pose in cubes.items():
            quaternion = np.roll(quaternion_from_matrix(pose.rotation), 1)  # (w, x, y, z)
            self._data.joint(name).qpos[:] = np.concatenate([pose.position, quaternion])
        self._drive()
        mujoco.mj_forward(self._model, self._data)

    def command(self, command: Command) -> IKSolution:
        """Start moving to `command` now; see `MotionInterpolator.command`."""
        return self._interpolator.command(command, self.time)

    def step(self, count: int = 1) -> None:
        """Advance by `count` physics steps of `timestep` seconds."""
        for _ in range(count):
            self._drive()
            mujoco.mj_step(self._model, self._data)

    def step_until(self, time_s: float) -> None:
        """Advance to the physics step nearest to `time_s`; does nothing for a time in the past."""
        self.step(max(round((time_s - self.time) / self.timestep), 0))

    @property
    def timestep(self) -> float:
        """Length of a physics step in seconds."""
        return self._model.opt.timestep

    @property
    def time(self) -> float:
        """Seconds since the reset."""
        return self._data.time

    @property
    def target(self) -> Pose:
        """The last reachable command of `ee_gripper_link` in `base_link`."""
        return self._interpolator.target

    @property
    def joints(self) -> np.ndarray:
        """Measured arm joints (6,) in radians."""
        return self._data.qpos[self._arm_qpos]

    @property
    def joint_velocities(self) -> np.ndarray:
        """Measured arm joint velocities (6,) in rad/s."""
        return self._data.qvel[self._arm_dof]

    @property
    def finger(self) -> float:
        """Measured left finger in metres."""
        return float(self._data.qpos[self._finger_qpos])

    @property
    def actuator_forces(self) -> np.ndarray:
        """Forces (7,) of the servos, weight compensation included: six in N m, finger in N."""
        return np.append(
            self._data.qfrc_actuator[self._arm_dof], self._data.qfrc_actuator[self._finger_dof]
        )

    def cube_pose(self, name: str) -> Pose:
        """Pose of a cube's centre in `base_link`."""
        body = self._data.body(name)
        return Pose(body.xpos, body.xmat.reshape(3, 3))

    def fingertip_contacts(self) -> frozenset[str]:
        """Names of the cubes that a finger touches now."""
        touched = set()
        for first, second in self._model.geom_bodyid[self._data.contact.geom].tolist():
            for finger, cube in ((first, second), (second, first)):
                if finger in self._finger_bodies and cube in self._cube_of_body:
                    touched.add(self._cube_of_body[cube])
        return frozenset(touched)

    def render(self, width: int, height: int) -> np.ndarray:
        """The fixed camera's picture (height, width, 3) uint8 RGB.

        Every size shows the whole 640x480 view, squashed where its aspect is not 4:3; 256x256 is
        Bridge's image.
        """
        if (width, height) not in self._renderers:
            self._renderers[width, height] = mujoco.Renderer(self._model, height, width)
        renderer = self._renderers[width, height]
        renderer.update_scene(self._data, CAMERA)
        return renderer.render()

    def close(self) -> None:
        """Free the renderers; safe to repeat, and a later `render` makes new ones."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _drive(self) -> None:
        joints, finger = self._interpolator.setpoint(self.time)
        self._data.ctrl[self._arm_ctrl] = joints
        self._data.ctrl[self._finger_ctrl] = finger
