"""An arm's kinematics: forward, inverse, limits, gripper scales. No motion over time, no physics.

An arm is a chain of n hinge joints between two frames of a model, and one joint that speaks for the
gripper.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import mink
import mujoco
import numpy as np

from canvas_robot.kinematics.arm_model import ArmModel, ArmModelError, arm_path, is_topic, read_arm
from canvas_robot.kinematics.rule import BRIDGE_CLOSED, BRIDGE_OPEN
from canvas_robot.signals.binding import Robot
from canvas_robot.signals.pose import (
    Pose,
    bridge_state_from_pose,
    matrix_from_rpy,
    rotation_vector,
)

FINGER_JOINT = "left_finger"

# Bridge V2's gripper scale: state 0 at 0.010 m and 1 at 0.035 m of the left finger, so a closed
# gripper (0.015 m) reads 0.2 and an open one (0.037 m) 1.08. Source: rail-berkeley/
# bridge_data_robot, custom_gripper_controller.py. Other grippers read the same, closed and open.
BRIDGE_FINGER_AT_ZERO_M, BRIDGE_FINGER_SPAN_M = 0.010, 0.025
_WIDOWX_FINGER_M = (0.015, 0.037)

# Newton steps of at most 0.3 rad a joint, until the site is within tolerance or progress ends.
_MAX_ITERATIONS = 100
_MAX_JOINT_STEP_RAD = 0.3
_STALLED_RAD = 1e-7
_POSITION_TOLERANCE_M = 1e-4
_ROTATION_TOLERANCE_RAD = 1e-3
# A radian of the wrist weighs as much as 0.3 m; about the arm's own length scale.
_ORIENTATION_COST = 0.3
_COSTS = np.array([1.0] * 3 + [_ORIENTATION_COST] * 3)
_LM_DAMPING, _DAMPING = 1e-3, 1e-8


@dataclass(frozen=True, eq=False)
class IKSolution:
    """Joints (n,) in radians, within limits, and how far their pose still is from the target."""

    joints: np.ndarray
    position_error_m: float
    rotation_error_rad: float
    converged: bool


@final
class Arm:
    """Kinematics of one arm. Deterministic: equal arguments give equal bits.

    It owns scratch memory, so keep one `Arm` per thread.

    path: the model's file; None where it came as text. joint_names: of the n arm joints, base to
    wrist. lower, upper: (n,) their limits in radians, infinite where there are none. finger_range:
    of the finger, closed and open, in the unit of its joint: metres, or radians.

    Args:
        model: the chain.
        finger: name of the joint that speaks for the gripper.
        joint_limits: (low, high) in radians by name; they narrow the model's.
        finger_range: closed and open; None: the limits of the finger in the model, if it is
            FINGER_JOINT: of others nothing says which of the two is closed.
    Raises:
        ArmModelError: the limits are of no joint of the arm, or leave it no room, or nothing says
            how far the finger goes.
    """

    def __init__(
        self,
        model: ArmModel,
        finger: str = FINGER_JOINT,
        joint_limits: Mapping[str, tuple[float, float]] | None = None,
        finger_range: tuple[float, float] | None = None,
    ) -> None:
        compiled, hinges = copy.copy(model.compiled), list(model.hinges)
        self.path = model.path
        self.joint_names: tuple[str, ...] = tuple(compiled.joint(i).name for i in hinges)
        limits = _limits(compiled, hinges, self.joint_names, joint_limits or {})
        self.lower: np.ndarray = _read_only(limits[:, 0])
        self.upper: np.ndarray = _read_only(limits[:, 1])
        # The solver must know what its steps are cut to, or it stalls there.
        compiled.jnt_limited[hinges] = np.isfinite(limits).all(axis=1)
        compiled.jnt_range[hinges] = np.where(np.isfinite(limits), limits, 0.0)
        self.finger_range = finger_range or _finger_range(compiled, finger)
        closed, opened = self.finger_range
        if self.finger_range == _WIDOWX_FINGER_M:  # to the bit, as policies were trained on it
            self._bridge_zero, self._bridge_span = BRIDGE_FINGER_AT_ZERO_M, BRIDGE_FINGER_SPAN_M
        else:
            self._bridge_span = (opened - closed) / (BRIDGE_OPEN - BRIDGE_CLOSED)
            self._bridge_zero = closed - BRIDGE_CLOSED * self._bridge_span

        self._model = compiled
        self._data = mujoco.MjData(compiled)
        self._address = compiled.jnt_qposadr[hinges]
        self._dof = compiled.jnt_dofadr[hinges]
        self._jacobian = np.empty((6, compiled.nv))
        self._site = model.site
        self._rest = _rest(compiled)
        self._base = self._base_in_world(model.base)
        self._configuration = mink.Configuration(compiled)
        self._task = mink.FrameTask(
            compiled.site(self._site).name, "site", 1.0, _ORIENTATION_COST, lm_damping=_LM_DAMPING
        )
        self._limits = [
            mink.ConfigurationLimit(compiled, gain=1.0),
            mink.VelocityLimit(compiled, {name: _MAX_JOINT_STEP_RAD for name in self.joint_names}),
        ]
        carrying = _dofs_that_carry(compiled, model.base)
        self._held = [mink.DofFreezingTask(compiled, carrying)] if carrying else []

    @classmethod
    def load(cls, path_or_name: str | Path = "wx250s") -> Arm:
        """The arm of a file with frames and finger named as the WidowX's are, or of a model that
        ships with the package, by name.

        Raises FileNotFoundError for an unknown name or path, ArmModelError for a model that is not
        such an arm.
        """
        return cls(read_arm(arm_path(path_or_name)))

    @classmethod
    def declared(cls, robot: Robot, finger: str = FINGER_JOINT, description: str = "") -> Arm:
        """The arm that a binding's `robot` declares.

        Args:
            robot: names model, frames and limits.
            finger: name of the joint that speaks for the gripper.
            description: the text of a URDF, where `robot.arm` is a topic.
        Raises:
            FileNotFoundError, ArmModelError: as `load`.
        """
        if is_topic(robot.arm) and not description:
            raise ArmModelError(
                f"robot.arm: expected a file or a name here, got the topic {robot.arm}, which only "
                f"a node hears; save the description as a .urdf file, and name that"
            )
        source = description if is_topic(robot.arm) else arm_path(robot.arm)
        tool = None if robot.tool is None else _tool(robot.tool)
        model = read_arm(source, robot.base_frame, robot.ee_frame, tool)
        return cls(model, finger, robot.joint_limits, robot.finger_range)

    def forward(self, joints: np.ndarray) -> Pose:
        """Pose of the end effector in the base at joints (n,) in radians, even past limits."""
        self._data.qpos[:] = self._rest
        self._data.qpos[self._address] = _finite("joints", joints, self.lower.shape)
        mujoco.mj_kinematics(self._model, self._data)
        position = self._data.site_xpos[self._site]
        rotation = self._data.site_xmat[self._site].reshape(3, 3)
        if self._base is None:
            return Pose(position, rotation)
        turn = self._base.rotation.T
        return Pose(turn @ (position - self._base.position), turn @ rotation)

    def inverse(self, target: Pose, start: np.ndarray) -> IKSolution:
        """Joints that bring the end effector to `target`, a pose in the base.

        The search descends from `start` (n,) radians, clipped into the limits, and is local: start
        from the last solution. `converged` is False when the target is out of reach; the joints are
        then the closest found. Raises ValueError for a wrong shape or a number that is not finite.
        """
        if not target.is_finite:
            raise ValueError(f"target: expected finite numbers, got {target}")
        if self._base is not None:
            position = self._base.position + self._base.rotation @ target.position
            target = Pose(position, self._base.rotation @ target.rotation)
        joints = np.clip(_finite("start", start, self.lower.shape), self.lower, self.upper)
        error = self._error(target, joints)
        for _ in range(_MAX_ITERATIONS):
            if _within_tolerance(error):
                break
            step = self._free_step(error, joints)
            if step is None:
                step = self._bounded_step(target, joints)
            if step is None:
                break
            # The solver's bounds hold to rounding; ours hold exactly.
            joints = np.clip(joints + step, self.lower, self.upper)
            error = self._error(target, joints)
            if np.abs(step).max() < _STALLED_RAD:
                break
        return IKSolution(joints, *_lengths(error), _within_tolerance(error))

    def _base_in_world(self, base: int) -> Pose | None:
        """None where that is the world itself."""
        self._data.qpos[:] = self._rest
        mujoco.mj_kinematics(self._model, self._data)
        pose = Pose(self._data.xpos[base], self._data.xmat[base].reshape(3, 3))
        is_world = not pose.position.any() and np.array_equal(pose.rotation, np.eye(3))
        return None if is_world else pose

    def _error(self, target: Pose, joints: np.ndarray) -> np.ndarray:
        """From the site's pose at joints to the target: metres (3,), then axis times angle (3,)."""
        data = self._data
        data.qpos[:] = self._rest
        data.qpos[self._address] = joints
        mujoco.mj_kinematics(self._model, data)
        rotation = data.site_xmat[self._site].reshape(3, 3)
        error = np.empty(6)
        error[:3] = target.position - data.site_xpos[self._site]
        error[3:] = rotation_vector(target.rotation @ rotation.T)
        return error

    def _free_step(self, error: np.ndarray, joints: np.ndarray) -> np.ndarray | None:
        """The Newton step (n,) from the joints of the last error, or None where a bound stops it.

        It minimises what the bounded problem does; without a bound, no quadratic program is needed.
        """
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(
            self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site
        )
        jacobian, error = _COSTS[:, None] * self._jacobian[:, self._dof], _COSTS * error
        normal = jacobian.T @ jacobian
        normal.flat[:: len(joints) + 1] += _LM_DAMPING * (error @ error) + _DAMPING
        step = np.linalg.solve(normal, jacobian.T @ error)
        reached = joints + step
        if np.abs(step).max() > _MAX_JOINT_STEP_RAD:
            return None
        return step if ((reached >= self.lower) & (reached <= self.upper)).all() else None

    def _bounded_step(self, target: Pose, joints: np.ndarray) -> np.ndarray | None:
        """The step (n,) under limits of joints and of a step's size, a quadratic problem.

        None where the solver finds none.
        """
        q = self._rest.copy()
        q[self._address] = joints
        self._task.set_target(_se3(target))
        self._configuration.update(q)
        problem = (self._configuration, [self._task], 1.0, "daqp")
        within = {"limits": self._limits, "constraints": self._held}
        try:
            return mink.solve_ik(*problem, damping=_DAMPING, **within)[self._dof]
        except mink.MinkError:
            return None

    def measured_state(self, joints: np.ndarray, finger: float) -> np.ndarray:
        """Bridge V2's state (7,) float32 of measured joints (n,) in rad and finger.

        Position (m) and Bridge's roll, pitch, yaw (rad) of the end effector in the base, then
        Bridge's gripper. Simulator and robot both make their state by this call.
        """
        return bridge_state_from_pose(self.forward(joints), self.bridge_gripper_from_finger(finger))

    def finger_from_gripper(self, gripper: float) -> float:
        """The finger of a gripper command: 0 is closed (WidowX 0.015 m), 1 is open (0.037 m).

        Raises ValueError outside [0, 1].
        """
        gripper = float(_finite("gripper", gripper, ()))
        if not 0.0 <= gripper <= 1.0:
            raise ValueError(
                f"gripper: expected a command in [0, 1], 0 closed and 1 open, got {gripper}"
            )
        closed, opened = self.finger_range
        return closed + gripper * (opened - closed)

    def gripper_from_finger(self, finger: float) -> float:
        """Gripper command of a finger, not clipped: undoes `finger_from_gripper`."""
        closed, opened = self.finger_range
        return (float(_finite("finger", finger, ())) - closed) / (opened - closed)

    def bridge_gripper_from_finger(self, finger: float) -> float:
        """Bridge V2's gripper *state* of a finger: 0.2 closed to 1.08 open.

        On the WidowX (q - 0.010) / 0.025; not a command, which runs from 0 to 1.
        """
        return (float(_finite("finger", finger, ())) - self._bridge_zero) / self._bridge_span

    def finger_from_bridge_gripper(self, gripper: float) -> float:
        """The finger of a Bridge gripper state: undoes `bridge_gripper_from_finger`."""
        return self._bridge_zero + self._bridge_span * float(_finite("gripper", gripper, ()))


