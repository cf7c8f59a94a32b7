"""The one interpolator from decisions to motion.

The Gymnasium environments and the ROS simulated robot both drive their servos by it.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np

from canvas_robot.kinematics.arm import Arm, IKSolution
from canvas_robot.kinematics.rule import Command
from canvas_robot.signals.pose import Pose

MOTION_S = 0.15  # three quarters of Bridge's control step of 0.2 s


@final
class MotionInterpolator:
    """Turns sparse commands into joint set-points at any time, without a jump.

    A command at time t moves linearly in joint space from the set-point at t to the command's
    joints over `duration_s`, then holds. Times are seconds on the caller's clock.
    """

    def __init__(self, arm: Arm, duration_s: float = MOTION_S) -> None:
        if not (math.isfinite(duration_s) and duration_s > 0):
            raise ValueError(f"duration_s: expected a positive number of seconds, got {duration_s}")
        self._arm = arm
        self._duration_s = duration_s
        self._target: Pose | None = None

    @property
    def target(self) -> Pose:
        """The last reachable command, in `base_link`: the pose the next action composes with."""
        self._require_reset()
        return self._target

    def reset(self, joints: np.ndarray, finger: float, time_s: float) -> None:
        """Hold joints (6,) in radians and the left finger in metres from `time_s` on."""
        if not (math.isfinite(finger) and math.isfinite(time_s)):
            raise ValueError(f"reset: expected finite finger and time_s, got {finger} and {time_s}")
        self._target = self._arm.forward(joints)
        self._from = self._to = np.append(np.asarray(joints, dtype=np.float64), finger)
        self._started_s = time_s

    def command(self, command: Command, time_s: float) -> IKSolution:
        """Start moving to `command` at `time_s`.

        The inverse kinematics starts from the last solution. A target out of reach keeps the
        previous target and its joints (Bridge's rule) and still moves the gripper; the returned
        solution then has `converged` False.
        Raises ValueError for a time before the last command or reset.
        """
        self._require_reset()
        self._require_forward(time_s)
        solution = self._arm.inverse(command.target, start=self._to[:6])
        joints = solution.joints if solution.converged else self._to[:6]
        if solution.converged:
            self._target = command.target
        self._from = np.append(*self.setpoint(time_s))
        self._to = np.append(joints, self._arm.finger_from_gripper(command.gripper))
        self._started_s = time_s
        return solution

    def setpoint(self, time_s: float) -> tuple[np.ndarray, float]:
        """Joints (6,) in radians and left finger in metres to servo to at `time_s`."""
        point = self.setpoints(np.array([time_s]))[0]
        return point[:6], float(point[6])

    def setpoints(self, times_s: np.ndarray) -> np.ndarray:
        """`setpoint` at each of times (n,), ascending: (n, 7), six joints and the finger."""
        self._require_reset()
        self._require_forward(float(times_s[0]))
        fractions = (times_s - self._started_s) / self._duration_s
        points = self._from + fractions[:, None] * (self._to - self._from)
        return np.where(fractions[:, None] < 1.0, points, self._to)

    def _require_reset(self) -> None:
        if self._target is None:
            raise RuntimeError(
                "MotionInterpolator: expected reset() before command() or setpoint()"
            )

    def _require_forward(self, time_s: float) -> None:
        if not time_s >= self._started_s:
            raise ValueError(
                f"time_s: expected {self._started_s} s or later, the time of the last command or "
                f"reset, got {time_s} s"
            )
