"""Laws of normalisation: un-normalise undoes normalise, nothing is clipped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canvas_robot.resources import config_path
from canvas_robot.signals import (
    Normaliser,
    Statistics,
    StatisticsError,
    load_binding,
    load_statistics,
    save_statistics,
)

GOOD = {"mean": (0.5, 2.0), "std": (0.1, 3.0), "q01": (0.0, -4.0), "q99": (1.0, 6.0)}

numbers = st.floats(-1e3, 1e3, width=32)
normalisers = st.lists(
    st.tuples(numbers, st.floats(np.float32(1e-3), 1e3, width=32)), min_size=1, max_size=7
).map(lambda pairs: Normaliser([c for c, _ in pairs], [s for _, s in pairs]))


@given(st.data(), normalisers)
def test_unnormalise_undoes_normalise(data, normaliser):
    size = len(normaliser.centre)
    rows = st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=1, max_size=3)
    values = np.array(data.draw(rows))
    given_values = values.copy()
    back = normaliser.unnormalise(normaliser.normalise(values))
    rounding = 4 * np.finfo(np.float32).eps * (np.abs(values) + np.abs(normaliser.centre) + 1e-3)
    assert (np.abs(back - values) <= rounding).all()
    assert back.dtype == np.float32
    assert np.array_equal(values, given_values), "the argument is left as it was"


def test_quantiles_become_plus_and_minus_one():
    normaliser = Statistics(**GOOD).normaliser("quantile")
    np.testing.assert_allclose(normaliser.normalise([GOOD["q01"], GOOD["q99"]]), [[-1, -1], [1, 1]])


def test_the_mean_becomes_zero_and_one_deviation_becomes_one():
    normaliser = Statistics(**GOOD).normaliser("mean_std")
    deviated = np.add(GOOD["mean"], GOOD["std"])
    values = normaliser.normalise([GOOD["mean"], deviated])
    np.testing.assert_allclose(values, [[0, 0], [1, 1]], atol=1e-6)


def test_nothing_is_clipped():
    normaliser = Statistics(**GOOD).normaliser("quantile")
    np.testing.assert_allclose(normaliser.normalise([1000.0, 1.0])[0], 1999.0)


def test_an_unknown_kind_of_normalisation_is_refused():
    with pytest.raises(StatisticsError) as error:
        Statistics(**GOOD).normaliser("minmax")
    assert str(error.value) == "normalise: expected 'quantile' or 'mean_std', got 'minmax'"


@pytest.mark.parametrize(
    "change, text",
    [
        ({"std": (0.1,)}, r"expected equal numbers of components, got \[1, 2\]"),
        ({"std": (0.1, 0.0)}, "expected finite values and a spread > 0, got"),
        ({"std": (0.1, -1.0)}, "expected finite values and a spread > 0, got"),
        ({"mean": (0.1, float("nan"))}, "expected finite values and a spread > 0, got"),
    ],
)
def test_statistics_that_cannot_normalise_are_refused(change, text):
    with pytest.raises(StatisticsError, match=f"^statistics: {text}"):
        Statistics(**{**GOOD, **change}).normaliser("mean_std")


def test_quantiles_without_a_spread_are_refused():
    with pytest.raises(StatisticsError, match="expected finite values and a spread > 0"):
        Statistics(**{**GOOD, "q99": GOOD["q01"]}).normaliser("quantile")


@pytest.mark.parametrize("q01", [(0.0,), (0.0, 0.0, 0.0)])
def test_quantiles_of_unequal_lengths_are_refused(q01):
    with pytest.raises(StatisticsError, match="expected equal numbers of components"):
        Statistics(**{**GOOD, "q01": q01}).normaliser("quantile")


finite = st.floats(allow_nan=False, allow_infinity=False)
vectors = st.lists(finite, max_size=3).map(tuple)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.builds(Statistics, mean=vectors, std=vectors, q01=vectors, q99=vectors),
        max_size=3,
    )
)
def test_statistics_files_round_trip(tmp_path_factory, statistics):
    path = tmp_path_factory.getbasetemp() / "statistics.json"
    save_statistics(statistics, path)
    assert load_statistics(path) == statistics


def test_the_shipped_statistics_fit_every_normalised_region_of_every_robots_binding():
    statistics = load_statistics(config_path("statistics", "bridge_v2.json"))
    paths = config_path("bindings", "widowx.yaml").parent.glob("*.yaml")
    for binding in filter(lambda binding: binding.robot, map(load_binding, paths)):
        for name in (*binding.regions_by_codec("vector"), *binding.regions_by_codec("action")):
            bound = binding.regions[name]
            normaliser = statistics[bound.signal].normaliser(bound.normalise)
            assert len(normaliser.centre) == binding.signals[bound.signal].size


@pytest.mark.parametrize(
    "content, text",
    [
        (b"{", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"state": {"mean": [0]}}', "missing required field `std`"),
        (b'{"state": {"mean": [0], "std": [1], "q01": ["x"], "q99": [1]}}', "q01"),
        (b'{"state": {"mean": [0], "std": [1], "q01": [0], "q99": [1], "min": [0]}}', "`min`"),
    ],
)
def test_a_file_that_holds_no_statistics_is_refused_by_path_and_field(tmp_path, content, text):
    path = tmp_path / "statistics.json"
    path.write_bytes(content)
    with pytest.raises(StatisticsError) as error:
        load_statistics(path)
    assert str(error.value).startswith(f"{path}: ") and text in str(error.value)


def test_a_file_that_is_not_utf_8_is_refused_by_path(tmp_path):
    path = tmp_path / "statistics.json"
    path.write_bytes(b'{"\xff": 1}')
    with pytest.raises(StatisticsError, match=r"statistics\.json"):
        load_statistics(path)
