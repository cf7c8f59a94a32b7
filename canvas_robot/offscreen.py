"""Chooses MuJoCo's offscreen rendering where there is no screen, or none where it cannot be had.

Imported before MuJoCo, which reads it once. Kinematics need no rendering: a robot may lack EGL.
"""

import ctypes
import os
import sys

if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        os.environ.setdefault("MUJOCO_GL", "disable")
    else:
        os.environ.setdefault("MUJOCO_GL", "egl")
