"""Laws of readings of recorded actions: what each changes, and what it leaves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from canvas_robot.evaluation.replay_conventions import (
    CONVENTIONS,
    GRIPPER,
    POSITION,
    RIGHT,
    ROTATION,
)
from canvas_robot.signals.pose import BRIDGE_DEFAULT_ROTATION, Pose, matrix_from_rpy

PARTS = {POSITION: slice(0, 3), ROTATION: slice(3, 6), GRIPPER: slice(6, 7)}

actions = arrays(np.float64, 7, elements=st.floats(-0.25, 0.25))
turns = arrays(np.float64, 3, elements=st.floats(-1.0, 1.0))


def pose(rpy):
    return Pose(np.array([0.3, 0.0, 0.1]), matrix_from_rpy(rpy) @ BRIDGE_DEFAULT_ROTATION)


def test_one_reading_is_right_and_every_part_is_read_wrongly_by_some():
    right = [name for name, convention in CONVENTIONS.items() if not convention.wrong]
    assert right == [RIGHT]
    for part in PARTS:
        assert any(part in convention.wrong for convention in CONVENTIONS.values())


@pytest.mark.parametrize("name", CONVENTIONS)
@given(action=actions, rpy=turns)
def test_a_reading_leaves_what_it_does_not_get_wrong(name, action, rpy):
    before = action.copy()
    read = CONVENTIONS[name].read(action, pose(rpy))
    np.testing.assert_array_equal(action, before)
    for part, where in PARTS.items():
        if part not in CONVENTIONS[name].wrong:
            np.testing.assert_array_equal(read[where], action[where])


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_reading_changes_what_it_gets_wrong(name):
    action = np.array([0.01, 0.02, 0.03, 0.1, 0.2, 0.15, 1.0])
    read = CONVENTIONS[name].read(action, pose([0.3, 0.2, 0.5]))
    for part in CONVENTIONS[name].wrong:
        assert not np.allclose(read[PARTS[part]], action[PARTS[part]])


@given(action=actions, rpy=turns)
def test_motions_about_the_hands_axes_are_as_long(action, rpy):
    read = CONVENTIONS["hand's axes"].read(action, pose(rpy))
    assert np.linalg.norm(read[:3]) == pytest.approx(np.linalg.norm(action[:3]), abs=1e-9)

    def angle(turn):
        return np.trace(matrix_from_rpy(turn))

    assert angle(read[3:6]) == pytest.approx(angle(action[3:6]), abs=1e-9)


@given(action=actions)
def test_a_hand_that_points_down_has_base_links_axes(action):
    read = CONVENTIONS["hand's axes"].read(action, pose(np.zeros(3)))
    np.testing.assert_allclose(read, action, atol=1e-9)
