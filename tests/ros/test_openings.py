"""Laws of which openings are told: none is far from the one that is wanted."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.ros.openings import STEP, Openings

SHARES = st.floats(0.0, 1.0)


@given(st.lists(SHARES, min_size=1))
def test_what_was_told_last_is_near_what_is_wanted_and_the_ends_are_exact(shares):
    openings, told = Openings(), []
    for share in shares:
        if openings.differs(share):
            openings.last = share
            told.append(share)
        assert abs(openings.last - share) < STEP
        if share in (0.0, 1.0):
            assert openings.last == share
    assert all(
        abs(one - other) >= STEP or other in (0.0, 1.0) for one, other in itertools.pairwise(told)
    )
    assert not openings.differs(openings.last)


@given(SHARES)
def test_what_was_forgotten_is_told_again(share):
    openings = Openings()
    openings.last = share
    openings.forget()
    assert openings.differs(share)
