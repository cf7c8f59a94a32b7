"""Laws of the signals: what fits passes as it is, what does not is refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.signals import ImageSignal, SignalError, TextSignal, VectorSignal

IMAGE = ImageSignal(sizes=((4, 6), (2, 2)))
STATE = VectorSignal(
    names=("x", "roll"), units=("m", "rad"), low=(-1.0, -3.0), high=(1.0, 3.0), frame="base_link"
)
TEXT = TextSignal(max_bytes=8)


@given(st.floats(-1, 1, width=32), st.floats(-3, 3, width=32), st.sampled_from(["f4", "f8"]))
def test_a_vector_in_range_passes_as_float32(x, roll, dtype):
    given_value = np.array([x, roll], dtype)
    checked = STATE.checked("state", given_value)
    assert checked.dtype == np.float32
    assert np.array_equal(checked, given_value)


@given(st.floats(), st.sampled_from([0, 1]))
def test_a_vector_passes_exactly_if_every_component_is_in_its_range(value, index):
    vector = np.zeros(2)
    vector[index] = value
    low, high = STATE.low[index], STATE.high[index]
    with np.errstate(over="ignore"):
        inside = low <= np.float32(value) <= high
        if inside:
            STATE.checked("state", vector)
            return
        with pytest.raises(SignalError) as error:
            STATE.checked("state", vector)
        assert str(error.value) == (
            f"signal 'state': expected component {STATE.names[index]!r} in [{low}, {high}] "
            f"{STATE.units[index]}, got {np.float32(value)}; "
            "check the source's unit, frame and sign"
        )


def test_a_list_of_floats_is_a_vector_too():
    assert np.array_equal(STATE.checked("state", [0.5, 0.0]), [0.5, 0.0])


@pytest.mark.parametrize(
    "value, got",
    [
        (np.zeros(3), "(3,) float64"),
        (np.zeros((1, 2)), "(1, 2) float64"),
        (np.zeros(2, int), "(2,) int64"),
        ("up", "str"),
        (None, "NoneType"),
    ],
)
def test_another_shape_or_type_of_vector_is_refused(value, got):
    with pytest.raises(SignalError) as error:
        STATE.checked("state", value)
    assert str(error.value) == f"signal 'state': expected (2,) floats, got {got}"


@pytest.mark.parametrize("size", IMAGE.sizes)
def test_an_image_of_an_accepted_size_passes_as_it_is(size):
    image = np.zeros((*size, 3), np.uint8)
    assert IMAGE.checked("image", image) is image


@pytest.mark.parametrize(
    "value, got",
    [
        (np.zeros((4, 6, 3)), "(4, 6, 3) float64"),
        (np.zeros((4, 6), np.uint8), "(4, 6) uint8"),
        (np.zeros((4, 6, 4), np.uint8), "(4, 6, 4) uint8"),
        ([[[0, 0, 0]]], "list"),
    ],
)
def test_what_is_not_an_image_is_refused(value, got):
    with pytest.raises(SignalError) as error:
        IMAGE.checked("image", value)
    assert str(error.value) == f"signal 'image': expected (H, W, 3) uint8 RGB, got {got}"


def test_an_image_of_another_size_is_refused_in_width_x_height():
    with pytest.raises(SignalError) as error:
        IMAGE.checked("image", np.zeros((6, 4, 3), np.uint8))
    assert str(error.value) == (
        "signal 'image': expected an image of 6x4, 2x2 (width x height), got 4x6; "
        "set the camera to one of these or add the size to the binding"
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_text_passes_exactly_if_it_is_printable_and_short_enough(text):
    if text.isprintable() and len(text.encode()) <= TEXT.max_bytes:
        assert TEXT.checked("goal", text) == text
        return
    with pytest.raises(SignalError, match=r"^signal 'goal': expected "):
        TEXT.checked("goal", text)


@pytest.mark.parametrize(
    "text, message",
    [
        ("nine byte", "signal 'goal': expected at most 8 bytes of text, got more"),
        ("öööö" + "ö", "signal 'goal': expected at most 8 bytes of text, got more"),
        ("a\nb", "signal 'goal': expected printable characters only, got 'a\\nb'"),
        ("\x1b[0m", "signal 'goal': expected printable characters only, got '\\x1b[0m'"),
        ("\ud800", "signal 'goal': expected printable characters only, got '\\ud800'"),
        (b"up", "signal 'goal': expected text, got bytes"),
        (None, "signal 'goal': expected text, got NoneType"),
    ],
)
def test_text_that_is_too_long_or_not_printable_is_refused(text, message):
    with pytest.raises(SignalError) as error:
        TEXT.checked("goal", text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ImageSignal(sizes=()), "sizes: expected at least one positive (H, W), got ()"),
        (
            lambda: ImageSignal(sizes=((4, 0),)),
            "sizes: expected at least one positive (H, W), got ((4, 0),)",
        ),
        (
            lambda: ImageSignal(sizes=((4, 4),), max_age_s=0.0),
            "max_age_s: expected a finite number > 0, got 0.0",
        ),
        (
            lambda: VectorSignal(
                names=("x",), units=("m",), low=(0.0, 1.0), high=(1.0,), frame="b"
            ),
            "low: expected 1 entries, one per name ['x'], got 2",
        ),
        (
            lambda: VectorSignal(names=("x",), units=("m",), low=(1.0,), high=(1.0,), frame="b"),
            "component 'x': expected finite low < high, got 1.0 and 1.0",
        ),
        (
            lambda: VectorSignal(
                names=("x",), units=("m",), low=(0.0,), high=(float("inf"),), frame="b"
            ),
            "component 'x': expected finite low < high, got 0.0 and inf",
        ),
        (
            lambda: VectorSignal(
                names=("x",), units=("m",), low=(0.0,), high=(1.0,), frame="b", max_age_s=-1.0
            ),
            "max_age_s: expected a finite number > 0, got -1.0",
        ),
        (
            lambda: ImageSignal(sizes=((4, 4),), max_skew_s=0.0),
            "max_skew_s: expected a finite number > 0, got 0.0",
        ),
    ],
)
def test_a_declaration_checks_itself(make, message):
    with pytest.raises(SignalError) as error:
        make()
    assert str(error.value) == message
