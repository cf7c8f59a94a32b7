"""Chooses MuJoCo's offscreen rendering where there is no screen.

Imported before MuJoCo, which reads it once.
"""

import os
import sys

if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("MUJOCO_GL", "egl")
