"""Laws of joining: which samples of several topics become one, however they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.ros.joining import MOST, Joining

LONG = 10**6


def paired(events):
    out = []
    joining = Joining(2, LONG, lambda stamp, parts: out.append((stamp, parts[1][1])))
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


def merged(events, topics, kept=LONG):
    out = []

    def joined(stamp, parts):
        out.append((stamp, [at for at, _ in parts]))

    joining = Joining(topics, kept, joined)
    for topic, stamp in events:
        joining.take(topic, stamp, None)
    return out


def test_of_three_the_slowest_to_come_completes():
    events = [(0, 10), (1, 10), (2, 4), (2, 9)]
    assert merged(events, 3) == []
    assert merged([*events, (2, 11)], 3) == [(10, [10, 10, 9])]


def test_a_first_topic_that_lags_by_thousands_of_the_others_is_completed():
    events = [(1, at) for at in range(MOST)] + [(0, 700), (0, 900)]
    assert merged(events, 2) == [(700, [700, 700]), (900, [900, 900])]
    assert merged(events, 2, kept=MOST - 800) == [(900, [900, 900])]  # 700 has nothing before it


def test_of_one_topic_out_of_order_the_last_by_stamp_counts():
    assert merged([(1, 10), (1, 13), (1, 11), (0, 12)], 2) == [(12, [12, 11])]


def test_a_clock_that_was_ahead_or_goes_back_keeps_nothing_waiting():
    events = [(1, LONG * 5), (1, 10), (0, 12), (1, 14)]
    assert merged(events, 2) == [(12, [12, 10])]
    assert merged([(0, LONG * 9), (1, LONG * 9), *events[1:]], 2)[-1] == (12, [12, 10])


@given(
    st.lists(st.lists(st.integers(0, 1000), min_size=1, unique=True), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_whatever_the_order_between_topics_the_same_is_joined(stamps, random):
    """Each topic in its own order, all kept: an oracle with all at hand."""
    stamps = [sorted(one) for one in stamps]
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
