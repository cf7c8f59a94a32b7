"""WidowX physics and pictures: servos driven by the interpolator, contacts, the fixed camera.

After `reset`, the state changes only by physics: nothing is placed, welded or scripted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import final

import mujoco
import numpy as np

from canvas_robot.kinematics.arm import FINGER_JOINT, Arm, IKSolution
from canvas_robot.kinematics.arm_model import END_EFFECTOR_SITE
from canvas_robot.kinematics.interpolator import MOTION_S, MotionInterpolator
from canvas_robot.kinematics.rule import Command
from canvas_robot.signals.pose import Pose
from canvas_robot.sim.scene import CAMERA, SLEEP, Scene, build_model, wxyz_from_matrix

FINGERS = ("left_finger_link", "right_finger_link")
_FINGER_MIRROR_JOINT = "right_finger"


@final
class WidowXSim:
    """An arm in a scene. Call `reset` first; times are seconds since it.

    motion_s: how long the servos are led to a commanded pose; by default as `MotionInterpolator`.
    robot_bodies: names of the arm's bodies.
    """

    def __init__(self, arm: Arm, scene: Scene, motion_s: float = MOTION_S) -> None:
        self._model = model = build_model(arm, scene)
        self._data = mujoco.MjData(model)
        self._awake, self._awake_at = mujoco.MjData(model), -1
        self._scene = scene
        self._interpolator = MotionInterpolator(arm, motion_s)
        self._steps = 0
        names = (*arm.joint_names, FINGER_JOINT)
        # Both are in the order of the arm's joints, then the finger.
        self._qpos = np.array([model.joint(name).qposadr[0] for name in names])
        self._dof = np.array([model.joint(name).dofadr[0] for name in names])
        self._ctrl = np.array([model.actuator(name).id for name in names])
        self._mirror_qpos = model.joint(_FINGER_MIRROR_JOINT).qposadr[0]
        self._end_effector = model.site(END_EFFECTOR_SITE).id
        self._body = {model.body(i).name: i for i in range(model.nbody)}
        self._props = {prop.name: prop for prop in scene.props}
        self.robot_bodies: frozenset[str] = frozenset(self._body) - set(self._props) - {"world"}
        self._name_of_body = {i: name for name, i in self._body.items()}
        self._finger_bodies = frozenset(self._body[name] for name in FINGERS)
        self._prop_bodies = frozenset(self._body[name] for name in self._props)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    @property
    def scene(self) -> Scene:
        return self._scene

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model, for what changes its looks; see `canvas_robot.sim.variation`."""
        return self._model

    # ---------------------------------------------------------------- motion

    def reset(
        self,
        poses: Mapping[str, Pose],
        joints: np.ndarray | None = None,
        finger: float | None = None,
    ) -> None:
        """Start at rest: props at their poses in `base_link`, arm at joints (6,) rad, finger in m.

        Joints and finger default to those of the scene's workplace.
        Raises ValueError unless `poses` names exactly the scene's props.
        """
        if set(poses) != set(self._props):
            raise ValueError(f"poses: expected {sorted(self._props)}, got {sorted(poses)}")
        workplace = self._scene.workplace
        joints = np.array(workplace.reset_joints if joints is None else joints, dtype=np.float64)
        finger = workplace.reset_finger if finger is None else finger
        mujoco.mj_resetData(self._model, self._data)
        self._steps, self._awake_at = 0, -1
        self._interpolator.reset(joints, finger, time_s=0.0)
        self._data.qpos[self._qpos] = np.append(joints, finger)
        self._data.qpos[self._mirror_qpos] = -finger
        for name, pose in poses.items():
            quaternion = wxyz_from_matrix(pose.rotation)
            if self._props[name].fixed:
                body = self._model.body(name)
                body.pos[:], body.quat[:] = pose.position, quaternion
            else:
                self._data.joint(name).qpos[:] = np.concatenate([pose.position, quaternion])
        self._data.ctrl[self._ctrl] = np.append(joints, finger)
        self._forward(self._data)

    def command(self, command: Command) -> IKSolution:
        """Start moving to `command` now; see `MotionInterpolator.command`."""
        return self._interpolator.command(command, self.time)

    def step(self, count: int = 1) -> None:
        """Advance by `count` physics steps of `timestep` seconds."""
        model, data, ctrl, mj_step = self._model, self._data, self._data.ctrl, mujoco.mj_step
        for setpoint in self._setpoints(count):
            ctrl[:] = setpoint
            mj_step(model, data)
        self._steps += count

    def step_to_touch(self, count: int, among: frozenset[str]) -> frozenset[str]:
        """Advance by `count` physics steps, or to the first after which a finger touches one.

        among: names of the props that matter. Returns those that a finger touches at the end.
        """
        for setpoint in self._setpoints(count):
            self._data.ctrl[:] = setpoint
            mujoco.mj_step(self._model, self._data)
            self._steps += 1
            if touched := self.fingertip_contacts() & among:
                return touched
        return frozenset()

    def step_until(self, time_s: float) -> None:
        """Advance to the physics step nearest to `time_s`; does nothing for a time in the past."""
        self.step(max(round((time_s - self.time) / self.timestep), 0))

    def _setpoints(self, count: int) -> np.ndarray:
        """Controls (count, 7) in the model's order for the coming physics steps."""
        if count == 0:
            return np.empty((0, len(self._ctrl)))
        times = (self._steps + np.arange(count)) * self.timestep
        setpoints = np.empty((count, len(self._ctrl)))
        setpoints[:, self._ctrl] = self._interpolator.setpoints(times)
        return setpoints

    # ---------------------------------------------------------------- measured

    @property
    def timestep(self) -> float:
        """Length of a physics step in seconds."""
        return self._model.opt.timestep

    @property
    def time(self) -> float:
        """Seconds since the reset."""
        return self._steps * self.timestep

    @property
    def target(self) -> Pose:
        """The last reachable command of `ee_gripper_link` in `base_link`."""
        return self._interpolator.target

    @property
    def joints(self) -> np.ndarray:
        """Measured arm joints (6,) in radians."""
        return self._data.qpos[self._qpos[:6]]

    @property
    def joint_velocities(self) -> np.ndarray:
        """Measured arm joint velocities (6,) in rad/s."""
        return self._data.qvel[self._dof[:6]]

    @property
    def finger(self) -> float:
        """Measured left finger in metres."""
        return float(self._data.qpos[self._qpos[6]])

    @property
    def actuator_forces(self) -> np.ndarray:
        """Forces (7,) of the servos, weight compensation included: six in N m, finger in N."""
        return self._data.qfrc_actuator[self._dof]

    @property
    def end_effector(self) -> Pose:
        """Measured pose of `ee_gripper_link` in `base_link`."""
        rotation = self._data.site_xmat[self._end_effector].reshape(3, 3)
        return Pose(self._data.site_xpos[self._end_effector], rotation)

    def pose(self, name: str) -> Pose:
        """Pose in `base_link` of a prop's frame."""
        body = self._body[name]
        return Pose(self._data.xpos[body], self._data.xmat[body].reshape(3, 3))

    def fingertip_contacts(self) -> frozenset[str]:
        """Names of the props that a finger touches now."""
        if not self._data.ncon:
            return frozenset()
        touched = set()
        for first, second in self._model.geom_bodyid[self._data.contact.geom].tolist():
            for finger, prop in ((first, second), (second, first)):
                if finger in self._finger_bodies and prop in self._prop_bodies:
                    touched.add(self._name_of_body[prop])
        return frozenset(touched)

    def contact_forces(self, name: str) -> dict[str, np.ndarray]:
        """Force (3,) N in `base_link` on a prop from each body that presses on it, by its name."""
        data, body = self._with_all_contacts(), self._body[name]
        bodies = self._model.geom_bodyid[data.contact.geom]
        rows = data.contact.efc_address
        touching = np.flatnonzero((bodies == body).any(axis=1) & (rows >= 0))
        # In an elliptic cone a contact's first three rows are its force in the contact's frame,
        # normal first; the normal points from the first geom to the second.
        in_frame = data.efc_force[rows[touching, None] + np.arange(3)]
        frames = data.contact.frame[touching].reshape(-1, 3, 3)
        in_base = np.einsum("ni,nij->nj", in_frame, frames)
        forces: dict[str, np.ndarray] = {}
        for (first, second), force in zip(bodies[touching].tolist(), in_base, strict=True):
            other, push = (first, force) if second == body else (second, -force)
            name_of_other = self._name_of_body[other]
            forces[name_of_other] = forces.get(name_of_other, 0.0) + push
        return forces

    def _with_all_contacts(self) -> mujoco.MjData:
        """The present state with the contacts of what lies still, which the physics leaves out."""
        data, awake = self._data, self._awake
        if self._awake_at != self._steps:
            awake.qpos[:], awake.qvel[:], awake.ctrl[:] = data.qpos, data.qvel, data.ctrl
            awake.qacc_warmstart[:] = data.qacc_warmstart
            self._forward(awake)
            self._awake_at = self._steps
        return awake

    def _forward(self, data: mujoco.MjData) -> None:
        """Everything that follows from the state, for fixed and for sleeping bodies too."""
        self._model.opt.enableflags &= ~SLEEP
        mujoco.mj_forward(self._model, data)
        self._model.opt.enableflags |= SLEEP

    # ---------------------------------------------------------------- pictures

    def render(self, width: int, height: int) -> np.ndarray:
        """The fixed camera's picture (height, width, 3) uint8 RGB.

        Every size shows the whole 640x480 view, squashed where its aspect is not 4:3; 256x256 is
        Bridge's image. Raises RuntimeError where there is nothing to render with.
        """
        if os.environ.get("MUJOCO_GL") == "disable":
            raise RuntimeError(
                "rendering: expected EGL or a screen (DISPLAY), got MUJOCO_GL=disable, as where "
                "libEGL.so.1 is missing; apt-get install libegl1 libgl1"
            )
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
