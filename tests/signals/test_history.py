"""Laws of the history: which sample fills which frame, what a reset keeps, what is refused."""

import weakref
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.schema import CanvasSchema, CanvasTopology, RegionSpec
from canvas_robot.signals import History, NotReadyError, SignalError, StampError
from canvas_robot.signals.codecs import VisualBinding
from canvas_robot.signals.history import refresh_tick, sampled

TICK_NS = 200_000_000
START_NS = 10**10
IMAGE = np.zeros((64, 64, 3), np.uint8)


def state(x: float) -> np.ndarray:
    """A state that can be told from others."""
    return np.array([x, 0, 0, 0, 0, 0, 0], np.float32)


def expected_frames(samples, t_ns, steps, period):
    """[(stamp, missing)], oldest first, by definition; samples: all stamps since the reset."""
    frames = []
    for i in reversed(range(steps)):
        past = [stamp for stamp in samples if stamp <= t_ns - i * period * TICK_NS]
        frames.append((max(past), False) if past else (min(samples), True))
    return frames


def seen(frames):
    """[(stamp, missing)] of a region's frames."""
    return list(zip(frames.stamps_ns.tolist(), frames.missing.tolist(), strict=True))


regions = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 3]))


@st.composite
def episodes(draw):
    """Ticks since the reset, some skipped, each with the delays of the samples before it."""
    ticks = [0, *sorted(draw(st.sets(st.integers(1, 14), max_size=10)))]
    delays = st.lists(st.integers(0, TICK_NS), unique=True, max_size=3)
    return [(tick, sorted(draw(delays))) for tick in ticks]


@settings(deadline=None)
@given(
    regions,
    regions,
    episodes(),
    st.lists(st.integers(0, 5 * TICK_NS), unique=True, min_size=1, max_size=4),
)
def test_frames_are_the_newest_samples_at_or_before_their_time_and_refresh_by_phase(
    small_schema, widowx, proprio, visual, episode, ages
):
    history = History(small_schema(proprio, visual), widowx)
    before = sorted(START_NS - age for age in ages)
    for stamp in before:
        history.push("state", stamp, state(stamp % 997 / 1000))
    history.push("image", before[0], IMAGE)
    history.reset(START_NS)
    samples = {"proprio": [before[-1]], "visual": [before[0]]}
    shape = {"proprio": proprio, "visual": visual}
    held = {}
    for tick, delays in episode:
        t_ns = START_NS + tick * TICK_NS
        history.foreseen(tick, t_ns)  # which keeps nothing of what more samples may change
        for delay in delays:
            stamp = t_ns - TICK_NS + delay
            if stamp > samples["proprio"][-1]:
                history.push("state", stamp, state(stamp % 997 / 1000))
                samples["proprio"].append(stamp)
        foreseen, observation = history.foreseen(tick, t_ns), history.observe(tick, t_ns)
        for region, frames in foreseen.frames.items():
            assert seen(frames) == seen(observation.frames[region])
        for region, (steps, period) in shape.items():
            last = held[region][0] if region in held else None
            if last is None or any(k % period == 0 for k in range(last + 1, tick + 1)):
                held[region] = tick, expected_frames(samples[region], t_ns, steps, period)
            assert seen(observation.frames[region]) == held[region][1]
        values = observation.frames["proprio"].values
        stamps = observation.frames["proprio"].stamps_ns
        np.testing.assert_array_equal(values, [state(s % 997 / 1000) for s in stamps])
        assert (observation.tick, observation.stamp_ns) == (tick, t_ns)


@given(
    st.lists(st.integers(1, 10**6), unique=True, min_size=1, max_size=8).map(sorted),
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(1, 10**6),
)
def test_sampled_names_the_newest_samples_and_where_the_first_stands_in(
    stamps, stamp, steps, period
):
    indices, missing = sampled(stamps, stamp, steps, period)
    for i, (index, stands_in) in enumerate(zip(reversed(indices), reversed(missing), strict=True)):
        past = [n for n, sample in enumerate(stamps) if sample <= stamp - i * period]
        assert (index, stands_in) == ((past[-1], False) if past else (0, True))


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 12))
def test_a_refresh_is_the_last_tick_of_the_shifted_clock_or_the_reset(tick, period, phase):
    on_the_clock = [t for t in range(tick + 1) if t % period == phase % period]
    assert refresh_tick(tick, period, phase) == max([0, *on_the_clock])


