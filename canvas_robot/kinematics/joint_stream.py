"""JointStream: joints of a moving end effector, by inverse kinematics. No ROS."""

from __future__ import annotations

from typing import final

import numpy as np

from canvas_robot.kinematics.arm import Arm
from canvas_robot.signals.pose import Pose


class UnreachableError(ValueError):
    """No joints within the limits bring the end effector to a pose, or not fast enough."""


@final
class JointStream:
    """Follows set-points from the measured joints on, and refuses to jump between configurations.

    Args:
        arm: this stream's own; it keeps scratch memory.
        speed_limit: of every joint, rad/s.
    """

    def __init__(self, arm: Arm, speed_limit: float) -> None:
        if not 0.0 < speed_limit < np.inf:
            raise ValueError(f"speed_limit: expected a positive number of rad/s, got {speed_limit}")
        self._arm, self._speed_limit = arm, speed_limit
        self._joints: np.ndarray | None = None

    def stop(self) -> None:
        """The next set-point is followed from the measured joints."""
        self._joints = None

    def follow(self, pose: Pose, measured: np.ndarray, seconds: float) -> np.ndarray:
        """Joints (6,) rad that bring `ee_gripper_link` to a pose in `base_link`.

        measured: joints (6,) rad, where the stream starts after `stop`. seconds: since the last
        set-point. Raises UnreachableError; the stream has stopped then.
        """
        start = measured if self._joints is None else self._joints
        solution = self._arm.inverse(pose, start=start)
        if not solution.converged:
            self.stop()
            raise UnreachableError(
                f"inverse kinematics: no joints within their limits reach "
                f"{np.round(pose.position, 3).tolist()} m; {solution.position_error_m:.3f} m and "
                f"{solution.rotation_error_rad:.2f} rad are left"
            )
        speeds = np.abs(solution.joints - start) / max(seconds, 1e-3)
        fastest = int(speeds.argmax())
        if speeds[fastest] > self._speed_limit:
            self.stop()
            raise UnreachableError(
                f"inverse kinematics: joint {self._arm.joint_names[fastest]} would turn at "
                f"{speeds[fastest]:.1f} rad/s, expected at most {self._speed_limit} rad/s; "
                f"the arm is near a singular pose"
            )
        self._joints = solution.joints
        return solution.joints
