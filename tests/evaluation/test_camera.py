"""A pinhole camera puts points of the base frame where a picture shows them."""

import numpy as np
import pytest

from canvas_robot.evaluation.camera import BRIDGE_TABLE_CAMERA, PinholeCamera


def ahead(**changes):
    """At the origin, looking along +x with +z up; 100x50 pixels, principal point in the middle."""
    fields = {
        "position": np.zeros(3),
        "xyaxes": np.array([0, -1, 0, 0, 0, 1]),
        "fx": 100,
        "fy": 100,
        "cx": 49.5,
        "cy": 24.5,
        "width": 100,
        "height": 50,
    }
    return PinholeCamera(**{**fields, **changes})


def test_a_point_straight_ahead_is_at_the_principal_point():
    np.testing.assert_allclose(ahead().project([[2, 0, 0]]), [[49.5, 24.5]])


def test_pixels_grow_to_the_right_and_down():
    # +y is left of a camera that looks along +x, +z is up.
    np.testing.assert_allclose(ahead().project([[1, -0.1, -0.2]]), [[59.5, 44.5]])


def test_what_is_behind_the_camera_has_no_pixel():
    assert np.isnan(ahead().project([[-1, 0, 0], [0, 1, 0]])).all()


def test_scaling_moves_every_pixel_with_the_resized_picture():
    points = np.array([[1, 0.2, 0.1], [2, -0.3, 0.4]])
    before, after = ahead().project(points), ahead().scaled_to(50, 150).project(points)
    np.testing.assert_allclose((after + 0.5) / (before + 0.5), [[0.5, 3], [0.5, 3]])


def test_rotation_is_a_right_handed_orthonormal_frame():
    rotation = BRIDGE_TABLE_CAMERA.rotation
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_the_bridge_table_camera_sees_the_arm_where_simplerenv_does():
    # Golden: the gripper at SimplerEnv's table reset, and the middle of the objects' grid.
    points = [[0.2921, -0.0061, 0.1353], [0.307, 0.028, 0.0175]]
    pixels = BRIDGE_TABLE_CAMERA.project(points)
    np.testing.assert_allclose(pixels, [[330, 138], [300, 241]], atol=1)


def test_no_points_give_no_pixels():
    assert ahead().project(np.zeros((0, 3))).shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": np.zeros(2)}, r"expected position \(3,\) and xyaxes \(6,\), got \(2,\)"),
        ({"xyaxes": np.array([1, 0, 0, 1, 0, 0])}, "two perpendicular axes"),
        ({"xyaxes": np.zeros(6)}, "two perpendicular axes"),
        ({"fx": 0}, "expected positive fx, fy, width and height, got 0"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ahead(**changes)


def test_points_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected points \(N, 3\), got \(3,\)"):
        ahead().project(np.zeros(3))
