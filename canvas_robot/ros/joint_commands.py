"""JointCommands: what the arm's joints are to be, for a motion of its end effector. No rclpy."""

from __future__ import annotations

from typing import final

import numpy as np

from canvas_robot.kinematics.arm import Arm
from canvas_robot.kinematics.joint_stream import JointStream
from canvas_robot.ros.decisions import Motion
from canvas_robot.signals import Binding, BindingError


@final
class JointCommands:
    """Inverse kinematics of one configured period.

    names: of the arm's joints, and of the finger, as the robot publishes them.

    Args:
        binding: declares the joints and their speed.
        arm: this object's own; it keeps scratch memory.
        command_rate_hz: how often `follow` is asked.

    Raises BindingError where no joint states are declared: it starts from measured joints.
    """

    def __init__(self, binding: Binding, arm: Arm, command_rate_hz: float) -> None:
        source = binding.joint_source
        if source is None:
            raise BindingError(
                "joint_output, joint_positions, interbotix: expected a source of type "
                "joint_states in sources.ros, to start from measured joints"
            )
        self.names = (source.joints, source.finger)
        self._arm = arm
        self._stream = JointStream(self._arm, binding.robot.joint_speed_limit)
        self._last_ns, self._longest_s = 0, 2 / command_rate_hz

    def follow(self, motion: Motion, measured: np.ndarray, now_ns: int) -> np.ndarray:
        """(7,): joints in rad and the finger in m, for the motion; `measured` alike.

        now_ns: on the steady clock, as the motion advances.
        Raises UnreachableError where no joints lead there, or not fast enough.
        """
        # After a hold as after a pause: as set-points go, see `Stepper`.
        seconds = min((now_ns - self._last_ns) / 1e9, self._longest_s)
        self._last_ns = now_ns
        joints = self._stream.follow(motion.set_point.pose, measured[:-1], seconds)
        return np.append(joints, self._arm.finger_from_gripper(motion.gripper))

    def stop(self) -> None:
        """The next motion begins at the measured joints."""
        self._stream.stop()

    def stay(self, measured: np.ndarray, gripper: float) -> np.ndarray:
        """The measured joints (7,), where the arm is held; the finger as commanded.

        A hand that holds something does not reach the finger's place, and must go on pressing.
        """
        self.stop()
        return np.append(measured[:-1], self._arm.finger_from_gripper(gripper))
