"""An arm's kinematics: forward, inverse, limits, gripper scales. No motion over time, no physics.

An arm is an MJCF file that holds a body `base_link` at the world's origin, a site
`ee_gripper_link`, six hinge joints in order from the base, and a slide joint `left_finger` that
speaks for both fingers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

import mink
import mujoco
import numpy as np

from canvas_robot.signals.pose import Pose, bridge_state_from_pose, rotation_vector

BASE_BODY = "base_link"
END_EFFECTOR_SITE = "ee_gripper_link"
FINGER_JOINT = "left_finger"

# Bridge V2's gripper scale: state 0 at 0.010 m and 1 at 0.035 m of the left finger, so an open
# gripper reads 1.08. Source: rail-berkeley/bridge_data_robot, custom_gripper_controller.py.
BRIDGE_FINGER_AT_ZERO_M = 0.010
BRIDGE_FINGER_SPAN_M = 0.025

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
    """Joints (6,) in radians, within limits, and how far their pose still is from the target."""

    joints: np.ndarray
    position_error_m: float
    rotation_error_rad: float
    converged: bool


@final
class Arm:
    """Kinematics of one arm. Deterministic: equal arguments give equal bits.

    It owns scratch memory, so keep one `Arm` per thread.

    path: the MJCF file. joint_names: of the 6 arm joints, base to wrist. lower, upper: (6,) their
    limits in radians. finger_range: of the left finger in metres, closed and open.
    """

    def __init__(self, path: Path) -> None:
        model = mujoco.MjModel.from_xml_path(str(path))
        _check_model(model, path)
        hinges = _hinges(model)
        self.path = path
        self.joint_names: tuple[str, ...] = tuple(model.joint(i).name for i in hinges)
        self.lower: np.ndarray = _read_only(model.jnt_range[hinges, 0])
        self.upper: np.ndarray = _read_only(model.jnt_range[hinges, 1])
        low, high = model.joint(FINGER_JOINT).range
        self.finger_range: tuple[float, float] = (float(low), float(high))

        self._model = model
        self._data = mujoco.MjData(model)
        self._address = model.jnt_qposadr[hinges]
        self._dof = model.jnt_dofadr[hinges]
        self._jacobian = np.empty((6, model.nv))
        self._site = model.site(END_EFFECTOR_SITE).id
        # Joints that the target does not depend on rest mid-range, inside their limits.
        self._rest = np.where(model.jnt_limited, model.jnt_range.mean(axis=1), 0.0)
        self._configuration = mink.Configuration(model)
        self._task = mink.FrameTask(
            END_EFFECTOR_SITE, "site", 1.0, _ORIENTATION_COST, lm_damping=_LM_DAMPING
        )
        self._limits = [
            mink.ConfigurationLimit(model, gain=1.0),
            mink.VelocityLimit(model, {name: _MAX_JOINT_STEP_RAD for name in self.joint_names}),
        ]

    @classmethod
    def load(cls, path_or_name: str | Path = "wx250s") -> Arm:
        """The arm of an MJCF file, or of a model that ships with the package, by name.

        Raises FileNotFoundError for an unknown name or path, ValueError for a model that is not
        such an arm.
        """
        path = Path(path_or_name)
        if path.suffix != ".xml":
            path = _MODELS / f"{path_or_name}.xml"
        if not path.is_file():
            known = sorted(p.stem for p in _MODELS.glob("*.xml"))
            raise FileNotFoundError(
                f"arm {str(path_or_name)!r}: expected an .xml file or one of {known}, got {path}"
            )
        return cls(path)

    def forward(self, joints: np.ndarray) -> Pose:
        """Pose of `ee_gripper_link` in `base_link` at joints (6,) in radians, even past limits."""
        self._data.qpos[:] = self._rest
        self._data.qpos[self._address] = _finite("joints", joints, (6,))
        mujoco.mj_kinematics(self._model, self._data)
        rotation = self._data.site_xmat[self._site].reshape(3, 3)
        return Pose(self._data.site_xpos[self._site], rotation)

    def inverse(self, target: Pose, start: np.ndarray) -> IKSolution:
        """Joints that bring `ee_gripper_link` to `target`, a pose in `base_link`.

        The search descends from `start` (6,) radians, clipped into the limits, and is local: start
        from the last solution. `converged` is False when the target is out of reach; the joints are
        then the closest found. Raises ValueError for a wrong shape or a number that is not finite.
        """
        if not target.is_finite:
            raise ValueError(f"target: expected finite numbers, got {target}")
        joints = np.clip(_finite("start", start, (6,)), self.lower, self.upper)
        error = self._error(target, joints)
        for _ in range(_MAX_ITERATIONS):
            if _within_tolerance(error):
                break
            step = self._free_step(error, joints)
            if step is None:
                step = self._bounded_step(target, joints)
            # The solver's bounds hold to rounding; ours hold exactly.
            joints = np.clip(joints + step, self.lower, self.upper)
            error = self._error(target, joints)
            if np.abs(step).max() < _STALLED_RAD:
                break
        return IKSolution(joints, *_lengths(error), _within_tolerance(error))

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
        """The Newton step (6,) from the joints of the last error, or None where a bound stops it.

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

    def _bounded_step(self, target: Pose, joints: np.ndarray) -> np.ndarray:
        """The step (6,) under limits of joints and of a step's size, a quadratic problem."""
        q = self._rest.copy()
        q[self._address] = joints
        self._task.set_target(_se3(target))
        self._configuration.update(q)
        step = mink.solve_ik(
            self._configuration, [self._task], 1.0, "daqp", damping=_DAMPING, limits=self._limits
        )
        return step[self._dof]

    def measured_state(self, joints: np.ndarray, finger: float) -> np.ndarray:
        """Bridge V2's state (7,) float32 of measured joints (6,) in rad and left finger in metres.

        Position (m) and Bridge's roll, pitch, yaw (rad) of `ee_gripper_link` in `base_link`, then
        Bridge's gripper. Simulator and robot both make their state by this call.
        """
        return bridge_state_from_pose(self.forward(joints), self.bridge_gripper_from_finger(finger))

    def finger_from_gripper(self, gripper: float) -> float:
        """Left finger in metres of a gripper command: 0 is closed (0.015 m), 1 is open (0.037 m).

        Raises ValueError outside [0, 1].
        """
        gripper = float(_finite("gripper", gripper, ()))
        if not 0.0 <= gripper <= 1.0:
            raise ValueError(
                f"gripper: expected a command in [0, 1], 0 closed and 1 open, got {gripper}"
            )
        low, high = self.finger_range
        return low + gripper * (high - low)

    def gripper_from_finger(self, finger: float) -> float:
        """Gripper command of a left finger in metres, not clipped: undoes `finger_from_gripper`."""
        low, high = self.finger_range
        return (float(_finite("finger", finger, ())) - low) / (high - low)

    def bridge_gripper_from_finger(self, finger: float) -> float:
        """Bridge V2's gripper *state* of a left finger in metres: (q - 0.010) / 0.025.

        From 0.2 closed to 1.08 open on the WidowX 250S; not a command, which runs from 0 to 1.
        """
        return (
            float(_finite("finger", finger, ())) - BRIDGE_FINGER_AT_ZERO_M
        ) / BRIDGE_FINGER_SPAN_M

    def finger_from_bridge_gripper(self, gripper: float) -> float:
        """Left finger in metres of a Bridge gripper state: undoes `bridge_gripper_from_finger`."""
        return BRIDGE_FINGER_AT_ZERO_M + BRIDGE_FINGER_SPAN_M * float(
            _finite("gripper", gripper, ())
        )


