"""MuJoCo physics, pictures, Gymnasium tasks and scripted experts; importing this loads none."""
