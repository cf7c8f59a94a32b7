"""Laws of joining: which samples of several topics become one, however they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.ros.joining import KEPT, Joining


def paired(events):
    out = []
    joining = Joining(2, lambda stamp, parts: out.append((stamp, parts[1][1])))
    for kind, stamp in events:
        joining.take(("pose", "gripper").index(kind), stamp, stamp / 100)
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


def test_a_pose_from_the_future_keeps_no_other_waiting():
    ahead = ("pose", 10**9)
    assert paired([ahead, ("pose", 10), ("gripper", 10)]) == [(10, 0.1)]


@given(st.permutations([("pose", 10), ("gripper", 10), ("pose", 20), ("gripper", 20)]))
def test_order_of_arrival_between_topics_changes_nothing(events):
    in_order = [e for e in events if e[0] == "pose"] == [("pose", 10), ("pose", 20)]
    grippers_in_order = [e for e in events if e[0] == "gripper"] == [
        ("gripper", 10),
        ("gripper", 20),
    ]
    if in_order and grippers_in_order:
        assert paired(events) == [(10, 0.1), (20, 0.2)]


def merged(events, topics):
    out = []
    joining = Joining(topics, lambda stamp, parts: out.append((stamp, [at for at, _ in parts])))
    for topic, stamp in events:
        joining.take(topic, stamp, None)
    return out


def test_of_three_the_slowest_to_come_completes():
    events = [(0, 10), (1, 10), (2, 4), (2, 9)]
    assert merged(events, 3) == []
    assert merged([*events, (2, 11)], 3) == [(10, [10, 10, 9])]


@given(
    st.lists(st.lists(st.integers(0, 1000), min_size=1, unique=True), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_whatever_the_order_between_topics_the_same_is_joined(stamps, random):
    """Each topic in its own order, and few enough that all are kept: an oracle with all at hand."""
    stamps = [sorted(one)[:KEPT] for one in stamps]
    left = [list(one) for one in stamps]
    events = []
    while any(left):
        topic = random.choice([t for t, one in enumerate(left) if one])
        events.append((topic, left[topic].pop(0)))
    expected = []
    for stamp in stamps[0]:
        before = [[at for at in other if at <= stamp] for other in stamps[1:]]
        if all(before) and all(other[-1] >= stamp for other in stamps[1:]):
            expected.append((stamp, [stamp, *(max(one) for one in before)]))
    assert merged(events, len(stamps)) == expected