def test_a_region_of_the_future_is_not_observed(small_schema, widowx):
    schema = small_schema()
    coming = RegionSpec((1, 2, 0, 1, 0, 1))  # after t_current = 0, an output
    layout = replace(schema.layout, regions={**schema.layout.regions, "coming": coming})
    schema = CanvasSchema(layout, CanvasTopology.dense(list(layout.regions)))
    bound = {**widowx.regions, "coming": VisualBinding(signal="image")}
    history = History(schema, msgspec.structs.replace(widowx, regions=bound))
    filled(history, START_NS)
    assert set(history.observe(0, START_NS).frames) == {"visual", "proprio"}


@pytest.fixture
def history(small_schema, widowx):
    """Of a two-frame vector and a one-frame image, with nothing in it."""
    return History(small_schema(proprio=(2, 1)), widowx)


def filled(history, *stamps_ns):
    history.push("image", stamps_ns[0], IMAGE)
    for stamp in stamps_ns:
        history.push("state", stamp, state(stamp / 1e12))
    return history


def test_a_missing_past_repeats_the_first_sample_with_the_mask_set(history):
    filled(history, START_NS)
    frames = history.observe(0, START_NS).frames["proprio"]
    assert seen(frames) == [(START_NS, True), (START_NS, False)]
    assert np.array_equal(frames.values[0], frames.values[1])


def test_a_reset_keeps_only_the_newest_sample_at_or_before_it_and_all_later_ones(history):
    filled(history, *range(START_NS, START_NS + 5 * TICK_NS, TICK_NS))
    history.reset(START_NS + 2 * TICK_NS + 5)
    later = START_NS + 4 * TICK_NS
    assert seen(history.observe(0, later).frames["proprio"])[0] == (later - TICK_NS, False)
    history.reset(START_NS + 2 * TICK_NS + 5)
    first = START_NS + 2 * TICK_NS
    assert seen(history.observe(0, first + 9).frames["proprio"]) == [(first, True), (first, False)]


@pytest.mark.parametrize("period", [1, 2, 3])
def test_the_refresh_phase_counts_from_the_reset(small_schema, widowx, period):
    history = History(small_schema(proprio=(1, period)), widowx)
    refreshed = []
    for first in (0, 7):  # control ticks of the grid at which an episode starts
        history.push("image", START_NS + first * TICK_NS, IMAGE)
        for tick in range(7):
            stamp = START_NS + (first + tick) * TICK_NS
            history.push("state", stamp, state(tick / 10))
            if tick == 0:
                history.reset(stamp)
            frames = history.observe(tick, stamp).frames["proprio"]
            refreshed.append(int(frames.stamps_ns[0]) == stamp)
            since = tick % period
            assert history.taken("proprio") == (tick - since, stamp - since * TICK_NS)
    assert refreshed == [tick % period == 0 for tick in range(7)] * 2


def test_the_newest_sample_of_a_signal_is_at_hand(history):
    assert history.signals == ("image", "state")
    assert history.newest_stamp_ns("state") is None
    with pytest.raises(NotReadyError) as error:
        history.newest("state")
    assert str(error.value) == "signal 'state': no sample yet"
    filled(history, START_NS, START_NS + 3)
    assert history.newest_stamp_ns("state") == START_NS + 3
    assert np.array_equal(history.newest("state"), state((START_NS + 3) / 1e12))


def test_without_a_sample_at_or_before_the_tick_there_is_no_observation(history):
    filled(history, START_NS)
    with pytest.raises(NotReadyError) as error:
        history.observe(0, START_NS - 1)
    assert str(error.value) == (
        f"signal 'image': no sample at or before the tick at {START_NS - 1} ns"
    )
    assert history.observe(0, START_NS).tick == 0


