"""Laws of pairing poses with gripper positions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.ros.inputs import PosePairing
from canvas_robot.signals.pose import Pose

POSE = Pose(np.array([0.3, 0.0, 0.1]), np.eye(3))


def paired(events):
    out = []
    pairing = PosePairing(lambda stamp, state: out.append((stamp, round(float(state[6]), 6))))
    for kind, stamp in events:
        if kind == "pose":
            pairing.pose(stamp, POSE)
        else:
            pairing.gripper(stamp, stamp / 100)
    return out


@pytest.mark.parametrize("first", ["pose", "gripper"])
def test_equal_stamps_pair_whichever_comes_first(first):
    second = "gripper" if first == "pose" else "pose"
    assert paired([(first, 10), (second, 10)]) == [(10, 0.1)]


def test_a_pose_takes_the_newest_gripper_before_it_once_a_later_one_came():
    assert paired([("gripper", 5), ("gripper", 9), ("pose", 10)]) == []
    assert paired([("gripper", 5), ("gripper", 9), ("pose", 10), ("gripper", 12)]) == [(10, 0.09)]


def test_a_pose_without_an_earlier_gripper_is_passed_over():
    assert paired([("pose", 3), ("gripper", 5), ("pose", 5)]) == [(5, 0.05)]


@given(st.permutations([("pose", 10), ("gripper", 10), ("pose", 20), ("gripper", 20)]))
def test_order_of_arrival_between_topics_changes_nothing(events):
    in_order = [e for e in events if e[0] == "pose"] == [("pose", 10), ("pose", 20)]
    grippers_in_order = [e for e in events if e[0] == "gripper"] == [
        ("gripper", 10),
        ("gripper", 20),
    ]
    if in_order and grippers_in_order:
        assert paired(events) == [(10, 0.1), (20, 0.2)]