def _limits(
    model: mujoco.MjModel,
    hinges: list[int],
    names: tuple[str, ...],
    narrower: Mapping[str, tuple[float, float]],
) -> np.ndarray:
    """(n, 2) of the arm's joints, the model's as narrowed."""
    unknown = sorted(set(narrower) - set(names))
    if unknown:
        raise ArmModelError(
            f"robot.joint_limits: expected joints of the arm, {', '.join(names)}, got "
            f"{', '.join(unknown)}"
        )
    limited = model.jnt_limited[hinges].astype(bool)[:, None]
    limits = np.where(limited, model.jnt_range[hinges], (-np.inf, np.inf))
    for index, name in enumerate(names):
        low, high = narrower.get(name, (-np.inf, np.inf))
        limits[index] = max(limits[index, 0], low), min(limits[index, 1], high)
        if not limits[index, 0] < limits[index, 1]:
            raise ArmModelError(
                f"robot.joint_limits.{name}: expected limits that leave room within the model's, "
                f"{model.jnt_range[hinges[index]].tolist()} rad, got {[low, high]}"
            )
    return limits


def _finger_range(model: mujoco.MjModel, finger: str) -> tuple[float, float]:
    names = [model.joint(i).name for i in range(model.njnt)]
    if finger != FINGER_JOINT or finger not in names or not model.joint(finger).limited:
        raise ArmModelError(
            f"robot.finger_range: expected the positions of joint {finger!r} closed and open, such "
            f"as [0.8, 0.0]; limits of a model do not say which is closed, and only those of a "
            f"joint {FINGER_JOINT!r}, as on the WidowX, are taken so; joints: {', '.join(names)}"
        )
    low, high = model.joint(finger).range
    return float(low), float(high)


