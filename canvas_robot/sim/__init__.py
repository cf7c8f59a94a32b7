"""Simulation: the arm in a scene, tasks and experts. Importing this loads no simulator."""

from canvas_robot import offscreen  # noqa: F401  (before MuJoCo is imported)