@pytest.mark.parametrize("stamp", [0, -5, START_NS - 1, START_NS])
def test_a_stamp_that_does_not_move_forward_is_refused_with_nothing_lost(history, stamp):
    filled(history, START_NS)
    with pytest.raises(StampError) as error:
        history.push("state", stamp, state(0.9))
    assert str(error.value) == (
        f"signal 'state': expected a stamp after {START_NS} ns, got {stamp} ns"
    )
    assert seen(history.observe(0, START_NS).frames["proprio"])[-1] == (START_NS, False)
    history.push("state", START_NS + 1, state(0.1))


@pytest.mark.parametrize("stamp", [0, -1])
def test_the_first_stamp_must_be_positive(history, stamp):
    with pytest.raises(StampError, match=f"expected a stamp after 0 ns, got {stamp} ns"):
        history.push("state", stamp, state(0.0))
    assert history.newest_stamp_ns("state") is None


def test_a_value_that_is_not_what_the_signal_declares_is_refused_with_nothing_lost(history):
    filled(history, START_NS)
    for signal, value in (
        ("state", np.full(7, np.nan)),
        ("state", state(2.0)),
        ("state", np.zeros(6)),
        ("image", np.zeros((64, 64), np.uint8)),
        ("image", np.zeros((100, 100, 3), np.uint8)),
    ):
        with pytest.raises(SignalError, match=f"signal '{signal}': expected"):
            history.push(signal, START_NS + 1, value)
        assert history.newest_stamp_ns(signal) == START_NS


def test_an_image_may_change_its_size_only_after_a_clear(history):
    filled(history, START_NS)
    larger = np.zeros((256, 256, 3), np.uint8)
    with pytest.raises(SignalError) as error:
        history.push("image", START_NS + 1, larger)
    assert str(error.value) == (
        "signal 'image': expected images of 64x64 as before, got 256x256; "
        "the size may change only with a reset"
    )
    history.reset(START_NS)
    with pytest.raises(SignalError, match="expected images of 64x64 as before"):
        history.push("image", START_NS + 1, larger)
    history.clear()
    history.push("image", START_NS + 1, larger)
    assert history.newest("image") is larger


def test_a_clear_forgets_all_samples_and_held_frames(history):
    filled(history, START_NS)
    history.observe(0, START_NS)
    history.clear()
    assert history.newest_stamp_ns("image") is None and history.newest_stamp_ns("state") is None
    with pytest.raises(NotReadyError):
        history.observe(1, START_NS + TICK_NS)


@settings(max_examples=10, deadline=None)
@given(regions, st.integers(10**7, 10**9))
def test_memory_is_bounded_by_what_the_oldest_frame_needs(small_schema, widowx, visual, gap_ns):
    history = History(small_schema(visual=visual), widowx)
    steps, period = visual
    span_ns = (steps - 1) * period * TICK_NS + 10**9  # one second of slack for late ticks
    kept = []
    for i in range(1, 2 * span_ns // gap_ns + 20):
        image = np.empty((64, 64, 3), np.uint8)
        kept.append((i * gap_ns, weakref.ref(image)))
        history.push("image", i * gap_ns, image)
        del image
    newest = kept[-1][0]
    alive = [stamp for stamp, image in kept if image() is not None]
    assert all(stamp >= newest - span_ns - gap_ns for stamp in alive)
    assert alive == [stamp for stamp, _ in kept[-len(alive) :]]


def test_a_history_is_made_only_of_a_schema_that_the_binding_fits(small_schema, widowx):
    schema = small_schema()
    del schema.layout.regions["proprio"]
    with pytest.raises(ValueError, match=r"only in the binding \['proprio'\]"):
        History(schema, widowx)


def test_what_was_foreseen_is_what_is_observed_until_its_signal_has_more(small_schema, widowx):
    history = History(small_schema((1, 1), (1, 1)), widowx)
    history.push("state", START_NS, state(0.1))
    history.push("image", START_NS, IMAGE)
    history.reset(START_NS)
    history.observe(0, START_NS)
    tick_ns = START_NS + TICK_NS
    foreseen = history.foreseen(1, tick_ns).frames
    history.push("state", START_NS + 1, state(0.2))
    observed = history.observe(1, tick_ns).frames
    assert observed["visual"] is foreseen["visual"]  # so that it need not be sent again
    assert seen(observed["proprio"]) != seen(foreseen["proprio"])
    assert history.observe(2, tick_ns + 1).frames["visual"] is not foreseen["visual"]
