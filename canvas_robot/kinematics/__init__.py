"""Arm models, forward and inverse kinematics, action rule, and the interpolator to motion."""

from canvas_robot import offscreen  # noqa: F401  (before MuJoCo is imported)
from canvas_robot.kinematics.arm import Arm, IKSolution
from canvas_robot.kinematics.interpolator import MotionInterpolator
from canvas_robot.kinematics.rule import Command, Limits, compose, parted

__all__ = ["Arm", "Command", "IKSolution", "Limits", "MotionInterpolator", "compose", "parted"]
