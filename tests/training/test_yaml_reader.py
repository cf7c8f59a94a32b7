"""Laws of reading YAML: words mean what they say, and what was written is read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.training.yaml_reader import YamlError, read_yaml, write_yaml

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False),
    st.text(max_size=12),
    st.sampled_from(["off", "no", "true", "1e-4", "1e5", "010", "1:30", "~", ".inf", "", "0x1F"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_read_back(value):
    assert read_yaml(write_yaml(value)) == value


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-4", 1e-4),
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("true", True),
        ("010", 10),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("", None),
        ("[1, .5, 1.]", [1, 0.5, 1.0]),
    ],
)
def test_a_word_means_what_it_says(text, value):
    read = read_yaml(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: 1\na: 2", "key 'a' comes twice"),
        ("{a: {b: 1, b: 1}}", "key 'b' comes twice"),
        ("!!python/object/apply:os.getcwd []", "python/object"),
        ("a: b: c", "not allowed here"),
        ("[" * 1200, "recursion"),
        ("9" * 5000, "limit"),
    ],
)
def test_what_is_no_yaml_is_refused(text, said):
    with pytest.raises(YamlError, match=said):
        read_yaml(text)