def _rest(model: mujoco.MjModel) -> np.ndarray:
    """(nq,): where joints stand that the arm's pose in its base does not depend on.

    Hinges and slides mid-range, inside their limits; all else as the model has it.
    """
    rest = model.qpos0.copy()
    kinds = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
    limited = model.jnt_limited.astype(bool) & np.isin(model.jnt_type, kinds)
    rest[model.jnt_qposadr[limited]] = model.jnt_range[limited].mean(axis=1)
    return rest


def _dofs_that_carry(model: mujoco.MjModel, body: int) -> list[int]:
    """Of the joints that move a body: a rail or a cart that an arm stands on is not the arm's."""
    dofs: list[int] = []
    while body:
        first, count = model.body_dofadr[body], model.body_dofnum[body]
        dofs += range(first, first + count)
        body = int(model.body_parentid[body])
    return dofs


def _tool(coordinates: tuple[float, ...]) -> Pose:
    """x, y, z (m), fixed-axis roll, pitch, yaw (rad)."""
    return Pose(np.array(coordinates[:3]), matrix_from_rpy(np.array(coordinates[3:])))


def _lengths(error: np.ndarray) -> tuple[float, float]:
    """Metres and radians of an error (6,)."""
    return math.sqrt(error[:3] @ error[:3]), math.sqrt(error[3:] @ error[3:])


def _within_tolerance(error: np.ndarray) -> bool:
    metres, radians = _lengths(error)
    return metres <= _POSITION_TOLERANCE_M and radians <= _ROTATION_TOLERANCE_RAD


def _se3(pose: Pose) -> mink.SE3:
    return mink.SE3.from_rotation_and_translation(
        mink.SO3.from_matrix(pose.rotation), pose.position
    )


def _finite(name: str, value: np.ndarray | float, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {array.tolist()}")
    return array


def _read_only(array: np.ndarray) -> np.ndarray:
    array = np.array(array)
    array.setflags(write=False)
    return array