_MODELS = Path(__file__).parent / "models"


def _hinges(model: mujoco.MjModel) -> list[int]:
    return [i for i in range(model.njnt) if model.jnt_type[i] == mujoco.mjtJoint.mjJNT_HINGE]


def _check_model(model: mujoco.MjModel, path: Path) -> None:
    joints = [model.joint(i).name for i in range(model.njnt)]
    if len(_hinges(model)) != 6 or FINGER_JOINT not in joints:
        raise ValueError(
            f"{path}: expected six hinge joints and a slide joint {FINGER_JOINT!r}, got {joints}"
        )
    bodies = [model.body(i).name for i in range(model.nbody)]
    sites = [model.site(i).name for i in range(model.nsite)]
    if BASE_BODY not in bodies or END_EFFECTOR_SITE not in sites:
        raise ValueError(
            f"{path}: expected a body {BASE_BODY!r} and a site {END_EFFECTOR_SITE!r}, "
            f"got bodies {bodies} and sites {sites}"
        )
    base = model.body(BASE_BODY)
    if base.parentid[0] != 0 or base.pos.any() or not np.array_equal(base.quat, [1, 0, 0, 0]):
        raise ValueError(
            f"{path}: expected body {BASE_BODY!r} at the world's origin, got position "
            f"{base.pos.tolist()} and quaternion (w, x, y, z) {base.quat.tolist()}"
        )


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
