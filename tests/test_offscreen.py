"""Laws of rendering where there may be nothing to render with."""

import os
import subprocess
import sys

PROGRAM = """
import ctypes

loads = ctypes.CDLL

def without_egl(name, *rest, **options):
    if name == "libEGL.so.1":
        raise OSError(f"{name}: cannot open shared object file")
    return loads(name, *rest, **options)

ctypes.CDLL = without_egl
from canvas_robot.kinematics.arm import Arm
from canvas_robot.sim.physics import WidowXSim
from canvas_robot.sim.scene import Scene

arm = Arm.load("wx250s")
print(arm.forward([0.0] * 6).is_finite)
sim = WidowXSim(arm, Scene(props=()))
try:
    sim.render(64, 64)
except RuntimeError as error:
    print(error)
"""


def test_a_robot_without_egl_has_kinematics_and_says_what_pictures_need():
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={name: value for name, value in os.environ.items() if name not in screens},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    finite, told = run.stdout.splitlines()
    assert finite == "True"
    assert "rendering: expected EGL or a screen" in told and "apt-get install libegl1" in told
