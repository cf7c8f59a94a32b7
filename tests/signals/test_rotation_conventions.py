"""Laws of rotation conventions: writing and reading undo each other; known rotations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from canvas_robot.signals.rotation_conventions import CONVENTIONS

S = np.sqrt(0.5)
rotvecs = st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3).map(np.array)


@pytest.mark.parametrize("name", CONVENTIONS)
@given(rotvec=rotvecs)
def test_what_is_written_reads_as_the_same_rotation(name, rotvec):
    rotation = Rotation.from_rotvec(rotvec).as_matrix()
    writing = CONVENTIONS[name]
    numbers = writing.from_matrix(rotation)
    assert numbers.shape == (writing.size,)
    np.testing.assert_allclose(writing.to_matrix(numbers), rotation, atol=1e-9)


@pytest.mark.parametrize(
    "name, numbers",
    [
        ("wxyz", [S, 0, 0, S]),
        ("xyzw", [0, 0, S, S]),
        ("rpy", [0, 0, np.pi / 2]),
        ("moving_xyz", [0, 0, np.pi / 2]),
        ("rotvec", [0, 0, np.pi / 2]),
        ("matrix", [0, -1, 0, 1, 0, 0, 0, 0, 1]),
    ],
)
def test_a_quarter_turn_to_the_left_is_written_like_this(name, numbers):
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(CONVENTIONS[name].from_matrix(quarter), numbers, atol=1e-12)
    np.testing.assert_allclose(CONVENTIONS[name].to_matrix(np.array(numbers)), quarter, atol=1e-12)


@pytest.mark.parametrize(
    "name, x_goes_to, y_goes_to",
    [
        # Rz Rx: x stays, then goes to y; y goes to z, then stays.
        ("rpy", [0, 1, 0], [0, 0, 1]),
        # Rx Rz: x goes to y, then to z; y goes to -x, then stays.
        ("moving_xyz", [0, 0, 1], [-1, 0, 0]),
    ],
)
def test_fixed_and_moving_axes_turn_in_opposite_orders(name, x_goes_to, y_goes_to):
    quarters_about_x_and_z = np.array([np.pi / 2, 0.0, np.pi / 2])
    x_axis, y_axis, _ = CONVENTIONS[name].to_matrix(quarters_about_x_and_z).T
    np.testing.assert_allclose(x_axis, x_goes_to, atol=1e-12)
    np.testing.assert_allclose(y_axis, y_goes_to, atol=1e-12)


@pytest.mark.parametrize(
    "name, numbers, message",
    [
        ("wxyz", [0.0] * 4, "quaternion: expected a finite unit quaternion"),
        ("xyzw", [np.nan] * 4, "quaternion: expected a finite unit quaternion"),
        ("matrix", [1.0] * 9, "rotation: expected the 9 numbers of a rotation matrix"),
        ("matrix", [-1, 0, 0, 0, 1, 0, 0, 0, 1], "rotation: expected the 9 numbers"),
    ],
)
def test_numbers_that_are_no_rotation_are_refused(name, numbers, message):
    with pytest.raises(ValueError, match=message):
        CONVENTIONS[name].to_matrix(np.array(numbers, dtype=float))
